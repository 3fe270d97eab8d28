"""Any network as a backbone: cut where it is best if nothing else is said, or whole."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from torch import nn

from lmanet.backbones.base import Backbone
from lmanet.backbones.wrapped.inspection import cut_where_best
from lmanet.backbones.wrapped.network import Wrapped
from lmanet.backbones.wrapped.normalisation import find_normalisation
from lmanet.backbones.wrapped.obstacles import check_kind, obstacle
from lmanet.backbones.wrapped.probing import Probe, try_out
from lmanet.backbones.wrapped.uncut import Uncut
from lmanet.backbones.wrapped.unwrapping import unwrapped
from lmanet.classes import Classes, generated_palette
from lmanet.errors import InputError
from lmanet.nn.normalise import RGB


class NetworkOptions(TypedDict, total=False):
    """How a network of one's own is taken; None is as good as nothing.

    Attributes:
        at: the submodule that it is cut behind; if not given, the one of most merit.
        entry: which entry of that submodule's output, if it is a list, tuple or dict.
        output: key or index of the logits among what the network returns, nested ones with dots between; if not given,
            `out`, `logits`, or the only map there is.
        normalise: `imagenet`, `none`, or six numbers, the mean and then the standard deviation per RGB channel of
            images in [0, 1], with `,bgr` behind it for a network that takes BGR; if not given, none for a network that
            normalises in its own `forward`, otherwise what its library says, otherwise ImageNet's.
        mean: three numbers in place of `normalise`; goes with `std`.
        std: three numbers, likewise.
        probe: (H, W) of images that the network takes, if it does not take the usual ones.
    """

    at: str | None
    entry: int | str | None
    output: int | str | None
    normalise: str | None
    mean: RGB | None
    std: RGB | None
    probe: tuple[int, int] | None


def as_backbone(model: Any, *, cut: bool = True, **options: Unpack[NetworkOptions]) -> Backbone:
    """A network as a `Backbone`; one that is a backbone already stays as it is.

    It has `classes` if it is a network of transformers, which knows their names.

    Args:
        model: any network that takes images (B, 3, H, W) and returns logits (B, K, h, w), compiled or wrapped up for
            several GPUs or not, also TorchScript or an exported program; or a `Backbone`, for which nothing else may be
            given.
        cut: whether it is cut in two, as methods with a memory want it; `at` and `entry` are of no meaning otherwise.
        options: see `NetworkOptions`.

    Raises:
        InputError: the network does not run, cannot be cut there, or an option is not what it must be.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    network = unwrapped(model)
    if isinstance(network, Backbone):
        if given:
            raise InputError(
                f"a {type(network).__name__} is a Backbone, which says itself where it is cut and how images are "
                f"normalised: leave out {', '.join(given)}"
            )
        return network
    said = {name: given.pop(name, None) for name in ("normalise", "mean", "std", "probe", "output")}
    if cut:
        check_kind(network)
    # Once for all that follows.
    probe = try_out(network, said.pop("probe"), output=said.pop("output"))
    found = find_normalisation(network, **said, probe=probe.size)
    how = {"mean": found.mean, "std": found.std, "bgr": found.bgr, "probe": probe}
    backbone = _cut(network, **given, **how) if cut else Uncut(network, **how)
    backbone.normalisation = str(found)
    backbone.classes = known_classes(network, backbone.num_classes)
    return backbone


def _cut(network: nn.Module, probe: Probe, *, at: str | None = None, **options: Any) -> Wrapped:
    try:
        if at is None:
            return cut_where_best(network, probe=probe, **options)
        return Wrapped(network, at=at, probe=probe, **options)
    except InputError as error:
        if (why := obstacle(network, probe)) is not None:
            raise InputError(why) from error
        raise


def known_classes(model: nn.Module, count: int) -> Classes | None:
    """The classes that a network of transformers names in its configuration; None where nobody named them."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(labels, dict) or sorted(labels) != list(range(count)):
        return None
    if all(
        labels[n] == f"LABEL_{n}" for n in range(count)
    ):  # what transformers writes where nobody named them
        return None
    return Classes(tuple(str(labels[n]) for n in range(count)), generated_palette(count))
