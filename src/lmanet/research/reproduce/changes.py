"""Frames where a memory changes the label: single-frame network, memory and truth side by side (Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.data.protocols import VideoData
from lmanet.errors import DataError
from lmanet.evaluation.models import ModelPredictor
from lmanet.methods.base import VideoModel
from lmanet.research.reproduce.cells import Changes
from lmanet.video import ImageSink
from lmanet.video.view import labels as coloured
from lmanet.video.view import side_by_side

PICTURE = "changes.png"
RULE = (
    "The labelled frames are cut, in order, into {parts} equal runs; of each the frame is shown in which the memory "
    "gives the most pixels, void ones left out, another label than the network alone, rightly or not."
)


@dataclass(frozen=True)
class Counts:
    """Pixels of one frame that are not void.

    Attributes:
        sequence: of the frame.
        frame: its name.
        pixels: how many there are.
        changed: labelled otherwise with the memory than by the single-frame network.
        made_right: wrong before, right with the memory.
        made_wrong: right before, wrong with the memory.
    """

    sequence: str
    frame: str
    pixels: int
    changed: int
    made_right: int
    made_wrong: int


def count_changes(
    label: NDArray[np.uint8], single: NDArray[np.uint8], video: NDArray[np.uint8]
) -> tuple[int, int, int, int]:
    """Pixels that are not void, changed, made right and made wrong, of (H, W) uint8 class ids."""
    known = label != VOID
    changed = known & (single != video)
    right = changed & (video == label)
    wrong = changed & (single == label)
    return int(known.sum()), int(changed.sum()), int(right.sum()), int(wrong.sum())


def pick(changed: Sequence[int], parts: int) -> list[int]:
    """The position of the largest count in each of `parts` equal runs (fewer where there are fewer counts)."""
    runs = np.array_split(np.arange(len(changed)), min(parts, len(changed)))
    return [int(run[np.argmax(np.asarray(changed)[run])]) for run in runs]


def find_changes(
    cell: Changes, single: VideoModel, video: VideoModel, data: VideoData, folder: Path
) -> dict[str, Any]:
    """Draw the frames into `folder/changes.png`, and count.

    Args:
        cell: how many frames are shown.
        single: the network by itself.
        video: the network with a memory.
        data: the frames.
        folder: for the picture.

    Returns:
        The counts of the frames shown and of all together, as JSON values, and the rule.

    Raises:
        DataError: no frame has a label.
        OutputError: the picture cannot be written.
    """
    predictors = ModelPredictor(single), ModelPredictor(video)
    counts: list[Counts] = []
    places: list[tuple[int, int]] = []
    for n, sequence in enumerate(data.sequences):
        for i, labels in _predicted(data, n, predictors):
            truth = sequence.label(i)
            if truth is not None:
                counts.append(Counts(sequence.name, sequence.frame_names[i], *count_changes(truth, *labels)))
                places.append((n, i))
    if not counts:
        raise DataError(f"{data.name} has no labelled frame: there is no truth to show")
    picked = pick([one.changed for one in counts], cell.parts)
    _draw(data, [places[i] for i in picked], predictors, folder / PICTURE)
    totals = {
        key: sum(getattr(one, key) for one in counts)
        for key in ("pixels", "changed", "made_right", "made_wrong")
    }
    return {
        "rule": RULE.format(parts=len(picked)),
        "shown": [asdict(counts[i]) for i in picked],
        "all": totals,
        "pictures": [PICTURE],
    }


def _predicted(data: VideoData, n: int, predictors: tuple[ModelPredictor, ModelPredictor]):
    """(index, both labels) of each frame of a sequence."""
    for predictor in predictors:
        predictor.start()
    for i in range(len(data.sequences[n].frame_names)):
        image = data.sequences[n].image(i)
        yield i, tuple(predictor.predict(image).copy() for predictor in predictors)


def _draw(
    data: VideoData,
    places: list[tuple[int, int]],
    predictors: tuple[ModelPredictor, ModelPredictor],
    path: Path,
) -> None:
    # The few sequences that are shown are streamed once more: keeping all labels would take the room of the data.
    palette = data.classes.colours()
    rows = []
    for n, frame in places:
        both = next(labels for i, labels in _predicted(data, n, predictors) if i == frame)
        truth = data.sequences[n].label(frame)
        assert truth is not None
        maps = [coloured(np.ascontiguousarray(label), palette) for label in (*both, truth)]
        rows.append([np.array(data.sequences[n].image(frame)), *maps])
    columns = [np.vstack(column) for column in zip(*rows, strict=True)]
    ImageSink(path).write(
        side_by_side(columns, ["Frame", "Single-frame", "With memory", "Truth"], data.classes)
    )
