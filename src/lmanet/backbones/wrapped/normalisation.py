"""Which normalisation a network wants, and why: what the user says, what it does itself, what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lmanet.backbones.wrapped.entering import Entering, entering
from lmanet.backbones.wrapped.given import BYTES, IMAGENET, NONE, Normalisation, given_normalisation, told
from lmanet.backbones.wrapped.probing import in_eval_mode
from lmanet.backbones.wrapped.published import of_timm, published
from lmanet.backbones.wrapped.tries import usual_sizes

SAY = "say --normalise imagenet, none or VALUES (in Python normalise=) if it was trained on other images"


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
    return _own(found) or published(model) or _assumed(found)


def legacy_normalisation(model: nn.Module) -> Normalisation:
    """What weights files of before say nothing of: timm's of a network inside the model, otherwise ImageNet's."""
    return of_timm(model) or Normalisation(*IMAGENET, False, "as its weights were trained")


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
    values = f"mean {told(found.mean)}, std {told(found.std)}{order}"
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
    if found.statistics is not None and (seen := _of_statistics(*found.statistics)) is not None:
        return seen
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
    seen = f"its first layer, a BatchNorm, saw images of mean {told(mean)}"
    if set(mean) == {0.0} and set(variance) == {1.0}:
        return None  # it has seen nothing
    if min(mean) > 5:
        return Normalisation(*BYTES, False, seen)
    if min(mean) > 0.1 and max(mean) < 0.9 and max(variance) < 0.3:
        return Normalisation(*NONE, False, seen)
    return Normalisation(*IMAGENET, False, f"assumed: {seen}; {SAY}")
