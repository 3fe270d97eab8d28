"""Data sets named on the command line, such as `camvid:PATH` and `cityscapes:PATH,size=512x1024,past=4`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lmanet.classes import VOID
from lmanet.data.camvid import scan_camvid
from lmanet.data.check import only_masks
from lmanet.data.cityscapes import scan_cityscapes
from lmanet.data.files import FileData, refuse_problems
from lmanet.data.folder import scan_folder
from lmanet.data.protocols import VideoData, labelled_frames
from lmanet.data.resize import resize_data
from lmanet.data.vspw import scan_vspw
from lmanet.errors import DataError

SPLITS = ("train", "val", "test")

KINDS: dict[str, Callable[..., FileData]] = {
    "camvid": scan_camvid,
    "cityscapes": scan_cityscapes,
    "vspw": scan_vspw,
    "folder": scan_folder,
}
"""The data sets on disk and what opens them."""


def open_data(spec: str, split: str, *, labels: bool = True) -> VideoData:
    """One split of a data set.

    Args:
        spec: `camvid:PATH` (SegNet or Cambridge layout), `cityscapes:PATH`, `vspw:PATH`, `folder:PATH` (see
            `lmanet.data.folder`) or `synthetic:` (rendered, needs no path). `,size=HxW` behind it resizes frames and
            labels; `,past=N` takes N frames before the labelled one, for Cityscapes.
        split: `train`, `val` or `test`; for CamVid and folders any split that there is.
        labels: whether they will be used, and one is to be looked at (`refuse_masks`).

    Raises:
        DataError: an unknown kind of data set, a missing path, or what the data set itself finds wrong; labels of a
            folder that hold nothing but 0 and 255, where `classes.json` does not say what 255 is.
    """
    data, problems = scan_data(spec, split)
    refuse_problems(problems)
    if labels:
        refuse_masks(data)
    return data


def refuse_masks(data: VideoData) -> None:
    """Raise DataError where labels hold nothing but class 0 and void that nobody named, as masks of 0 and 255 do.

    Labels are read until one holds something else, which mostly is the first.
    """
    doubt = getattr(data, "doubt", "")
    if not doubt:
        return
    seen = np.zeros(256, bool)
    for n, i in labelled_frames(data):
        label = data.sequences[n].label(i)
        if label is not None:
            seen |= np.bincount(label.ravel(), minlength=256) > 0
        if seen[1:VOID].any():
            return
    if only_masks(seen):
        raise DataError(f"{data.name}: {doubt}")


def scan_data(spec: str, split: str) -> tuple[VideoData, tuple[str, ...]]:
    """What `open_data` opens; what the names of its files show to be wrong is left out and returned with it."""
    kind, colon, rest = spec.partition(":")
    if not colon or kind not in (*KINDS, "synthetic"):
        known = ", ".join(f"{kind}:PATH" for kind in KINDS)
        hint = f"; of a folder of your own: folder:{spec}" if Path(spec).is_dir() else ""
        raise DataError(f"data {spec!r}: expected {known} or synthetic:{hint}")
    path, options = _split_options(rest)
    size, past = options.pop("size", None), options.pop("past", None)
    if past is not None and kind != "cityscapes":
        raise DataError(f"data {spec!r}: past= is for cityscapes: leave it out")
    problems: tuple[str, ...] = ()
    if kind == "synthetic":
        data = _synthetic(path, split)
    else:
        if not path:
            raise DataError(f"{kind}: needs a path, such as {kind}:/data/{kind}")
        extra = {} if past is None else {"past": int(past)}
        data = KINDS[kind](Path(path).expanduser(), split, **extra)
        problems = data.problems
    if size is not None:
        height, width = map(int, size.split("x"))
        data = resize_data(data, (height, width))
    return data, problems


def size_of(spec: str) -> tuple[int, int] | None:
    """(H, W) that frames are resized to, of a specification that says so, otherwise None."""
    size = _split_options(spec.partition(":")[2])[1].get("size")
    return None if size is None else tuple(map(int, size.split("x")))  # pyright: ignore[reportReturnType]


def _split_options(text: str) -> tuple[str, dict[str, str]]:
    """A path, which may hold commas, and the options behind it."""
    options: dict[str, str] = {}
    while match := re.fullmatch(r"(.*),(?:(size)=(\d+x\d+)|(past)=(\d+))", text):
        text = match[1]
        name, value = (match[2], match[3]) if match[2] else (match[4], match[5])
        options[name] = value
    if wrong := re.fullmatch(r".*,((?:size|past)=[^,/]*)", text):
        raise DataError(
            f"data option {wrong[1]!r}: expected size=HEIGHTxWIDTH, such as size=512x1024, or past=N"
        )
    return text, options


def _synthetic(path: str, split: str) -> VideoData:
    from lmanet.data.synthetic import SyntheticDrive

    if path:
        raise DataError(f"synthetic: takes no path, got {path!r}")
    if split not in SPLITS:
        raise DataError(f"split {split!r} of synthetic: expected one of {', '.join(SPLITS)}")
    return SyntheticDrive(split=split)  # pyright: ignore[reportArgumentType]
