"""What several verbs do with models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from lmanet.backbones import Backbone
from lmanet.cli.third_party import own_network
from lmanet.errors import InputError, WeightsError
from lmanet.methods.base import TrainableVideoModel, VideoModel
from lmanet.methods.training_free import TrainingFreeSegmenter
from lmanet.zoo import load
from lmanet.zoo.names import single_frame_of

DEFAULT_WEIGHTS = "lmanet-erfnet-camvid"


def set_threads(threads: int | None) -> None:
    """PyTorch's threads; None leaves them."""
    if threads is not None:
        if threads < 1:
            raise InputError(f"threads {threads}: expected at least 1")
        torch.set_num_threads(threads)


def devices() -> list[str]:
    """What `--device` takes on this machine, the default first."""
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cuda", *cards, "cpu"] if cards else ["cpu"]


def find_device(name: str | None) -> torch.device:
    """The device of this name; for None a GPU where PyTorch has one, otherwise the CPU.

    Raises:
        InputError: there is no such device here.
    """
    found = devices()
    if name is not None and name not in found:
        raise InputError(
            f"device {name!r} is not there: PyTorch {torch.__version__} has {', '.join(found)} on this machine"
        )
    return torch.device(name or found[0])


def load_single(name: str) -> Backbone:
    """A single-frame network by name; a video model is an error."""
    model = load(name)
    if isinstance(model, TrainableVideoModel):
        raise WeightsError(f"{name} is a video model: give the single-frame network that it was made from")
    return model


def load_video(name: str) -> TrainableVideoModel:
    """A video model by name; a single-frame network is an error."""
    model = load(name)
    if not isinstance(model, TrainableVideoModel):
        raise WeightsError(
            f"{name} is a single-frame network: give a video model, made by lmanet train lmanet"
        )
    return model


def find_model(
    weights: str | None, model: str | None, at: str | None, *, memory: bool, training_free: bool
) -> tuple[str, VideoModel | Backbone]:
    """What labels a video, by the options of `lmanet segment`.

    Returns:
        How it is called in the summary, and the model.

    Raises:
        InputError: the options contradict each other, or a network of the user's own has no memory yet.
        WeightsError: see `lmanet.load`.
    """
    if training_free and not memory:
        raise InputError("--training-free is a memory: leave out --no-memory, or --training-free")
    own = own_network(model, at)
    if own is not None and weights is None and memory and not training_free:
        raise InputError(
            f"{model} has no trained memory: add --training-free, or give --weights of lmanet train lmanet --model "
            f"{model}, or label each frame by itself with --no-memory"
        )
    if memory and not training_free:
        name = weights or DEFAULT_WEIGHTS
        return name, load(name)
    name = model or single_frame_of(weights or DEFAULT_WEIGHTS)
    single = own or load_single(name)
    return (
        (f"{name}, training-free memory,", TrainingFreeSegmenter(single)) if training_free else (name, single)
    )


def find_models(
    weights: str | None,
    model: str | None,
    at: str | None,
    *,
    training_free: bool,
    warn: Callable[[str], None],
) -> tuple[Backbone | None, TrainableVideoModel | None]:
    """The single-frame network and the video model to be scored, by the options of `lmanet evaluate`.

    Args:
        weights: as the option.
        model: as the option.
        at: as the option.
        training_free: the single-frame network must be there.
        warn: told why there is no single-frame network beside the video model.

    Raises:
        InputError: the options contradict each other, or name nothing.
        WeightsError: see `lmanet.load`.
    """
    single = own_network(model, at)
    if weights is None and single is None:
        raise InputError("nothing to evaluate: give --weights, or --model MODULE:FUNCTION")
    if weights is None:
        return single, None
    loaded = load(weights)
    if isinstance(loaded, TrainableVideoModel):
        if single is None:
            try:
                single = load_single(single_frame_of(weights))
            except WeightsError as error:
                if training_free:
                    raise
                warn(f"no column for the single-frame network: {error}")
        return single, loaded
    if single is not None:
        raise InputError(f"--model and --weights {weights} are two single-frame networks: give one of them")
    return loaded, None


Model = TypeVar("Model", bound=VideoModel | Backbone)


def with_memory(model: Model, memory_size: int | None, window: int | None) -> Model:
    """The model with another memory size or window, where one is given."""
    if memory_size is None and window is None:
        return model
    if not isinstance(model, VideoModel):
        raise InputError(
            "a single-frame network has neither memory size nor window: leave them out, load LMANet, or add "
            "--training-free"
        )
    if memory_size is not None:
        model.memory_size = memory_size
    if window is not None:
        model.window = window
    return model
