"""Any third-party network as a video segmentation network, in one call."""

from __future__ import annotations

from typing import Any

from torch import nn

from lmanet.backbones import Backbone, Wrapped
from lmanet.backbones.wrapped.inspection import cut_where_best
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.label_memory import LabelMemorySegmenter
from lmanet.methods.lmanet import VideoSegmenter
from lmanet.methods.training_free import TrainingFreeSegmenter


def wrap(model: nn.Module, *, at: str | None = None, **options: Any) -> VideoModel:
    """Give any single-frame segmentation network a memory of the frames before.

    ```python
    segmenter = lmanet.wrap(model, training_free=True).eval()      # helps at once
    segmenter = lmanet.wrap(model, at="decoder.blocks.1")          # to be trained, by `lmanet train`
    ```

    Args:
        model: any network that takes images (B, 3, H, W) and returns logits (B, K, h, w), as they are or under the key
            `out` or `logits`: of segmentation_models_pytorch, torchvision, transformers, or your own; or a `Backbone`.
        at: the submodule whose output goes through the memory; if not given, the one of most merit among those that
            `lmanet.inspect` lists.
        options: `entry`, `mean`, `std`, `probe`: see `Wrapped`; the images are normalised as for ImageNet if not given,
            by what timm knows of the network if it knows it. `training_free=True`: a memory that needs no training, see
            `TrainingFreeSegmenter`. `values="labels"`: a memory of labels, to be trained, see `LabelMemorySegmenter`.
            All others go to these, or to `VideoSegmenter`; keys, values and window have defaults by the map's channels
            and stride.

    Returns:
        A model with a memory, on the network's device and of its dtype; `.backbone(images)` is bit for bit the
        network's own output.

    Raises:
        InputError: the network does not run or cannot be cut there.
    """
    cut = {name: options.pop(name) for name in ("entry", "mean", "std", "probe") if name in options}
    backbone = as_backbone(model, at=at, **cut)
    if options.pop("training_free", False):
        return TrainingFreeSegmenter(backbone, **options)
    kinds = {"labels": LabelMemorySegmenter, "features": VideoSegmenter}
    values = options.pop("values", "features")
    if values not in kinds:
        raise InputError(f"values {values!r}: expected one of {', '.join(kinds)}")
    return kinds[values](backbone, **options).to(next(model.parameters()))


def as_backbone(model: nn.Module, *, at: str | None = None, **cut: Any) -> Backbone:
    """A network as a `Backbone`; one that is a backbone already stays as it is.

    Args:
        model: as `wrap` takes it.
        at: as `wrap` takes it.
        cut: further arguments of `Wrapped`.
    """
    if isinstance(model, Backbone):
        if at is not None or cut:
            raise InputError(
                f"a {type(model).__name__} is a Backbone, which says itself where it is cut: leave out at="
            )
        return model
    cut = {**known_normalisation(model), **cut}
    return cut_where_best(model, **cut) if at is None else Wrapped(model, at=at, **cut)


def known_normalisation(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` that a timm network inside the model was trained with; nothing where there is none."""
    for module in model.modules():
        facts = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        if isinstance(facts, dict) and len(facts.get("mean", ())) == len(facts.get("std", ())) == 3:
            return {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
    return {}
