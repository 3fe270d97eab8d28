"""Any third-party network as a backbone, cut in two behind one of its submodules."""

from lmanet.backbones.wrapped.network import Wrapped

__all__ = ["Wrapped"]
