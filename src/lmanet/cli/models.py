"""What several verbs do with models."""

from __future__ import annotations

import torch

from lmanet.backbones import Backbone
from lmanet.errors import InputError, WeightsError
from lmanet.segmenter import VideoSegmenter
from lmanet.zoo import load


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
    if isinstance(model, VideoSegmenter):
        raise WeightsError(f"{name} is a video model: give the single-frame network that it was made from")
    return model


def load_video(name: str) -> VideoSegmenter:
    """A video model by name; a single-frame network is an error."""
    model = load(name)
    if not isinstance(model, VideoSegmenter):
        raise WeightsError(
            f"{name} is a single-frame network: give a video model, made by lmanet train lmanet"
        )
    return model


def with_memory(
    model: VideoSegmenter | Backbone, memory_size: int | None, window: int | None
) -> VideoSegmenter | Backbone:
    """The model with another memory size or window, where one is given."""
    if memory_size is None and window is None:
        return model
    if not isinstance(model, VideoSegmenter):
        raise InputError(
            "a single-frame network has neither memory size nor window: leave them out, or load LMANet"
        )
    if memory_size is not None:
        model.memory_size = memory_size
    if window is not None:
        model.window = window
    return model
