"""A network of your own as a video segmentation network: of three libraries, with random weights.

python own_network.py [smp, torchvision or transformers] [VIDEO]
lmanet segment VIDEO --model own_network:torchvision --method training-free
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

import lmanet
from lmanet.video import VideoSink

CLASSES = 5


def smp() -> nn.Module:
    import segmentation_models_pytorch

    return segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=CLASSES)


def torchvision() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)


def transformers() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    names = {i: name for i, name in enumerate(["road", "car", "person", "tree", "sky"])}
    return SegformerForSemanticSegmentation(SegformerConfig(id2label=names))


LIBRARIES = {"smp": smp, "torchvision": torchvision, "transformers": transformers}


def main(library: str, video: Path, out: Path) -> None:
    network = LIBRARIES[library]().eval()
    backbone = lmanet.wrap(network, "training-free").backbone  # cut in two once, for all methods
    print(f"{type(network).__name__}: {backbone.channels} channels at stride {backbone.stride}")
    for method in ("single-frame", "flow-average", "training-free"):
        model = lmanet.wrap(backbone, method)
        done = lmanet.label_video(video, out / f"{library}-{method}.mp4", model)
        print(f"{method}: {done.frames} frames to {done.outputs[0].name}")


def noise(path: Path) -> Path:
    """A short video of noise that moves."""
    picture = np.random.default_rng(0).integers(0, 256, (96, 200, 3), np.uint8)
    with VideoSink(path, width=128, height=96, fps=15) as sink:
        for i in range(4):
            sink.write(np.ascontiguousarray(picture[:, 2 * i : 2 * i + 128]), i / 15)
    return path


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder, given = Path(temporary), sys.argv[1:]
        main(
            given[0] if given else "torchvision",
            Path(given[1]) if given[1:] else noise(folder / "noise.mp4"),
            Path() if given[1:] else folder,
        )
