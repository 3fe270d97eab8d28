"""Networks and methods of the user's own, by where they are in Python: MODULE:NAME."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from lmanet.backbones import Backbone, NetworkOptions, Wrapped, as_backbone
from lmanet.backbones.wrapped.normalisation import (
    find_normalisation,
    given_normalisation,
    legacy_normalisation,
)
from lmanet.backbones.wrapped.unwrapping import set_mode, unwrapped
from lmanet.errors import InputError, in_a_line
from lmanet.methods.base import VideoModel
from lmanet.methods.registry import METHODS, find_method, register
from lmanet.zoo.architectures import register_backbone


def load_third_party(name: str) -> nn.Module:
    """The network that a function of the user's builds, in `eval` mode, without what it is wrapped up in.

    Args:
        name: `MODULE:FUNCTION`; the module lies in the current folder or is installed, and the function takes no
            arguments and returns the network with its weights; or it is the network itself.

    Raises:
        InputError: there is no such module or function, it raises, or it returns something else.
    """
    build = _imported(name, "model", "FUNCTION", "my_module:build")
    try:
        network = build if isinstance(build, nn.Module) else build()
    except (Exception, SystemExit) as error:
        raise InputError(f"model {name!r}: {name.partition(':')[2]}() failed: {_told(error)}") from error
    try:
        network = unwrapped(network)
    except InputError as error:
        told = str(error).removeprefix("got ")
        raise InputError(f"model {name!r}: {name.partition(':')[2]}() returned {told}") from error
    set_mode(network, False)
    return network


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
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} {name!r}: {module_name} cannot be imported: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    found = getattr(module, inner, None)
    if not callable(found):
        raise InputError(f"{what} {name!r}: {module.__file__} has no {kind.lower()} {inner!r}")
    return found


def register_third_party(name: str) -> None:
    """Let weights files know the network that a function of the user's builds by its name, `MODULE:FUNCTION`."""

    def build(num_classes: int, normalise: str | None = None, **options: Any) -> Backbone:
        network = load_third_party(name)
        if normalise is None and not isinstance(network, Backbone):
            normalise = legacy_normalisation(network).values
        if "probe" in options:
            options["probe"] = tuple(options["probe"])
        backbone = as_backbone(network, normalise=normalise, **options)
        if (known := given_normalisation(normalise, None, None)) is not None:
            backbone.normalisation = str(replace(known, reason="as its weights were trained"))
        return backbone

    register_backbone(name, build)


def third_party_backbone(name: str, *, cut: bool = True, **options: Unpack[NetworkOptions]) -> Backbone:
    """The network that a function of the user's builds, as a backbone.

    Weights files know it by its name, and how it is taken.

    Args:
        name: `MODULE:FUNCTION`.
        cut: whether it is cut in two, as methods with a memory want it.
        options: see `lmanet.backbones.NetworkOptions`.

    Raises:
        InputError: see `load_third_party`; it cannot be cut; or an option is not what it must be.
    """
    register_third_party(name)
    network = load_third_party(name)
    if isinstance(network, Backbone):
        backbone = as_backbone(network, **options)
    else:
        said = {one: options.get(one) for one in ("normalise", "mean", "std", "probe")}
        found = find_normalisation(network, **said)
        options = {**options, "normalise": found.values, "mean": None, "std": None}
        backbone = as_backbone(network, cut=cut, **options)
        backbone.normalisation = str(found)
        backbone.config = _config(backbone, found.values, legacy_normalisation(network).values, options)
    backbone.architecture = name
    return backbone.eval()


def _config(backbone: Backbone, normalise: str, legacy: str, options: NetworkOptions) -> dict[str, Any]:
    """What `build` of `register_third_party` takes to make the same of the network, as JSON values.

    What is found is in it as well as what was given: loading must not look for it again. Files of before say nothing of
    the normalisation, which was always the `legacy` one; where it is that, nothing is said today either.
    """
    config: dict[str, Any] = {"cut": False}
    if isinstance(backbone, Wrapped):
        config = {"at": backbone.at, **({} if backbone.entry is None else {"entry": backbone.entry})}
    if normalise != legacy:
        config["normalise"] = normalise
    if (output := options.get("output")) is not None:
        config["output"] = output
    if (probe := options.get("probe")) is not None:
        config["probe"] = list(probe)
    return config


def _told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)}), as a script does"
    return in_a_line(error)
