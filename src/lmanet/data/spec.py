"""Data sets named on the command line: `camvid:PATH`, `synthetic:`."""

from __future__ import annotations

from pathlib import Path

from lmanet.data.base import VideoData
from lmanet.errors import DataError

SPLITS = ("train", "val", "test")


def open_data(spec: str, split: str) -> VideoData:
    """One split of a data set.

    Args:
        spec: `camvid:PATH` (SegNet or Cambridge layout) or `synthetic:` (rendered, needs no path).
        split: `train`, `val` or `test`; for CamVid any split that the folder holds.

    Raises:
        DataError: an unknown kind of data set, a missing path, or what the data set itself finds wrong.
    """
    kind, colon, path = spec.partition(":")
    if not colon or kind not in ("camvid", "synthetic"):
        raise DataError(f"data {spec!r}: expected camvid:PATH or synthetic:")
    if kind == "camvid":
        from lmanet.data.camvid import load_camvid

        if not path:
            raise DataError("camvid: needs a path, such as camvid:/data/CamVid")
        return load_camvid(Path(path).expanduser(), split)
    from lmanet.data.synthetic import SyntheticDrive

    if path:
        raise DataError(f"synthetic: takes no path, got {path!r}")
    if split not in SPLITS:
        raise DataError(f"split {split!r} of synthetic: expected one of {', '.join(SPLITS)}")
    return SyntheticDrive(split=split)  # pyright: ignore[reportArgumentType]
