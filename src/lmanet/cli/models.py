"""What several verbs do with models."""

from __future__ import annotations

from lmanet.backbones import Backbone
from lmanet.errors import InputError
from lmanet.segmenter import VideoSegmenter


def set_threads(threads: int | None) -> None:
    """PyTorch's threads; None leaves them."""
    import torch

    if threads is not None:
        if threads < 1:
            raise InputError(f"threads {threads}: expected at least 1")
        torch.set_num_threads(threads)


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
