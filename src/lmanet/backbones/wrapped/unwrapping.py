"""What users wrap networks up in, taken off; and what cannot be cut in two, by name."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from lmanet.errors import InputError

ADVICE = "or choose single-frame or flow-average, which need no cut"


def unwrapped(model: Any) -> nn.Module:
    """The network itself, as plain PyTorch runs it.

    What `torch.compile`, `nn.DataParallel` and `DistributedDataParallel` put around it is taken off, also around parts
    of it. A network that parts of are compiled in place is copied for it, with the same parameters and buffers; the
    user's stays as it is. An exported program becomes its module.

    Raises:
        InputError: it is no network; the message says what was got.
    """
    if isinstance(model, ExportedProgram):
        return model.module()
    if not isinstance(model, nn.Module):
        raise InputError(f"got {_what(model)}: expected a torch.nn.Module, the network with its weights")
    model = _inner(model)
    if isinstance(model, torch.jit.ScriptModule) or _is_exported(model):
        return model
    if all(_inner(module) is module and not _compiled_in_place(module) for module in model.modules()):
        return model
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    # What is compiled is not copied with it.
    try:
        plain = _inner(copy.deepcopy(model, shared))
    except Exception as error:
        raise InputError(
            f"parts of {type(model).__name__} are compiled, and it cannot be copied to take that off "
            f"({type(error).__name__}: {error}): give the network as it was before torch.compile"
        ) from error
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if (inner := _inner(child)) is not child:
                setattr(module, name, inner)
    return plain


def why_not_cut(model: nn.Module) -> str | None:
    """Why a network cannot be cut in two behind a submodule, by what it is; None where that is not known before."""
    if isinstance(model, torch.jit.ScriptModule):
        return (
            f"a TorchScript module cannot be cut in two: give the Python module that it was made of, {ADVICE}"
        )
    if _is_exported(model):
        return f"an exported program cannot be cut in two: give the Python module that it was exported from, {ADVICE}"
    inside = next(
        (m for m in model.modules() if isinstance(m, torch.jit.ScriptModule) or _is_exported(m)), None
    )
    if inside is not None and not any(
        _has_weights(m) for m in model.modules() if type(m) is not type(inside) and not list(m.children())
    ):
        what = "a TorchScript module" if isinstance(inside, torch.jit.ScriptModule) else "an exported program"
        return f"{type(model).__name__} holds {what}, which cannot be cut in two: give the Python module, {ADVICE}"
    if any("quantized" in type(module).__module__.split(".") for module in model.modules()):
        return (
            f"the quantised network {type(model).__name__} cannot be cut in two, as it has no gradients by which it is "
            f"found out what its logits depend on: give the network as it was before, {ADVICE}"
        )
    return None


def set_mode(model: nn.Module, training: bool) -> None:
    """Training or `eval` mode; exported programs, which have one mode for good, stay as they are."""
    try:
        model.train(training)
    except NotImplementedError:
        if not any(_is_exported(module) for module in model.modules()):
            raise
        for module in model.modules():
            if not _is_exported(module):
                module.training = training


def is_plain(model: nn.Module) -> bool:
    """Whether all of a network is Python: no TorchScript, no exported program, nothing quantised."""
    return why_not_cut(model) is None and not any(
        isinstance(module, torch.jit.ScriptModule | GraphModule) for module in model.modules()
    )


def _inner(model: nn.Module) -> nn.Module:
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def _compiled_in_place(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _is_exported(module: nn.Module) -> bool:
    """Whether it is what `ExportedProgram.module()` gives, or a graph like it, which calls no submodules."""
    return isinstance(module, GraphModule) and not any(
        node.op == "call_module" and _is_layer(module, node.target) for node in module.graph.nodes
    )


def _is_layer(module: nn.Module, name: Any) -> bool:
    try:
        return not type(module.get_submodule(name)).__name__.startswith("GuardsFn")
    except AttributeError:
        return False


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _what(model: Any) -> str:
    if isinstance(model, str | bytes) or hasattr(model, "__fspath__"):
        return (
            f"{str(model)!r}, a file or a name (load it first: torch.jit.load, torch.export.load, torch.load)"
        )
    if isinstance(model, type):
        return f"the class {model.__name__} (call it: {model.__name__}())"
    if isinstance(model, dict):
        return "a dict (the weights alone? build the network, and let it load_state_dict them)"
    if isinstance(model, tuple | list):
        return f"a {type(model).__name__} of {len(model)} (return the network alone)"
    if callable(model) and hasattr(model, "__name__"):
        return f"the function {model.__name__}, a {type(model).__name__} (put its code in the forward of a module)"
    return f"a {type(model).__name__}"
