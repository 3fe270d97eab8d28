"""A method of your own: an exponential average of the probabilities.

python my_method.py [VIDEO]
lmanet segment VIDEO --method my_method:MyMethod
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import lmanet
from lmanet.errors import InputError


class Average(NamedTuple):
    """What a stream remembers: probabilities (B, K, H, W)."""

    probabilities: Tensor


@lmanet.methods.register
class MyMethod(lmanet.VideoModel):
    """Exponential average: p = weight · p_before + (1 - weight) · p_now."""

    method = "exponential-average"
    State = Average
    adjustable = ("weight",)
    needs_cut = False

    def __init__(self, backbone: lmanet.Backbone, *, weight: float = 0.5) -> None:
        super().__init__(backbone)
        self.weight = weight
        self.check_arguments()

    def check_arguments(self) -> None:
        if not 0 <= self.weight < 1:
            raise InputError(f"weight {self.weight}: expected 0 to below 1")

    @property
    def arguments(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def step(self, images: Tensor, state: Average | None = None) -> tuple[Tensor, Average]:
        probabilities = self.backbone.segment(images).float().softmax(1)
        if state is not None:
            probabilities = torch.lerp(probabilities, state.probabilities, self.weight)
        return probabilities.clamp_min(1e-12).log(), Average(probabilities)


def main(video: Path | None, folder: Path) -> None:
    # Evaluate it beside the network by itself, on eight frames of a rendered street.
    street = SyntheticDrive(split="val", sequences=1, frames=8, size=(120, 160))
    network = lmanet.load("erfnet-synthetic").backbone
    model = MyMethod(network, weight=0.6)
    report = lmanet.evaluate(street, {"single-frame": lmanet.SingleFrame(network), model.method: model})
    for name, scores in report.scores.items():
        print(f"{name}: mIoU {100 * scores.miou:.1f} %, flicker {100 * scores.flicker:.1f} %")

    # Save it, load it, and label a video: the one given, or one of the rendered frames.
    lmanet.save_model(model, folder / "mine.safetensors")
    loaded = lmanet.load(str(folder / "mine.safetensors"))
    print(f"loaded {loaded.method} with {loaded.arguments}")
    frames = [street.sequences[0].image(i) for i in range(8)]
    if video is None:
        video = folder / "street.mp4"
        with VideoSink(video, width=160, height=120, fps=15) as sink:
            for i, frame in enumerate(frames):
                sink.write(frame, i / 15)
    done = lmanet.label_video(video, folder / "labels", loaded)
    print(f"labelled {done.frames} frames by {done.method}")

    # Stop a stream in the middle, and go on from there in another session.
    whole, before, after = (lmanet.Session(loaded) for _ in range(3))
    wanted = [whole.step(frame).labels for frame in frames]
    for frame in frames[:4]:
        before.step(frame)
    after.load_state_dict(before.state_dict())
    same = all((after.step(frames[i]).labels == wanted[i]).all() for i in range(4, 8))
    print(f"resumed after 4 frames, the same labels: {same}")


if __name__ == "__main__":
    from lmanet.data.synthetic import SyntheticDrive
    from lmanet.video import VideoSink

    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]) if sys.argv[1:] else None, Path(temporary))
