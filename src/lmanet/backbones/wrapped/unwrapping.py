"""What users wrap networks up in, taken off; and which networks are graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from lmanet.backbones.wrapped.forwards import copied
from lmanet.errors import InputError, in_a_line


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
    _check_numbers(model)
    if isinstance(model, torch.jit.ScriptModule) or _is_exported(model):
        return model
    if all(_inner(module) is module and not _compiled_in_place(module) for module in model.modules()):
        return model
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    # What is compiled is not copied with it.
    try:
        plain = _inner(copied(model, shared))
    except Exception as error:
        raise InputError(
            f"parts of {type(model).__name__} are compiled, and it cannot be copied to take that off "
            f"({in_a_line(error)}): give the network as it was before torch.compile"
        ) from error
    for module in list(plain.modules()):
        if _compiled_forward(module):
            del module.forward
        for name, child in module.named_children():
            if (inner := _inner(child)) is not child:
                setattr(module, name, inner)
    return plain


def _check_numbers(model: nn.Module) -> None:
    """Raise InputError where weights have no numbers; those that were made in inference mode become usual ones."""
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, x in kind.items():
                if x is not None and x.is_meta:
                    raise InputError(
                        f"got a {type(model).__name__} whose weights lie on the device meta, without numbers ({name} "
                        f"of {type(module).__name__}): expected a network with its weights: load them with "
                        f"load_state_dict(…, assign=True), or build it outside of torch.device('meta')"
                    )
                if x is not None and x.is_inference() and not isinstance(module, torch.jit.ScriptModule):
                    with torch.inference_mode(False):
                        usual = x.detach().clone()
                        usual = nn.Parameter(usual, x.requires_grad) if isinstance(x, nn.Parameter) else usual
                    kind[name] = usual  # pyright: ignore[reportArgumentType]


def kind_of_graph(module: nn.Module) -> str | None:
    """What a module is that runs as one graph, without submodules that Python calls; None for all others."""
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module"
    return "an exported program" if _is_exported(module) else None


def called_by_python(model: nn.Module) -> list[nn.Module]:
    """The submodules that hooks and other forwards can be put on: all but those of TorchScript."""
    return [m for m in model.modules() if m is not model and not isinstance(m, torch.jit.ScriptModule)]


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


def is_quantised(module: nn.Module) -> bool:
    """Whether its weights are packed by PyTorch's quantisers."""
    return "quantized" in type(module).__module__.split(".")


def is_plain(model: nn.Module) -> bool:
    """Whether all of a network is Python on floating-point weights: no graph in it, nothing quantised."""
    return not any(
        isinstance(module, torch.jit.ScriptModule | GraphModule) or is_quantised(module)
        for module in model.modules()
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
    return getattr(module, "_compiled_call_impl", None) is not None or _compiled_forward(module)


def _compiled_forward(module: nn.Module) -> bool:
    """Whether its `forward` is what `torch.compile` made of that of its class."""
    original = getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)
    return original is not None and getattr(original, "__func__", None) is type(module).forward


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
