"""The classes of a data set or a network: names and colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmanet.errors import InputError

VOID = 255
"""The label of pixels that belong to no class, inside lmanet, whatever the files use."""

MOST_CLASSES = VOID
"""Ids are 0 to 254, of 8 bits in label maps, and the last is void."""


@dataclass(frozen=True)
class Classes:
    """The classes of a data set or a network.

    Attributes:
        names: one name per class id, in order.
        palette: one RGB colour per class id, each channel 0 to 255.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise InputError(
                f"{len(self.names)} class names but {len(self.palette)} colours: give one colour per class"
            )

    def __len__(self) -> int:
        return len(self.names)

    def colours(self) -> NDArray[np.uint8]:
        """The palette as a (256, 3) uint8 RGB table; ids without a class, void among them, are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table


def generated_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` distinct RGB colours, at most 255, none black: those of PASCAL VOC's label maps from 1 on.

    Bits 0, 3, 6 of the number become the red channel's highest bits, 1, 4, 7 green's, 2, 5 blue's.
    """

    def channel(number: int, first: int) -> int:
        return sum((number >> (3 * i + first) & 1) << (7 - i) for i in range(3))

    return tuple((channel(n, 0), channel(n, 1), channel(n, 2)) for n in range(1, count + 1))


def numbered_classes(count: int) -> Classes:
    """Classes of a network that does not know their names: `class 0`, `class 1`, …, with generated colours."""
    return Classes(tuple(f"class {n}" for n in range(count)), generated_palette(count))


def check_class_count(count: int) -> None:
    """Raise InputError unless a network of `count` classes can label: by ids 0 to 254."""
    if count > MOST_CLASSES:
        raise InputError(
            f"a network of {count} classes: label maps hold ids 0 to {MOST_CLASSES - 1} in 8 bits, and {VOID} is void, "
            f"so that a network has at most {MOST_CLASSES} classes; give it a forward that returns fewer, such as "
            f"those that are wanted (logits[:, wanted])"
        )
    if count < 2:
        raise InputError(
            f"a network of {count} classes: expected at least 2, of which the largest logit gives the label; give a "
            f"network of one logit a second, of zeros"
        )


def check_same_classes(own: Classes, owner: str, expected: Classes, data: str, advice: str) -> None:
    """Check that two lists of classes have the same names in the same order.

    Args:
        own: the classes of a network, or of other data.
        owner: whose they are, for the message.
        expected: the classes of the data.
        data: the data's name, for the message.
        advice: what to do, for the message.

    Raises:
        InputError: naming the first difference.
    """
    if len(own) != len(expected):
        raise InputError(f"{owner} has {len(own)} classes, {data} {len(expected)}: {advice}")
    for number, (name, other) in enumerate(zip(own.names, expected.names, strict=False)):
        if name != other:
            raise InputError(f"class {number} is {name!r} in {owner}, {other!r} in {data}: {advice}")
