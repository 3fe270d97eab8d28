"""Networks and methods of the user's own, by where they are in Python: MODULE:NAME."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from lmanet.backbones import Backbone, Wrapped, as_backbone
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import METHODS, find_method, register
from lmanet.zoo.architectures import register_backbone


def load_third_party(name: str) -> nn.Module:
    """The network that a function of the user's builds, in `eval` mode.

    Args:
        name: `MODULE:FUNCTION`; the module lies in the current folder or is installed, and the function takes no
            arguments and returns the network with its weights.

    Raises:
        InputError: there is no such module or function, it raises, or it returns something else.
    """
    build = _imported(name, "model", "FUNCTION", "my_module:build")
    try:
        network = build()
    except Exception as error:
        raise InputError(f"model {name!r}: {name.partition(':')[2]}() failed: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model {name!r}: {name.partition(':')[2]}() returned a {type(network).__name__}: expected a "
            f"torch.nn.Module, the network with its weights"
        )
    return network.eval()


def method_of(name: str) -> type[VideoModel]:
    """The class of a method, by its name; one of the user's own by `MODULE:CLASS`, which registers it.

    Raises:
        InputError: there is no such method, module or class, or the class cannot be registered.
    """
    if ":" not in name:
        return find_method(name)
    kind = _imported(name, "method", "CLASS", "my_module:MyMethod")
    return kind if kind in METHODS.values() else register(kind)


def _imported(name: str, what: str, kind: str, example: str) -> Any:
    """What `MODULE:NAME` names and can be called; the messages call it `what`, its name `kind`."""
    module_name, _, inner = name.partition(":")
    if not module_name or not inner.isidentifier():
        raise InputError(f"{what} {name!r}: expected MODULE:{kind}, such as {example}")
    if module_name.endswith(".py"):
        module = Path(module_name).stem
        raise InputError(
            f"{what} {name!r}: expected a module, not its file: {module}:{inner}, run where it lies"
        )
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{what} {name!r}: {module_name} needs {error.name!r}, which is not installed"
            ) from error
        raise InputError(
            f"{what} {name!r}: no module {module_name!r} in {folder} nor installed: run it where {module_name}.py lies"
        ) from error
    except Exception as error:
        raise InputError(f"{what} {name!r}: {module_name} cannot be imported: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    found = getattr(module, inner, None)
    if not callable(found):
        raise InputError(f"{what} {name!r}: {module.__file__} has no {kind.lower()} {inner!r}")
    return found


def third_party_backbone(name: str, at: str | None = None) -> Backbone:
    """The network that a function of the user's builds, as a backbone.

    Weights files know it by its name.

    Args:
        name: `MODULE:FUNCTION`.
        at: where it is cut; see `lmanet.wrap`.

    Raises:
        InputError: see `load_third_party`; or it cannot be cut.
    """

    def build(num_classes: int, at: str | None = None, **cut: Any) -> Backbone:
        return as_backbone(load_third_party(name), at=at, **cut)

    register_backbone(name, build)
    network = load_third_party(name)
    backbone = as_backbone(network, at=at).eval()
    backbone.architecture = name
    if isinstance(backbone, Wrapped):
        # The place that was found too: loading must not look for it again.
        backbone.config = {"at": backbone.at, **({} if backbone.entry is None else {"entry": backbone.entry})}
    return backbone


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
