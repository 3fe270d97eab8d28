"""Single-frame networks that keep the encode/decode contract."""

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.erfnet import ERFNet
from lmanet.backbones.espnetv2 import ESPNetv2
from lmanet.backbones.merging import Merged, merged
from lmanet.backbones.pspnet import PSPNet
from lmanet.backbones.wrapped import NetworkOptions, Uncut, Wrapped, as_backbone

__all__ = [
    "Backbone",
    "ERFNet",
    "ESPNetv2",
    "Features",
    "Merged",
    "NetworkOptions",
    "PSPNet",
    "Uncut",
    "Wrapped",
    "as_backbone",
    "merged",
]
