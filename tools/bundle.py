"""Put a trained model into the package: half precision, its card completed, and the loss from halving measured.

python tools/bundle.py runs/x/label-memory.safetensors label-memory-erfnet-camvid --single-frame erfnet-camvid \
        --command "lmanet train …" --limits "…" --report results/camvid-val.json --column label-memory
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import tyro

from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.zoo import load_model, save_model
from lmanet.zoo.names import bundled_folder

BUNDLED = bundled_folder()


def bundle(
    source: tyro.conf.Positional[Path],
    name: tyro.conf.Positional[str],
    /,
    *,
    command: str,
    limits: str,
    report: Path | None = None,
    column: str | None = None,
    single_frame: str | None = None,
    folder: Path = BUNDLED,
) -> None:
    """Write FOLDER/NAME.safetensors.

    Args:
        source: what `lmanet train` wrote.
        name: the bundled name.
        command: the command that made it.
        limits: what a user should know.
        report: what `lmanet evaluate --json` wrote for this model; without, the card has no figures yet.
        column: the model's name in the report.
        single_frame: for a method that is trained, the bundled name of its single-frame network, bundled first.
        folder: where the bundled weights lie.

    Raises:
        InputError: the single-frame network or the report's column is missing, or named without need.
        WeightsError: the source is no weights file of lmanet.
    """
    model = load_model(source)
    _check_single_frame(model, single_frame, folder)
    card = {**model.card, "command": command, "limits": limits, "figures": _figures(report, column)}
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    save_model(model, target, classes=model.classes, card=card, single_frame=single_frame, half=True)
    difference = _difference(model, load_model(target))
    print(
        f"{target}: {target.stat().st_size / 1e6:.2f} MB, logits differ by at most {difference:.4f} on noise"
    )


def _check_single_frame(model: VideoModel, single_frame: str | None, folder: Path) -> None:
    if not model.trainable:
        if single_frame is not None:
            raise InputError(
                f"--single-frame {single_frame} for a model of {model.method}: only a method that is trained has one"
            )
        return
    known = [path.stem for path in sorted(folder.glob("*.safetensors"))]
    if single_frame not in known:
        raise InputError(
            f"--single-frame is {single_frame}, expected one of the bundled ({', '.join(known) or 'none'}): a video "
            "model is scored beside the single-frame network that it was made from; bundle that first"
        )


def _figures(report: Path | None, column: str | None) -> dict[str, Any]:
    """The report's data, conventions and machine, and the scores of one of its models; none without a report."""
    if report is None:
        if column is not None:
            raise InputError(f"--column {column} without --report: give the file that it stands in")
        return {}
    content = json.loads(report.read_text())
    if column not in content["scores"]:
        raise InputError(
            f"--column is {column}, expected one of the models in {report}: {', '.join(content['scores'])}"
        )
    about = {key: content[key] for key in ("data", "conventions", "environment")}
    return about | content["scores"][column]


def _difference(*models: VideoModel) -> float:
    """The largest difference between two models' logits of a second frame of noise, much like the first."""
    images = torch.rand(1, 3, 360, 480, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = (_after_one(model, images) for model in models)
    return float((first - second).abs().max())


def _after_one(model: VideoModel, images: torch.Tensor) -> torch.Tensor:
    _, state = model.step(images)
    return model.step(images.roll(4, -1), state)[0]


if __name__ == "__main__":
    tyro.cli(bundle)
