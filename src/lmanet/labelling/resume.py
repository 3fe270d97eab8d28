"""Which frames a run that goes on with another has to label, and which to see before."""

from __future__ import annotations

from collections.abc import Callable


class Gaps:
    """Frames that are missing in an output, and those before them that warm the memory up.

    Args:
        name_of: an index to the frame's name; None beyond the end, where that is known.
        there: whether the frame of a name is in the output, whole.
        warm_up: so many frames before a missing one are seen, that its memory is what it would have been.

    Attributes:
        found: how many frames are there, of those that were asked for.
    """

    def __init__(
        self, name_of: Callable[[int], str | None], there: Callable[[str], bool], warm_up: int
    ) -> None:
        self._name_of, self._there, self._warm_up = name_of, there, warm_up
        # Looked at once: while the run is under way it fills its own gaps.
        self._missing: dict[int, bool] = {}
        self.found = 0

    def missing(self, index: int) -> bool:
        """Whether a frame is to be labelled for the output."""
        if index not in self._missing:
            name = self._name_of(index)
            there = name is not None and self._there(name)
            self.found += there
            self._missing[index] = name is not None and not there
        return self._missing[index]

    def wanted(self, index: int) -> bool:
        """Whether a frame is missing, or comes shortly before one that is."""
        return any(self.missing(i) for i in range(index, index + self._warm_up + 1))

    def skipped(self, after: int, before: int) -> bool:
        """Whether frames between two others were left out: the memory then knows nothing of the past."""
        return any(not self.wanted(index) for index in range(after + 1, before))
