"""Named pretrained models, and the file format that they are kept in."""

from lmanet.zoo.architectures import build_backbone, register_backbone
from lmanet.zoo.files import load_model, save_model
from lmanet.zoo.names import bundled, load
from lmanet.zoo.official import load_official, load_official_erfnet

__all__ = [
    "build_backbone",
    "bundled",
    "load",
    "load_model",
    "load_official",
    "load_official_erfnet",
    "register_backbone",
    "save_model",
]
