"""PASCAL VOC's classes (Everingham et al., 2010), which published networks label by. The data are single images."""

from __future__ import annotations

from lmanet.classes import Classes, generated_palette

VOC_CLASSES = Classes(
    names=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    palette=((0, 0, 0), *generated_palette(20)),
)  # fmt: skip
"""The background and the 20 classes, and their usual colours."""
