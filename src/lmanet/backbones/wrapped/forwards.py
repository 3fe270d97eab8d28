"""Replace the forwards of modules while a network runs, for the thread alone that runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

Forward = Callable[..., Any]
Make = Callable[[nn.Module, Forward], Forward]

TRACEABLE = TorchVersion(torch.__version__) >= "2.14"
"""Whether `torch.compile` can make one graph of it; with older ones the network runs between two graphs, uncompiled."""

_CHANGING = threading.RLock()
"""Held for the moment in which forwards are put in or taken out, never while a network runs."""


def run_with(modules: list[nn.Module], make: Make, model: nn.Module, images: Tensor) -> Any:
    """Run a network while modules of it have other forwards, which `make` makes of the module and its present one."""
    run = _run_traced if TRACEABLE and torch.compiler.is_dynamo_compiling() else _run_eager
    return run(modules, make, model, images)


def copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of a network that other threads may be running: with forwards and hooks of its own."""
    with _CHANGING:
        copy = deepcopy(model, memo)
        for module in copy.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for number, hook in hooks.items():
                    hooks[number] = _of_copy(hook, memo)
            if isinstance(forward := module.__dict__.get("forward"), _Shared):
                forward.leave(module)
    return copy


def _of_copy(function: Any, memo: dict[int, Any]) -> Any:
    """A function that uses of a copied network what the original used of the network.

    `deepcopy` leaves functions as they are: a hook `lambda *call: self.found.append(call)` of the copy would go on
    writing into the original, and the copy would read what was found last.
    """
    if not isinstance(function, FunctionType):
        return function

    def copied(value: Any) -> Any:
        return memo.get(id(value), value)

    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(CellType(_of_copy(copied(cell.cell_contents), memo)))
        except ValueError:  # it is empty
            cells.append(cell)
    defaults = function.__defaults__ and tuple(map(copied, function.__defaults__))
    made = FunctionType(function.__code__, function.__globals__, function.__name__, defaults, tuple(cells))
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class _Shared:
    """A module's forward while threads replace it: for each of these threads its own, for all others the module's.

    It stands in the module's `__dict__` meanwhile. No thread waits for another, whether they run one network or several
    that have submodules in common.
    """

    def __init__(self, module: nn.Module) -> None:
        self.own = module.__dict__.get("forward")
        self.original: Forward = module.forward
        self.replaced: dict[int, list[Forward]] = {}
        """By thread. The last is the one that counts, the others are those of runs around it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.now()(*args, **kwargs)

    def now(self) -> Forward:
        """What this thread calls."""
        mine = self.replaced.get(threading.get_ident())
        return mine[-1] if mine else self.original

    def leave(self, module: nn.Module) -> None:
        """Give the module back what it had."""
        _give_back(module, self.own)


def _run_shared(modules: list[nn.Module], make: Make, model: nn.Module, images: Tensor) -> Any:
    thread = threading.get_ident()
    changed: list[nn.Module] = []
    try:
        with _CHANGING:
            for module in modules:
                shared = module.__dict__.get("forward")
                if not isinstance(shared, _Shared):
                    shared = module.__dict__["forward"] = _Shared(module)
                shared.replaced.setdefault(thread, []).append(make(module, shared.now()))
                changed.append(module)
        return model(images)
    finally:
        with _CHANGING:
            for module in changed:
                shared = module.__dict__["forward"]
                shared.replaced[thread].pop()
                if not shared.replaced[thread]:
                    del shared.replaced[thread]
                if not shared.replaced:
                    shared.leave(module)


def _run_traced(modules: list[nn.Module], make: Make, model: nn.Module, images: Tensor) -> Any:
    """For Dynamo, which knows no locks: it reads this code, and the modules stay as they are.

    It follows what is done to their `__dict__`, and nothing of that is left at the end; of attributes that are set and
    deleted something would be.
    """
    own = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.__dict__["forward"] = make(module, module.forward)
    try:
        return model(images)
    finally:
        for module, forward in zip(modules, own, strict=True):
            _give_back(module, forward)


def _give_back(module: nn.Module, own: Forward | None) -> None:
    """Its forward of before, if it had one of its own beside its class's."""
    if own is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = own


_run_eager: Callable[..., Any] = (
    _run_shared
    if TRACEABLE
    else torch.compiler.disable(_run_shared, reason="a wrapped network can be one graph from PyTorch 2.14 on")
)
