"""Any third-party network as a backbone: cut in two behind one of its submodules, or whole."""

from lmanet.backbones.wrapped.adopt import NetworkOptions, as_backbone
from lmanet.backbones.wrapped.network import Wrapped
from lmanet.backbones.wrapped.uncut import Uncut

__all__ = ["NetworkOptions", "Uncut", "Wrapped", "as_backbone"]
