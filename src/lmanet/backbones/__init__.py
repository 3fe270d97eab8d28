"""Single-frame networks that keep the encode/decode contract."""

from lmanet.backbones.base import Backbone, Features
from lmanet.backbones.erfnet import ERFNet
from lmanet.backbones.pspnet import PSPNet
from lmanet.backbones.wrapped import Wrapped

__all__ = ["Backbone", "ERFNet", "Features", "PSPNet", "Wrapped"]
