"""What a labelling gives back. No video library is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledVideo:
    """What came of labelling a video.

    Attributes:
        outputs: what was written; nothing if the run was stopped before the first frame.
        frames: how many were labelled and written.
        seconds: from opening the source until the outputs were closed.
        shares: the share of each class in all pixels, 0 to 1, by name.
        method: that labelled.
        device: that it ran on.
        normalisation: what was done to images before the network saw them, and why, in a line.
        notes: what was recognised of a network of one's own, in sentences.
        warnings: what is wrong with the source, such as frames that could not be decoded.
        stopped: whether the run was ended before the source was.
        found: how many label maps of an earlier run were there, and not made again (`resume`).
    """

    outputs: tuple[Path, ...]
    frames: int
    seconds: float
    shares: dict[str, float]
    method: str
    device: str
    normalisation: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    stopped: bool = False
    found: int = 0
