"""Where chosen cells of LMANet look in the memory: attention maps, local against global (Figures 1 and 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmanet.data.protocols import VideoData
from lmanet.errors import DataError
from lmanet.methods.lmanet import LMANet
from lmanet.ops import attention_weights
from lmanet.research.benchmarks.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES = (("pedestrian", "person"), ("car",), ("sign", "traffic sign"))
"""Those whose cells are shown, by the names that data sets give them."""

OVER_MEMORY, LOCAL_AGAINST_GLOBAL = "attention-memory.png", "attention-global.png"
RULE = (
    "For pedestrian, car and sign: the labelled frame, of those with a memory full of other frames, that has the "
    "largest connected region of the class, and the cell nearest to that region's centre that lies in it. A map "
    "shows the weights by which this one cell reads the memory; each is scaled to its own largest weight."
)


@dataclass(frozen=True)
class Place:
    """A cell of the fused map to look at.

    Attributes:
        class_name: what it shows.
        sequence: index of its sequence.
        frame: index of its frame.
        row: in pixels.
        column: in pixels.
        region_px: pixels of the region it was chosen from.
    """

    class_name: str
    sequence: int
    frame: int
    row: int
    column: int
    region_px: int


def largest_region(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Pixels of the largest 8-connected region of a (H, W) mask, and the row and column nearest to its centre in it."""
    if not mask.any():
        return 0, 0, 0
    _, ids, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    rows, columns = np.nonzero(ids == best)
    x, y = centres[best]
    nearest = int(np.argmin((rows - y) ** 2 + (columns - x) ** 2))
    return int(stats[best, cv2.CC_STAT_AREA]), int(rows[nearest]), int(columns[nearest])


def choose_places(data: VideoData, memory_size: int) -> list[Place]:
    """One cell for each of `CLASSES` that the data show, by the rule of `RULE`."""
    best: dict[str, Place] = {}
    known = {name: i for i, name in enumerate(data.classes.names)}
    wanted = [name for names in CLASSES for name in names if name in known]
    for n, sequence in enumerate(data.sequences):
        for i in range(memory_size, len(sequence.frame_names)):
            label = sequence.label(i) if sequence.labelled[i] else None
            if label is None:
                continue
            for name in wanted:
                size, row, column = largest_region(np.asarray(label == known[name]))
                if size > (best[name].region_px if name in best else 0):
                    best[name] = Place(name, n, i, row, column, size)
    return [best[name] for name in wanted if name in best]


def draw_attention_maps(model: LMANet, data: VideoData, folder: Path) -> dict[str, Any]:
    """Draw the maps of each chosen cell into two pictures in `folder`.

    Returns:
        The cells and the rule, as JSON values.

    Raises:
        DataError: no frame with a full memory shows any of the classes.
        OutputError: a picture cannot be written.
    """
    places = choose_places(data, model.memory_size)
    if not places:
        raise DataError(
            f"{data.name} has no labelled frame with {model.memory_size} frames before it that shows a pedestrian, a "
            f"car or a sign: attention maps need one"
        )
    size = model.memory_size
    memory = new_figure(2.6 * (size + 1), 2.1 * len(places))
    against = new_figure(2.6 * 3, 2.1 * len(places))
    panels = memory.subplots(len(places), size + 1, squeeze=False)
    pairs = against.subplots(len(places), 3, squeeze=False)
    for place, over, pair in zip(places, panels, pairs, strict=True):
        sequence = data.sequences[place.sequence]
        images = [np.array(sequence.image(i)) for i in range(place.frame - size, place.frame + 1)]
        local, everywhere = weights_over_memory(model, images, place)
        _show(over[0], images[-1], place.class_name, place=place)
        for age, axes in zip(range(size, 0, -1), over[1:], strict=True):
            _show(axes, images[-1 - age], f"{age} before", local[-age])
        _show(pair[0], images[-1], place.class_name, place=place)
        _show(pair[1], images[-2], "global, 1 before", everywhere[-1])
        _show(pair[2], images[-2], f"R={model.window}, 1 before", local[-1])
    save_figure(memory, folder / OVER_MEMORY)
    save_figure(against, folder / LOCAL_AGAINST_GLOBAL)
    return {
        "rule": RULE,
        "cells": [
            {
                **asdict(place),
                "sequence": data.sequences[place.sequence].name,
                "frame": data.sequences[place.sequence].frame_names[place.frame],
            }
            for place in places
        ],
        "pictures": [OVER_MEMORY, LOCAL_AGAINST_GLOBAL],
    }


@torch.inference_mode()
def weights_over_memory(
    model: LMANet, images: list[NDArray[np.uint8]], place: Place
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The weights by which one cell reads the memory frames, within the model's window and over whole frames.

    Args:
        model: LMANet, on its network.
        images: (H, W, 3) uint8 RGB each: the memory frames, oldest first, then the current one.
        place: the cell.

    Returns:
        Both as (S, h, w); each sums to 1.
    """
    device = next(model.parameters()).device
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    features, _ = model.backbone.encode_any_size(frames)
    query, _ = model.key_value.query(features.fused[-1:])
    keys, _ = model.key_value.memory(features.fused[:-1])
    height, width = query.shape[-2:]
    stride = model.backbone.stride
    cell = (min(place.row // stride, height - 1), min(place.column // stride, width - 1))
    maps = []
    for window in (model.window, whole_map((height, width))):
        weights = attention_weights(query, keys[None], cell=cell, window=window, border=model.border)[0]
        maps.append(_on_map(weights, cell, (height, width)))
    return maps[0], maps[1]


def whole_map(size: tuple[int, int]) -> int:
    """The window, in cells, that reaches all of a map (h, w) from any of its cells."""
    return 2 * max(size) - 1


def _on_map(weights: Tensor, cell: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
    """Weights (S, R, R) around a cell to (S, h, w)."""
    radius = weights.shape[-1] // 2
    padded = torch.zeros(weights.shape[0], *(n + 2 * radius for n in size), device=weights.device)
    row, column = cell
    padded[:, row : row + weights.shape[1], column : column + weights.shape[2]] = weights
    return padded[:, radius : radius + size[0], radius : radius + size[1]].cpu().numpy()


def _show(
    axes: Axes,
    image: NDArray[np.uint8],
    title: str,
    weights: NDArray[np.float32] | None = None,
    *,
    place: Place | None = None,
) -> None:
    height, width = image.shape[:2]
    axes.imshow(image if weights is None else image // 2)
    if weights is not None:
        heat = cv2.resize(
            weights / max(float(weights.max()), 1e-12), (width, height), interpolation=cv2.INTER_NEAREST
        )
        axes.imshow(heat, cmap="inferno", alpha=np.clip(4 * heat, 0, 0.9), vmin=0, vmax=1)
    if place is not None:
        axes.plot([place.column], [place.row], marker="o", ms=7, mfc="none", mec="#ff7f0e", mew=1.8)
    axes.set_title(title, fontsize="small")
    axes.set_axis_off()
