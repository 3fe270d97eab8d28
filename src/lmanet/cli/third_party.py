"""Networks of the user's own on the command line: MODULE:FUNCTION."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from lmanet.backbones import Backbone, Wrapped
from lmanet.classes import Classes, generated_palette
from lmanet.errors import InputError
from lmanet.methods.base import VideoModel
from lmanet.methods.wrap import as_backbone
from lmanet.zoo import register_backbone


def load_third_party(name: str) -> nn.Module:
    """The network that a function of the user's builds.

    Args:
        name: `MODULE:FUNCTION`; the module lies in the current folder or is installed, and the function takes no
            arguments and returns the network with its weights.

    Raises:
        InputError: there is no such module or function, it raises, or it returns something else.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name.isidentifier():
        raise InputError(f"model {name!r}: expected MODULE:FUNCTION, such as my_module:build")
    if module_name.endswith(".py"):
        module = Path(module_name).stem
        raise InputError(
            f"model {name!r}: expected a module, not its file: {module}:{function_name}, run where it lies"
        )
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"model {name!r}: {module_name} needs {error.name!r}, which is not installed"
            ) from error
        raise InputError(
            f"model {name!r}: no module {module_name!r} in {folder} nor installed: run it where {module_name}.py lies"
        ) from error
    except Exception as error:
        raise InputError(f"model {name!r}: {module_name} cannot be imported: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    build = getattr(module, function_name, None)
    if not callable(build):
        raise InputError(f"model {name!r}: {module.__file__} has no function {function_name!r}")
    try:
        network = build()
    except Exception as error:
        raise InputError(f"model {name!r}: {function_name}() failed: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"model {name!r}: {function_name}() returned a {type(network).__name__}: expected a torch.nn.Module, the "
            f"network with its weights"
        )
    return network.eval()


def third_party_backbone(name: str, at: str | None = None) -> Backbone:
    """The same network as a backbone, known by its name to weights files; with `classes` if it is one of transformers.

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
    labels = getattr(getattr(network, "config", None), "id2label", None)
    if isinstance(labels, dict) and sorted(labels) == list(range(backbone.num_classes)):  # transformers
        names = tuple(str(labels[n]) for n in range(backbone.num_classes))
        backbone.classes = Classes(names, generated_palette(len(names)))
    return backbone


def own_network(model: str | None, at: str | None) -> Backbone | None:
    """The network of the options `--model` and `--at`; None without.

    Raises:
        InputError: see `third_party_backbone`; or there is an `at`, but no network that it could be of.
    """
    if at is not None and model is None:
        raise InputError("--at says where the network of --model is cut: give --model MODULE:FUNCTION")
    return third_party_backbone(model, at) if model else None


def classes_of(model: VideoModel | Backbone) -> Classes:
    """The model's classes; numbers and generated colours where it does not know them."""
    if hasattr(model, "classes"):
        return model.classes
    count = (model.backbone if isinstance(model, VideoModel) else model).num_classes
    return Classes(tuple(f"class {n}" for n in range(count)), generated_palette(count))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
