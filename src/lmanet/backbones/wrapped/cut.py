"""Run a network up to one of its submodules, and on from there with another map in the place of what that made.

Nothing is traced or rewritten. Before the cut, the calls that the network makes to its submodules are noted. After it,
the network's own `forward` runs again, and each of these calls is answered with its note instead of being computed, so
that only the code between the submodules runs twice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor, nn

from lmanet.backbones.wrapped.exporting import modules_tracked
from lmanet.backbones.wrapped.forwards import Forward, run_with
from lmanet.backbones.wrapped.unwrapping import called_by_python
from lmanet.errors import InputError
from lmanet.nn.hooks import removed_after


class _Reached(BaseException):
    """The cut is reached; not an Exception, which the network's code might catch."""


class Calls(NamedTuple):
    """What a network calls before and after the cut.

    Attributes:
        early: submodules whose calls are over when `at` is, and so make up what comes before the cut, `at` itself
            last; of nested calls only the outermost.
        late: every submodule that is called after `at` is over.
        count: how often `at` is called in all.
    """

    early: list[nn.Module]
    late: set[nn.Module]
    count: int


def calls_around(model: nn.Module, at: nn.Module, images: Tensor) -> Calls:
    """Run a network on images (B, 3, H, W) and sort its calls: before or after its submodule `at`."""
    stack: list[tuple[nn.Module, list[nn.Module]]] = [(model, [])]
    early: list[nn.Module] = []
    late: set[nn.Module] = set()
    count = 0

    def enter(module: nn.Module, _: Any) -> None:
        stack.append((module, []))
        if count:
            late.add(module)

    def leave(module: nn.Module, *_: Any) -> None:
        nonlocal count
        stack.pop()
        stack[-1][1].append(module)
        if module is at:
            count += 1
            if count == 1:
                early.extend(m for _, finished in stack for m in finished if m is not at)

    hooks = [
        hook
        for module in called_by_python(model)
        for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    with removed_after(hooks):
        model(images)
    return Calls([*dict.fromkeys(early), at], late, count)


def run_before(model: nn.Module, early: list[nn.Module], images: Tensor) -> list[Any]:
    """Run up to the end of the last of `early`.

    Args:
        model: the network.
        early: as `calls_around` gave it.
        images: (B, 3, H, W).

    Returns:
        What each outermost call of these gave, in order; the cut's own is the last.

    Raises:
        InputError: the last of `early` was not called.
    """
    made: list[Any] = []
    depth = 0
    over = False

    def noting(module: nn.Module, original: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth, over
            depth += 1
            try:
                out = original(*args, **kwargs)
            finally:
                depth -= 1
            if depth == 0 and not over:
                made.append(out)
                over = module is early[-1]
                if over:
                    raise _Reached
            return out

        return forward

    with suppress(_Reached), modules_tracked():
        run_with(early, noting, model, images)
    if over:
        return made
    raise InputError(
        f"{type(model).__name__} did not call the submodule that it is cut at for images of "
        f"{images.shape[-2]}×{images.shape[-1]}: choose another"
    )


def run_after(model: nn.Module, early: list[nn.Module], made: list[Any], images: Tensor) -> Any:
    """Run from the end of the last of `early` on.

    Args:
        model: the network.
        early: as `calls_around` gave it.
        made: what `run_before` gave, or the same with other tensors in it.
        images: (B, 3, H, W), of the frames' shape; no value of it is used.

    Returns:
        What the network returns.
    """
    left = iter(made)
    over = False

    def answering(module: nn.Module, original: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal over
            if over:
                return original(*args, **kwargs)
            over = module is early[-1]
            return next(left)

        return forward

    return run_with(early, answering, model, images)
