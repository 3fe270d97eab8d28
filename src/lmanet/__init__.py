"""lmanet: any single-frame semantic segmentation network as a video segmentation network.

Local Memory Attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021), streaming, on a CPU as well as a GPU.
"""

from importlib.metadata import version

from lmanet.backbones import Backbone, ERFNet, Features, PSPNet
from lmanet.backbones.wrapped.inspection import inspect
from lmanet.errors import LmanetError
from lmanet.methods.label_memory import LabelMemorySegmenter
from lmanet.methods.lmanet import VideoSegmenter
from lmanet.methods.memory import MemoryState
from lmanet.methods.training_free import TrainingFreeSegmenter
from lmanet.methods.wrap import wrap
from lmanet.session import Segmentation, Session
from lmanet.zoo import load

__version__ = version("lmanet")

__all__ = [
    "Backbone",
    "ERFNet",
    "Features",
    "LabelMemorySegmenter",
    "LmanetError",
    "MemoryState",
    "PSPNet",
    "Segmentation",
    "Session",
    "TrainingFreeSegmenter",
    "VideoSegmenter",
    "__version__",
    "inspect",
    "load",
    "wrap",
]
