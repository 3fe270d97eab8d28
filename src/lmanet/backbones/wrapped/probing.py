"""Trying a network out on random images: which sizes it takes, and what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmanet.backbones.wrapped.outputs import Outputs
from lmanet.backbones.wrapped.tries import (
    SizeError,
    StateError,
    Tries,
    check_forward,
    check_mode,
    own_size,
    usual_sizes,
)
from lmanet.backbones.wrapped.unwrapping import set_mode
from lmanet.errors import InputError, in_a_line

LARGER = (64, 128)
"""What is added to the height and width that a network takes, to tell those of one size."""
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Probe:
    """What was found out about a network by running it on random images.

    Attributes:
        images: (B, 3, H, W) in [0, 1] that it takes, on its device and of its type.
        multiple: what heights and widths must be multiples of; 1 for a network of one size.
        fixed_size: (H, W) of a network that takes images of one size alone, otherwise None.
        outputs: how logits are made of what it returns.
    """

    images: Tensor
    multiple: int
    fixed_size: tuple[int, int] | None
    outputs: Outputs

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.images.shape[-2], self.images.shape[-1]


def find_probe(
    model: nn.Module,
    size: tuple[int, int] | Probe | None,
    *,
    output: str | int | None = None,
    batch: int = 2,
) -> Probe:
    """Random images that the model takes, which sizes it takes beside them, and what it returns.

    Args:
        model: as `Wrapped` takes it, in `eval` mode.
        size: (H, W); None tries the usual ones; what was found out before is returned as it is.
        output: key or index of the logits among what it returns, nested ones with dots between; None: as found.
        batch: how many images it is given at once.

    Raises:
        InputError: it runs at none, or at one only and `size` was not given; it does not return logits, nor what they
            can be made of; or it does not return the same for the same images.
    """
    if isinstance(size, Probe):
        return size
    check_forward(model)
    check_mode(model)
    # Outside of inference mode: what is made in it counts not how often it was written to.
    with torch.inference_mode(False), torch.no_grad():
        tries = Tries(model, output, batch)
        images = tries.first([size] if size else usual_sizes(model))
        tries.check_again(images)
        fixed, multiple = _other_sizes(tries, images, given=size is not None)
        tries.check_again(images)
        tries.check_alone(images)
        return Probe(images, multiple, fixed, tries.reading(images))


def _other_sizes(tries: Tries, images: Tensor, *, given: bool) -> tuple[tuple[int, int] | None, int]:
    """The one size (H, W) that the model takes, if it takes no other, and what sides must be multiples of."""
    height, width = images.shape[-2:]
    larger = height + LARGER[0], width + LARGER[1]
    if (error := tries.failure(*larger)) is not None:
        if given:
            return (height, width), 1
        rows, columns = own_size(tries.model) or (height, width)
        raise InputError(
            f"{tries.name} takes images of {height}×{width}, but not of {larger[0]}×{larger[1]} "
            f"({in_a_line(error)}): it takes images of one size, or squares alone; give probe=({rows}, {columns}) "
            f"(--probe {rows} {columns}, of segment --resize {rows} {columns}), or set it up so that it interpolates "
            f"its position embedding"
        ) from error
    for multiple in MULTIPLES:
        if tries.failure(height + multiple, width + multiple) is None:
            return None, multiple
    raise InputError(
        f"{tries.name} takes images of {height}×{width}, but none a little larger: sides must be multiples of at most "
        f"{MULTIPLES[-1]}"
    )


def try_out(model: nn.Module, size: tuple[int, int] | None, *, output: str | int | None = None) -> Probe:
    """What `find_probe` finds with two images at once, or with one where the model takes one alone."""
    with in_eval_mode(model):
        try:
            return find_probe(model, size, output=output)
        except StateError:
            raise
        except InputError as first:
            try:
                return find_probe(model, size, output=output, batch=1)
            except SizeError:
                if isinstance(first, SizeError):
                    raise
                raise first from None


def check_size(images: Tensor, fixed: tuple[int, int] | None) -> None:
    """Raise InputError where images (B, 3, H, W) are not of the one size (H, W) that a network takes."""
    height, width = images.shape[-2:]
    if fixed is not None and (height, width) != fixed:
        raise InputError(
            f"images of {height}×{width} for a network that takes images of {fixed[0]}×{fixed[1]} alone: give "
            f"--resize {fixed[0]} {fixed[1]}, in Python Session(model, resize=({fixed[0]}, {fixed[1]}))"
        )


def gradients(logits: Tensor, values: list[Tensor]) -> list[Tensor | None]:
    """The gradient of the sum of the logits for each of some tensors; None for what has no part in them.

    Raises:
        InputError: there is none for the network, which then could not be trained either.
    """
    if not values or not logits.requires_grad:
        return [None] * len(values)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return list(torch.autograd.grad(logits.sum(), values, allow_unused=True))
    except RuntimeError as error:
        raise InputError(
            f"no gradients can be computed through the network, by which it is found out what its logits depend on: "
            f"{error}"
        ) from error


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in `eval` mode, and afterwards back in its own."""
    modes = {module: module.training for module in model.modules() if hasattr(module, "training")}
    set_mode(model, False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
