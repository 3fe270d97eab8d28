"""Any third-party network as a video segmentation network, in one call."""

from __future__ import annotations

import inspect
from typing import Any, Literal, overload

from torch import nn

from lmanet.backbones import as_backbone
from lmanet.backbones.base import Backbone
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.fusion import Convolutions, FusionName
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.methods.registry import find_method
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.ops import Backend, Border

RGB = tuple[float, float, float]


@overload
def wrap(
    model: nn.Module,
    method: Literal["label-memory"] = "label-memory",
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    memory_size: int = ...,
    window: int | None = ...,
    hidden: int = ...,
    persistence: float = ...,
    temperature: float = ...,
    attention: Backend = ...,
) -> LabelMemory: ...


@overload
def wrap(
    model: nn.Module,
    method: Literal["training-free"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    memory_size: int = ...,
    window: int = ...,
    temperature: float = ...,
    strength: float = ...,
    attention: Backend = ...,
) -> TrainingFreeMemory: ...


@overload
def wrap(
    model: nn.Module,
    method: Literal["lmanet"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    key_channels: int | None = ...,
    value_channels: int | None = ...,
    memory_size: int = ...,
    window: int | None = ...,
    fusion: FusionName = ...,
    convolutions: Convolutions = ...,
    border: Border = ...,
    attention: Backend = ...,
) -> LMANet: ...


@overload
def wrap(
    model: nn.Module,
    method: Literal["flow-average"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    weight: float = ...,
) -> FlowAverage: ...


@overload
def wrap(
    model: nn.Module,
    method: Literal["single-frame"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
) -> SingleFrame: ...


@overload
def wrap(
    model: nn.Module,
    method: str,
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    **arguments: Any,
) -> VideoModel: ...


def wrap(
    model: nn.Module,
    method: str = "label-memory",
    *,
    at: str | None = None,
    entry: int | str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    **arguments: Any,
) -> VideoModel:
    """Let any single-frame segmentation network label video by a method.

    ```python
    video = lmanet.wrap(model, "training-free")              # helps at once
    video = lmanet.wrap(model, at="decoder.blocks.1")        # a memory of labels, to be trained by `lmanet train`
    ```

    Args:
        model: any network that takes images (B, 3, H, W) and returns logits (B, K, h, w), as they are or under the key
            `out` or `logits`: of segmentation_models_pytorch, torchvision, transformers, or your own; or a `Backbone`.
        method: `training-free`, `flow-average` and `single-frame` work at once; `label-memory` and `lmanet` (the
            paper's memory of features) are to be trained; or the name of one of your own (`lmanet.methods.register`).
        at: the submodule whose output goes through the memory; if not given, the one of most merit among those that
            `lmanet.inspect` lists.
        entry: which entry of that submodule's output, if it is a list, tuple or dict.
        mean: of the images that the network was trained on, per RGB channel in [0, 1]; if not given, what timm knows of
            it, otherwise ImageNet's.
        std: their standard deviation, likewise.
        probe: (H, W) of images that the network takes, if it does not take the usual ones.
        arguments: of the method's class, such as `memory_size` and `window`; all have defaults.

    Returns:
        A `VideoModel`, on the network's device, of its dtype and in its mode (`eval` or training). `.backbone(images)`
        is bit for bit the network's own output.

    Raises:
        InputError: the network does not run or cannot be cut there; there is no such method; or it does not take one of
            the arguments.
    """
    check_no_model(model)
    kind = find_method(method)
    taken = list(inspect.signature(kind).parameters)[1:]
    for name in arguments:
        if name not in taken:
            raise InputError(f"{method} has no argument {name!r}: it has {', '.join(taken) or 'none'}")
    backbone = as_backbone(model, at=at, entry=entry, mean=mean, std=std, probe=probe)
    return put_on(backbone, method, **arguments)


def put_on(backbone: Backbone, method: str, **arguments: Any) -> VideoModel:
    """A method on a network, on its device, of its dtype and in its mode; see `wrap`.

    Raises:
        InputError: there is no such method, or an argument is out of range.
    """
    model = find_method(method)(backbone, **arguments).to(next(backbone.parameters()))
    # A network in training mode stays as it is: some of its parts may be in `eval` mode on purpose.
    return model if backbone.training else model.eval()


def check_no_model(network: object) -> None:
    """Raise InputError if something to be wrapped is a `VideoModel`, as `lmanet.load` gives it, and no network."""
    if isinstance(network, VideoModel):
        raise InputError(f"a {type(network).__name__} is a model already: give its .backbone")
