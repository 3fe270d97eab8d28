"""Named pretrained models, and the file format that they are kept in."""

from lmanet.zoo.files import load_model, save_model
from lmanet.zoo.names import bundled, load

__all__ = ["bundled", "load", "load_model", "save_model"]
