"""Which normalisation a network wants, and why: what the user says, what it does itself, what is known of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lmanet.backbones.wrapped.entering import Entering, entering
from lmanet.backbones.wrapped.probing import in_eval_mode
from lmanet.backbones.wrapped.published import of_timm, published
from lmanet.backbones.wrapped.tries import usual_sizes
from lmanet.errors import InputError
from lmanet.nn.normalise import IMAGENET_MEAN, IMAGENET_STD

RGB = tuple[float, float, float]
NONE: tuple[RGB, RGB] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
IMAGENET: tuple[RGB, RGB] = IMAGENET_MEAN, IMAGENET_STD
BYTES: tuple[RGB, RGB] = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
SAY = "say --normalise imagenet, none or VALUES (in Python normalise=) if it was trained on other images"


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
        what = names.get((self.mean, self.std), f"mean {_told(self.mean)}, std {_told(self.std)}")
        return f"{what}{', channels as BGR' if self.bgr else ''} ({self.reason})"


def find_normalisation(
    model: nn.Module,
    *,
    normalise: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    probe: tuple[int, int] | None = None,
) -> Normalisation:
    """Which normalisation a network wants.

    Args:
        model: any network on images (B, 3, H, W).
        normalise: `imagenet`, `none`, or six numbers: mean, then standard deviation, per RGB channel in [0, 1], such as
            `0.5,0.5,0.5,0.25,0.25,0.25`; with `,bgr` behind it for a network that takes BGR. If not given, it is found
            out: see below.
        mean: per RGB channel in [0, 1], in place of `normalise`.
        std: likewise.
        probe: (H, W) of images that the model takes, if it does not take the usual ones.

    Returns:
        What was given. If nothing was: none, for a network that normalises in its own `forward`, which is tried out;
        otherwise what its library says of it; otherwise ImageNet's, which is assumed.

    Raises:
        InputError: what was given contradicts itself, or is no normalisation.
    """
    given = given_normalisation(normalise, mean, std)
    if given is not None:
        return given
    with in_eval_mode(model):
        found = entering(model, [probe] if probe else usual_sizes(model))
    own = _own(found)
    if own is not None:
        return own
    if (known := published(model)) is not None:
        return Normalisation(known.mean, known.std, known.bgr, known.source)
    return _assumed(found)


def legacy_normalisation(model: nn.Module) -> Normalisation:
    """What weights files of before say nothing of: timm's of a network inside the model, otherwise ImageNet's."""
    known = of_timm(model)
    if known is None:
        return Normalisation(*IMAGENET, False, "as its weights were trained")
    return Normalisation(known.mean, known.std, False, known.source)


def _own(found: Entering) -> Normalisation | None:
    """What remains to be done before a network that does something by itself; None for one that does nothing."""
    if found.kind == "by image":
        return Normalisation(*NONE, False, "its own forward standardises each image by itself")
    if found.kind == "range":
        return Normalisation(
            *NONE, False, "its own forward takes values beyond [0, 1] otherwise, so it wants [0, 1]"
        )
    if found.kind != "affine":
        return None
    if _hardly_anything(found):
        return Normalisation(*NONE, False, "its own forward turns RGB into BGR") if found.bgr else None
    order = ", channels as BGR" if found.bgr else ""
    values = f"mean {_told(found.mean)}, std {_told(found.std)}{order}"
    if min(found.mean) > 1.5 or min(map(abs, found.std)) > 20:
        return Normalisation(*BYTES, False, f"its own forward normalises values of 0 to 255: {values}")
    return Normalisation(*NONE, False, f"its own forward normalises: {values}")


def _hardly_anything(found: Entering) -> bool:
    """Whether images are only turned into their negative, moved a little, or scaled alike: no normalisation does."""
    scaled = [1 / s for s in found.std]
    largest = max(map(abs, found.mean))
    alike = max(scaled) - min(scaled) <= 0.02 * max(scaled) and 0.1 < max(scaled) < 10
    near_one = max(abs(s - 1) for s in scaled) < 0.1
    return min(scaled) < 0 or (alike and largest < 0.01) or (near_one and largest < 0.1)


def _assumed(found: Entering) -> Normalisation:
    if found.statistics is not None and (told := _of_statistics(*found.statistics)) is not None:
        return told
    if found.kind == "other":
        changes = "its own forward changes colours before its first layer, in a way that could not be told"
        return Normalisation(*NONE, False, f"assumed: {changes}; {SAY}")
    if found.kind == "unknown":
        reason = "what enters its first layer could not be found out, and nothing else is known of it"
    else:
        reason = "it does not normalise by itself, and nothing else is known of it"
    return Normalisation(*IMAGENET, False, f"assumed: {reason}; {SAY}")


def _of_statistics(mean: tuple[float, ...], variance: tuple[float, ...]) -> Normalisation | None:
    """What comes before a BatchNorm on the image itself, by what it has seen in training."""
    seen = f"its first layer, a BatchNorm, saw images of mean {_told(mean)}"
    if set(mean) == {0.0} and set(variance) == {1.0}:
        return None  # it has seen nothing
    if min(mean) > 5:
        return Normalisation(*BYTES, False, seen)
    if min(mean) > 0.1 and max(mean) < 0.9 and max(variance) < 0.3:
        return Normalisation(*NONE, False, seen)
    return Normalisation(*IMAGENET, False, f"assumed: {seen}; {SAY}")


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


def _told(values: Sequence[float]) -> str:
    return " ".join(f"{x + 0.0:.3g}" for x in (round(v, 6) for v in values))


def _shown(values: Any) -> str:
    return (
        " ".join(f"{x:g}" if isinstance(x, int | float) else repr(x) for x in values)
        if isinstance(values, list | tuple)
        else repr(values)
    )
