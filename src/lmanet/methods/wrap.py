"""Any third-party network as a video segmentation network, in one call."""

from __future__ import annotations

import inspect
from typing import Any, Literal, overload

from torch import nn

from lmanet.backbones import NetworkOptions, as_backbone
from lmanet.backbones.base import Backbone
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.fusion import Convolutions, FusionName
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.methods.registry import DEFAULT, find_method
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.nn.normalise import RGB
from lmanet.nn.place import place_of
from lmanet.ops import Backend, Border


@overload
def wrap(
    model: nn.Module,
    method: Literal["label-memory"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    output: int | str | None = None,
    normalise: str | None = None,
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
    method: Literal["training-free"] = "training-free",
    *,
    at: str | None = None,
    entry: int | str | None = None,
    output: int | str | None = None,
    normalise: str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    window: int = ...,
    attention: Backend = ...,
) -> TrainingFreeMemory: ...


@overload
def wrap(
    model: nn.Module,
    method: Literal["lmanet"],
    *,
    at: str | None = None,
    entry: int | str | None = None,
    output: int | str | None = None,
    normalise: str | None = None,
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
    output: int | str | None = None,
    normalise: str | None = None,
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
    output: int | str | None = None,
    normalise: str | None = None,
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
    output: int | str | None = None,
    normalise: str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    **arguments: Any,
) -> VideoModel: ...


def wrap(
    model: nn.Module,
    method: str = DEFAULT,
    *,
    at: str | None = None,
    entry: int | str | None = None,
    output: int | str | None = None,
    normalise: str | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    probe: tuple[int, int] | None = None,
    **arguments: Any,
) -> VideoModel:
    """Let any single-frame segmentation network label video by a method.

    ```python
    video = lmanet.wrap(model)                               # `training-free`: helps at once
    video = lmanet.wrap(model, "label-memory")               # to be trained by `lmanet train`
    ```

    Args:
        model: any network that takes images (B, 3, H, W) and returns logits (B, K, h, w): of
            segmentation_models_pytorch, torchvision, transformers, or your own; compiled or wrapped up for several GPUs
            or not; or a `Backbone`. TorchScript and exported programs, which cannot be cut in two, go with
            the methods that need no training.
        method: `training-free`, `flow-average` and `single-frame` work at once; `label-memory` and `lmanet` (the
            paper's memory of features) are to be trained; or the name of one of your own (`lmanet.methods.register`).
        at: the submodule whose output goes through the memory; if not given, the one of most merit among those that
            `lmanet.inspect` lists. Methods that need the network's output alone, those without training, leave it
            whole, unless this is given.
        entry: which entry of that submodule's output, if it is a list, tuple or dict.
        output: key or index of the logits among what the network returns, nested ones with dots between (`aux.0`); if
            not given, `out`, `logits`, or the only map there is.
        normalise: what is done to images in [0, 1] first: `imagenet`, `none`, or six numbers, the mean and then the
            standard deviation per RGB channel (`"0.5,0.5,0.5,0.25,0.25,0.25"`), with `,bgr` behind it for a network
            that takes BGR. If not given, it is found out: none, for a network that normalises in its own `forward`,
            which is tried; otherwise what transformers, timm or smp say of it; otherwise ImageNet's.
            `.backbone.normalisation` says which, and why.
        mean: three numbers in place of `normalise`; goes with `std`.
        std: three numbers, likewise.
        probe: (H, W) of images that the network takes, if it does not take the usual ones; for networks of one size.
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
    options: NetworkOptions = {
        "at": at,
        "entry": entry,
        "output": output,
        "normalise": normalise,
        "mean": mean,
        "std": std,
        "probe": probe,
    }
    backbone = as_backbone(model, cut=kind.needs_cut or at is not None or entry is not None, **options)
    return put_on(backbone, method, **arguments)


def put_on(backbone: Backbone, method: str, **arguments: Any) -> VideoModel:
    """A method on a network, on its device, of its dtype and in its mode; see `wrap`.

    Raises:
        InputError: there is no such method, or an argument is out of range.
    """
    model = find_method(method)(backbone, **arguments)
    own = {id(x) for x in (*model.parameters(), *model.buffers())}
    if own - {id(x) for x in (*backbone.parameters(), *backbone.buffers())}:
        model.to(place_of(backbone))
    # A network in training mode stays as it is: some of its parts may be in `eval` mode on purpose.
    return model if backbone.training else model.eval()


def check_no_model(network: object) -> None:
    """Raise InputError if something to be wrapped is a `VideoModel`, as `lmanet.load` gives it, and no network."""
    if isinstance(network, VideoModel):
        raise InputError(f"a {type(network).__name__} is a model already: give its .backbone")
