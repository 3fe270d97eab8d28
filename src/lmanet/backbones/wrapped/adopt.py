"""Any network as a backbone, cut where it is best if nothing else is said."""

from __future__ import annotations

from typing import Any

from torch import nn

from lmanet.backbones.base import Backbone
from lmanet.backbones.wrapped.inspection import cut_where_best
from lmanet.backbones.wrapped.network import Wrapped
from lmanet.classes import Classes, generated_palette
from lmanet.errors import InputError


def as_backbone(
    model: nn.Module,
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    probe: tuple[int, int] | None = None,
) -> Backbone:
    """A network as a `Backbone`; one that is a backbone already stays as it is.

    It has `classes` if it is a network of transformers, which knows their names.

    Args:
        model: any network that takes images (B, 3, H, W) and returns logits (B, K, h, w), as they are or under the key
            `out` or `logits`; or a `Backbone`, for which nothing else may be given.
        at: the submodule that it is cut behind; if not given, the one of most merit.
        entry: which entry of that submodule's output, if it is a list, tuple or dict.
        mean: of the images that it was trained on, per RGB channel in [0, 1]; if not given, what timm knows of the
            network inside, otherwise ImageNet's.
        std: their standard deviation, likewise.
        probe: (H, W) of images that the model takes, if it does not take the usual ones.

    Raises:
        InputError: the network does not run or cannot be cut there.
    """
    given: dict[str, Any] = {"entry": entry, "mean": mean, "std": std, "probe": probe}
    cut = {name: value for name, value in given.items() if value is not None}
    if isinstance(model, Backbone):
        if at is not None or cut:
            raise InputError(
                f"a {type(model).__name__} is a Backbone, which says itself where it is cut: leave out at="
            )
        return model
    cut = {**known_normalisation(model), **cut}
    backbone = cut_where_best(model, **cut) if at is None else Wrapped(model, at=at, **cut)
    backbone.classes = known_classes(model, backbone.num_classes)
    return backbone


def known_normalisation(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` that a timm network inside the model was trained with; nothing where there is none."""
    for module in model.modules():
        facts = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        if isinstance(facts, dict) and len(facts.get("mean", ())) == len(facts.get("std", ())) == 3:
            return {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
    return {}


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
