"""One moving thing in each clip: its IoU and its flicker, by every method without training.

python tools/objects.py DAVIS --weights FILE --json results/objects.json

For clips of DAVIS (Perazzi et al., CVPR 2016), `DAVIS/images/CLIP/*.jpg` and `DAVIS/masks/CLIP/*.png`, and a network of
Pascal VOC's classes. A mask says where one thing is, not what else there is, so

    IoU: of the mask and the pixels labelled as the thing's class, within 20 pixels of the mask
    flicker: of the pixels in the masks of two frames that follow each other, those that change their label
"""

from __future__ import annotations

from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from lmanet.atomic import write_whole
from lmanet.errors import DataError
from lmanet.imagefile import read_image
from lmanet.methods.base import VideoModel
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.session import Session
from lmanet.zoo.names import load

CHOOSING = {"blackswan": 3, "bmx-trees": 15, "breakdance": 15, "camel": 13, "car-roundabout": 7}
"""Clips that choices were made on, and what VOC's classes call the thing; for the camel there is none: a horse."""

REPORTED = {"car-shadow": 7, "cows": 10, "dance-twirl": 15, "dog": 12, "drift-chicane": 7}
"""Clips that no choice was made on."""

NEAR_PX = 20

METHODS: dict[str, Callable[[Any], VideoModel]] = {
    "single-frame": SingleFrame,
    **{
        f"flow average, {weight:g}": lambda net, weight=weight: FlowAverage(net, weight=weight)
        for weight in (0.5, 0.75, 0.9)
    },
    "memory without training": TrainingFreeMemory,
}


def objects(
    root: tyro.conf.Positional[Path],
    /,
    *,
    weights: str,
    json: Path,
    choosing: bool = False,
    frames: int | None = None,
) -> None:
    """Label the clips by each method and write the scores.

    Args:
        root: the folder with `images` and `masks`.
        weights: a network of VOC's 21 classes.
        json: where the scores go.
        choosing: take the clips that choices were made on.
        frames: of each clip, from its first; all if not given.

    Raises:
        DataError: a clip is not there, or has not a mask for each frame.
    """
    clips = CHOOSING if choosing else REPORTED
    network = load(weights).backbone.eval()
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, make in METHODS.items():
        session = Session(make(network).eval())
        scores[name] = {clip: scored(session, root, clip, label, frames) for clip, label in clips.items()}
        means = {key: np.mean([one[key] for one in scores[name].values()]) for key in ("iou", "flicker")}
        print(f"{name}: IoU {means['iou']:.2%}, flicker {means['flicker']:.2%}", flush=True)
    content = {"weights": Path(weights).name, "clips": clips, "frames": frames, "scores": scores}
    write_whole(json, (dumps(content, indent=1) + "\n").encode())


def scored(session: Session, root: Path, clip: str, label: int, frames: int | None) -> dict[str, float]:
    """IoU and flicker of the thing in one clip, 0 to 1."""
    images, masks = (sorted((root / kind / clip).glob("*.*"))[:frames] for kind in ("images", "masks"))
    if not images or [path.stem for path in images] != [path.stem for path in masks]:
        raise DataError(
            f"{root} has {len(images)} frames of {clip} and {len(masks)} masks: expected one for each"
        )
    session.reset()
    both = either = still = changed = 0
    before: tuple[NDArray[np.bool_], NDArray[np.uint8]] | None = None
    square = np.ones((2 * NEAR_PX + 1, 2 * NEAR_PX + 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        pixels = read_image(image)
        thing = np.asarray(Image.open(mask).convert("L")) > 127
        near = cv2.dilate(thing.astype(np.uint8), square) > 0
        said = session.step(pixels).labels
        both += int((thing & (said == label)).sum())
        either += int((thing | (near & (said == label))).sum())
        if before is not None:
            stays = thing & before[0]
            still += int(stays.sum())
            changed += int((stays & (said != before[1])).sum())
        before = thing, said
    return {"iou": both / either, "flicker": changed / still}


if __name__ == "__main__":
    tyro.cli(objects)
