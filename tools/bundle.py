"""Put a trained model into the package: half precision, its card completed, and the loss from halving measured.

python tools/bundle.py runs/x/lmanet.safetensors lmanet-erfnet-camvid --single-frame erfnet-camvid \
        --command "lmanet train …" --limits "…"
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import tyro

from lmanet import VideoSegmenter
from lmanet.zoo import load_model, save_model
from lmanet.zoo.names import bundled_folder


def bundle(
    source: tyro.conf.Positional[Path],
    name: tyro.conf.Positional[str],
    /,
    *,
    command: str,
    limits: str,
    report: Path | None = None,
    column: str = "",
    single_frame: str | None = None,
) -> None:
    """Write src/lmanet/zoo/weights/NAME.safetensors.

    Args:
        source: what `lmanet train` wrote.
        name: the bundled name.
        command: the command that made it.
        limits: what a user should know.
        report: what `lmanet evaluate --json` wrote for this model; without, the card has no figures yet.
        column: the model's name in the report.
        single_frame: for a video model, the bundled name of its single-frame network.
    """
    model = load_model(source)
    target = bundled_folder() / f"{name}.safetensors"
    target.parent.mkdir(exist_ok=True)
    figures = {}
    if report is not None:
        content = json.loads(report.read_text())
        figures = {"data": content["data"], **content["scores"][column]}
    card = {**model.card, "command": command, "limits": limits, "figures": figures}
    save_model(model, target, classes=model.classes, card=card, single_frame=single_frame, half=True)
    halved = load_model(target)
    images = torch.rand(1, 3, 360, 480)
    with torch.inference_mode():
        outputs = [m.step(images)[0] if isinstance(m, VideoSegmenter) else m(images) for m in (model, halved)]
    difference = (outputs[0] - outputs[1]).abs().max()
    print(
        f"{target}: {target.stat().st_size / 1e6:.2f} MB, logits differ by at most {difference:.4f} on noise"
    )


if __name__ == "__main__":
    tyro.cli(bundle)
