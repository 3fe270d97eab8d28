"""CamVid, 11 classes, in the SegNet layout and in the Cambridge one."""

from __future__ import annotations

from lmanet.data.base import Classes

CAMVID_CLASSES = Classes(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip
"""The 11 classes of the SegNet split and their usual colours."""
