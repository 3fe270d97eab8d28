"""Label files: what a pixel holds, a value or a colour, to class ids; whatever holds neither is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lmanet.classes import VOID
from lmanet.data.advice import general_advice
from lmanet.data.labelfile import RGB, Values, read_colours, read_values
from lmanet.errors import DataError
from lmanet.words import listed

LARGEST_VALUE = 65535
"""In a label file: that of 16 bits."""

BITS = {255: 1, 85: 2, 17: 4}
"""Of a pixel of a grey file, by what a viewer multiplies its values by."""

LISTED = 5
"""Values or colours that an error lists."""

MOST_KEPT = 1000
"""That it keeps at most, the commonest: photographs taken for labels have a million colours."""


class StrayLabels(DataError):
    """A label file holds values or colours that mean nothing.

    Attributes:
        path: the file.
        stray: pixels of each of them, by the value or colour; of the 1000 commonest, if there are more.
        seen: those that it holds too and that mean something.
        expected: what means something, in words.
        advise: what to do about these, given with those that are known to occur beside them.
    """

    def __init__(
        self, path: Path, stray: dict[int, int] | dict[RGB, int], seen: set, expected: str, advise: Advise
    ) -> None:
        self.path, self.stray, self.seen, self.expected, self.advise = path, stray, seen, expected, advise
        kind = "label" if all(isinstance(value, int) for value in stray) else "colour"
        ordered = sorted(stray.items(), key=lambda item: -item[1])
        if kind == "label" and len(stray) <= LISTED:
            ordered = list(stray.items())
        each = [f"{value} in {pixels} pixels" for value, pixels in ordered]
        many = len(stray) == MOST_KEPT
        told = f"{', '.join(each[:LISTED])} and very many more" if many else listed(each, LISTED)
        super().__init__(f"{path}: {kind} {told}, expected {expected}{advise(set(stray), seen)}")


Advise = Callable[[set, set], str]
"""Given the values or colours that mean nothing and those that do: what to do, as the end of a sentence, or nothing."""


@dataclass(frozen=True)
class IdTable:
    """Reads label files of one value a pixel and turns the values into class ids.

    Attributes:
        ids: class id, or void 255, of each value that occurs, 0 to 65535.
        expected: those, in words.
        assumed: values that nobody named: they yield to what else a file of few bits may mean.
        colours: class id of each colour, where it is known: a file whose palette says otherwise is refused.
        advise: what to do about values that do not occur.
    """

    ids: Mapping[int, int]
    expected: str
    assumed: frozenset[int] = frozenset()
    colours: Mapping[RGB, int] = field(default_factory=dict)
    advise: Advise = general_advice

    @cached_property
    def _tables(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int | None]:
        """Class id, and whether it means nothing, of each value 0 to 65535; the id of those that mean nothing.

        The id is None where classes and void take up all 256.
        """
        free = next((i for i in range(VOID, -1, -1) if i not in self.ids.values()), None)
        classes, stray = np.full(LARGEST_VALUE + 1, free or 0, np.uint8), np.ones(LARGEST_VALUE + 1, np.bool_)
        for value, number in self.ids.items():
            classes[value], stray[value] = number, False
        return classes, stray, free

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Class ids (H, W) uint8, void 255.

        Raises:
            DataError: the file holds no values, or others; the message names it.
        """
        read = read_values(path)
        if read.values.ndim == 3:
            runs, lengths = _runs(_packed(read.values.astype(np.uint8)))
            strays = _counted(runs, lengths, np.zeros(len(runs), np.bool_))
            raise StrayLabels(path, *strays, self.expected, self.advise)
        self._check_palette(path, read)
        values = read.values if read.scale == 1 else self._of_few_bits(path, read)
        classes, stray, free = self._tables
        narrow = values.dtype == np.uint8
        places = values if narrow else values.clip(0, LARGEST_VALUE)
        ids = np.asarray(cv2.LUT(values, classes[:256]) if narrow else classes[places], np.uint8)
        wrong = ids == free if narrow and free is not None else stray[places] | (places != values)
        if wrong.any():
            found, counts = _commonest(*np.unique(values[wrong], return_counts=True))
            strays = {int(value): int(count) for value, count in zip(found, counts, strict=True)}
            seen = {int(value) for value in np.unique(values[~wrong])}
            raise StrayLabels(path, strays, seen, self.expected, self.advise)
        return ids

    def _of_few_bits(self, path: Path, read: Values) -> NDArray[np.uint8]:
        """Values of a grey file of 1, 2 or 4 bits: ids as they are stored, or stretched to 255 as a picture's are."""
        table = np.arange(256, dtype=np.uint8)
        two_classes = max((i for i in self.ids.values() if i != VOID), default=0) == 1
        for stored in (int(value) for value in np.unique(read.values)):
            bright = stored * read.scale
            meanings = {self.ids[value] for value in (stored, bright) if value in self.ids}
            if len(meanings) > 1 and not (bright in self.assumed and two_classes):
                raise DataError(
                    f"{path}: {BITS[read.scale]} bits a pixel, in which {stored} may be "
                    f"{stored} or {bright}, and both mean something: save the label with 8 bits a pixel"
                )
            if stored not in self.ids and bright in self.ids:
                table[stored] = bright
        return table[read.values]

    def _check_palette(self, path: Path, read: Values) -> None:
        """Refuse indices into a palette that gives them the colour of another class."""
        if not self.colours or read.palette is None:
            return
        for index in (int(value) for value in np.flatnonzero(np.bincount(read.values.ravel()))):
            colour = read.palette[index] if index < len(read.palette) else None
            said = None if colour is None else self.colours.get(colour)
            if said is not None and index in self.ids and said != self.ids[index]:
                raise DataError(
                    f"{path}: its palette gives the value {index} the colour {colour}, which is class {said}'s: write "
                    '"labels": "colours" into classes.json if the colours are right, "labels": "ids" if the values are'
                )


@dataclass(frozen=True)
class ColourTable:
    """Reads label files in colours and turns these into class ids; of files with a palette, its colours count.

    Attributes:
        ids: class id, or void 255, of each colour (red, green, blue) that occurs.
        expected: those, in words.
        advise: what to do about other colours.
    """

    ids: Mapping[RGB, int]
    expected: str
    advise: Advise = general_advice

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Class ids (H, W) uint8, void 255.

        Raises:
            DataError: the file cannot be read in colours, or holds another one; the message names it.
        """
        packed = _packed(read_colours(path))
        known, order, classes = self._sorted
        runs, lengths = _runs(packed)
        places = np.searchsorted(known, runs).clip(max=len(known) - 1)
        hit = known[places] == runs
        if not hit.all():
            raise StrayLabels(path, *_counted(runs, lengths, hit), self.expected, self.advise)
        return np.repeat(classes[order[places]], lengths).reshape(packed.shape)

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint8]]:
        """The colours as rising numbers, whose they are, and the classes in their own order."""
        colours = _packed(np.array([list(self.ids)], np.uint8))[0]
        order = np.argsort(colours)
        return colours[order], order, np.array(list(self.ids.values()), np.uint8)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours (H, W, 3) as one number a pixel."""
    red, green, blue = (colours[..., i].astype(np.uint32) for i in range(3))
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _runs(packed: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Colours along the rows, and how many pixels each lasts: neighbours are mostly equal."""
    flat = packed.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(np.append(starts, flat.size))


def _counted(
    runs: NDArray[np.uint32], lengths: NDArray[np.int64], hit: NDArray[np.bool_]
) -> tuple[dict[RGB, int], set[RGB]]:
    """Pixels of each colour that means nothing, and the colours that do."""

    def colour(number: int) -> RGB:
        return number >> 16, number >> 8 & 255, number & 255

    found, which = np.unique(runs[~hit], return_inverse=True)
    found, pixels = _commonest(found, np.bincount(which, lengths[~hit]))
    stray = {colour(int(number)): int(count) for number, count in zip(found, pixels, strict=True)}
    return stray, {colour(int(number)) for number in np.unique(runs[hit])}


def _commonest(found: NDArray, counts: NDArray) -> tuple[NDArray, NDArray]:
    """Those that are kept, in rising order."""
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_KEPT])
    return found[kept], counts[kept]
