"""How a single-frame network labels a video: one file a method, one contract for all."""

from lmanet.methods.base import StepGraph, TrainableVideoModel, VideoModel
from lmanet.methods.registry import METHODS, find_method, register
from lmanet.methods.wrap import put_on, wrap

__all__ = [
    "METHODS",
    "StepGraph",
    "TrainableVideoModel",
    "VideoModel",
    "find_method",
    "put_on",
    "register",
    "wrap",
]
