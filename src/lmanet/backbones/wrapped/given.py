"""A normalisation, and what users say of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmanet.errors import InputError
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD, RGB

NONE: tuple[RGB, RGB] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
IMAGENET: tuple[RGB, RGB] = IMAGENET_MEAN, IMAGENET_STD
BYTES: tuple[RGB, RGB] = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


@dataclass(frozen=True)
class Normalisation:
    """What is done to images before a network sees them.

    Attributes:
        mean: taken from each channel, in the order RGB, of images in [0, 1].
        std: what the channels are divided by then.
        bgr: whether they are turned round afterwards.
        reason: why this one.
    """

    mean: RGB
    std: RGB
    bgr: bool
    reason: str

    @property
    def values(self) -> str:
        """As `--normalise` takes it: `imagenet`, `none` or six numbers, with `,bgr` behind it or not."""
        names = {IMAGENET: "imagenet", NONE: "none"}
        numbers = ",".join(map(repr, (*self.mean, *self.std)))
        return names.get((self.mean, self.std), numbers) + (",bgr" if self.bgr else "")

    def __str__(self) -> str:
        """In a line: what is done, and why."""
        names = {IMAGENET: "ImageNet's", NONE: "none", BYTES: "none, on values of 0 to 255"}
        what = names.get((self.mean, self.std), f"mean {told(self.mean)}, std {told(self.std)}")
        return f"{what}{', channels as BGR' if self.bgr else ''} ({self.reason})"


def given_normalisation(
    normalise: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalisation | None:
    """What the user says, checked; None where nothing is said.

    Raises:
        InputError: it contradicts itself, or is no normalisation.
    """
    if normalise is not None and (mean is not None or std is not None):
        raise InputError(f"normalise {normalise!r} beside mean or std: give one of the two")
    if (mean is None) != (std is None):
        have, lacks = ("std", "mean") if mean is None else ("mean", "std")
        raise InputError(f"{have} without {lacks}: give both, --mean R G B --std R G B (mean=, std=)")
    if mean is not None and std is not None:
        return _checked(mean, std, False, "as given")
    if normalise is None:
        return None
    words = [word.strip().lower() for word in str(normalise).split(",")]
    bgr = words[-1] == "bgr"
    words = words[:-1] if bgr else words
    if words in (["imagenet"], ["none"]):
        return Normalisation(*(IMAGENET if words == ["imagenet"] else NONE), bgr, "as given")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise InputError(
            f"normalise {normalise!r}: expected imagenet, none, or six numbers, the mean and then the standard "
            f"deviation per channel, such as 0.5,0.5,0.5,0.25,0.25,0.25; with ,bgr behind it for a network that "
            f"takes BGR"
        )
    return _checked(numbers[:3], numbers[3:], bgr, "as given")


def _checked(mean: Sequence[float], std: Sequence[float], bgr: bool, reason: str) -> Normalisation:
    for what, values in (("mean", mean), ("std", std)):
        try:
            numbers = [float(x) for x in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
            raise InputError(f"{what} {_shown(values)}: expected three numbers, one per channel R, G, B")
    if min(std) <= 0:
        raise InputError(
            f"std {_shown(std)}: expected more than 0; 1, with a mean of 0, leaves images as they are"
        )
    if max(map(abs, mean)) > 2 or max(std) > 5:
        divided = [" ".join(f"{x / 255:.4g}" for x in values) for values in (mean, std)]
        raise InputError(
            f"mean {_shown(mean)}, std {_shown(std)} are of values of 0 to 255: expected those of images in [0, 1]; "
            f"divide both by 255: mean {divided[0]}, std {divided[1]}"
        )
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), bgr, reason)  # pyright: ignore[reportArgumentType]


def _shown(values: Any) -> str:
    return (
        " ".join(f"{x:g}" if isinstance(x, int | float) else repr(x) for x in values)
        if isinstance(values, list | tuple)
        else repr(values)
    )


def told(values: Sequence[float]) -> str:
    """Numbers for a sentence."""
    return " ".join(f"{x + 0.0:.3g}" for x in (round(v, 6) for v in values))
