"""Any third-party network as a backbone, cut in two behind one of its submodules."""

from lmanet.backbones.wrapped.adopt import as_backbone
from lmanet.backbones.wrapped.network import Wrapped

__all__ = ["Wrapped", "as_backbone"]
