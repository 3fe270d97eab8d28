"""lmanet: any single-frame semantic segmentation network as a video segmentation network.

Local Memory Attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021), streaming, on a CPU as well as a GPU.
"""

from importlib.metadata import version

from lmanet.backbones import Backbone, ERFNet, Features, PSPNet
from lmanet.backbones.inspection import inspect
from lmanet.errors import LmanetError
from lmanet.labelsegmenter import LabelMemorySegmenter
from lmanet.memory import MemoryState
from lmanet.segmenter import VideoSegmenter
from lmanet.session import Segmentation, Session
from lmanet.trainingfree import TrainingFreeSegmenter
from lmanet.wrapping import wrap
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
