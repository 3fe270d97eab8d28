"""lmanet: any single-frame semantic segmentation network as a video segmentation network.

Local Memory Attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021) and the methods that it has to beat, streaming,
on a CPU as well as a GPU.
"""

import warnings
from importlib.metadata import version
from typing import Any

from lmanet import methods
from lmanet.api import LabelledVideo, evaluate, find_model, find_models, label_video
from lmanet.backbones import Backbone, ERFNet, ESPNetv2, Features, PSPNet
from lmanet.backbones.wrapped.inspection import inspect
from lmanet.classes import Classes
from lmanet.errors import LmanetError
from lmanet.methods.base import StepGraph, TrainableVideoModel, VideoModel
from lmanet.methods.flow_average import FlowAverage
from lmanet.methods.label_memory import LabelMemory
from lmanet.methods.lmanet import LMANet
from lmanet.methods.single_frame import SingleFrame
from lmanet.methods.training_free import TrainingFreeMemory
from lmanet.methods.wrap import wrap
from lmanet.session import Segmentation, Session
from lmanet.zoo import load, save_model

__version__ = version("lmanet")

__all__ = [
    "Backbone",
    "Classes",
    "ERFNet",
    "ESPNetv2",
    "Features",
    "FlowAverage",
    "LMANet",
    "LabelMemory",
    "LabelledVideo",
    "LmanetError",
    "PSPNet",
    "Segmentation",
    "Session",
    "SingleFrame",
    "StepGraph",
    "TrainableVideoModel",
    "TrainingFreeMemory",
    "VideoModel",
    "__version__",
    "evaluate",
    "find_model",
    "find_models",
    "inspect",
    "label_video",
    "load",
    "methods",
    "save_model",
    "wrap",
]

_RENAMED = {
    "VideoSegmenter": "LMANet",
    "LabelMemorySegmenter": "LabelMemory",
    "TrainingFreeSegmenter": "TrainingFreeMemory",
}


def __getattr__(name: str) -> Any:
    """Classes by their names of before, with a warning."""
    if name not in _RENAMED:
        raise AttributeError(f"module 'lmanet' has no attribute {name!r}")
    warnings.warn(f"lmanet.{name} is called {_RENAMED[name]} now", FutureWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
