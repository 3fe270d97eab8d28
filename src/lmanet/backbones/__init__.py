"""Single-frame networks that keep the encode/decode contract."""

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.erfnet import ERFNet
from lmanet.backbones.pspnet import PSPNet

__all__ = ["Backbone", "ERFNet", "Features", "PSPNet"]
