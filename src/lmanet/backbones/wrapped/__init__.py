"""Any third-party network as a backbone: cut in two behind one of its submodules, or whole.

What becomes of a network, in this order (`adopt.py`):

| step | files |
| --- | --- |
| what is around it is taken off | `unwrapping.py` |
| it is tried out on random images: which sizes it takes, whether it answers twice alike | `probing.py`, `tries.py` |
| where the logits lie in what it returns, what they are made of, and how | `returned.py`, `reading.py`, `outputs.py` |
| how images are normalised | `normalisation.py`, `given.py`, `entering.py`, `published.py` |
| where it is cut, or why it cannot be | `inspection.py`, `obstacles.py` |
| it is cut, | `network.py`, `cut.py`, `sides.py`, `layout.py`, `forwards.py`, `exporting.py` |
| or stays whole | `uncut.py` |
"""

from lmanet.backbones.wrapped.adopt import NetworkOptions, as_backbone
from lmanet.backbones.wrapped.network import Wrapped
from lmanet.backbones.wrapped.uncut import Uncut

__all__ = ["NetworkOptions", "Uncut", "Wrapped", "as_backbone"]
