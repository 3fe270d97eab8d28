"""Trying a network out on random images: which sizes it takes, and what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lmanet.errors import InputError

PROBE_SIZES = ((128, 192), (224, 224), (256, 256), (384, 384), (512, 512))
"""Heights and widths that networks are tried at, until one runs."""
LARGER = (64, 128)
"""What is added to these in a second try, to tell networks of one size."""
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


def find_probe(model: nn.Module, size: tuple[int, int] | None) -> tuple[Tensor, int]:
    """Two random images that the model takes, and the number that heights and widths must be multiples of.

    Args:
        model: as `Wrapped` takes it, in `eval` mode.
        size: (H, W); None tries the usual ones.

    Raises:
        InputError: it runs at none, or at one only, or does not return logits.
    """
    parameter = first_parameter(model)
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def run(height: int, width: int) -> Tensor:
        images = torch.rand(2, 3, height, width, generator=generator).to(parameter)
        logits_of(model(images))
        return images

    failures = []
    for height, width in (size,) if size else PROBE_SIZES:
        try:
            images = run(height, width)
        except InputError:
            raise
        except Exception as error:  # whatever a network raises of a size that it does not take
            failures.append(f"{height}×{width}: {type(error).__name__}: {error}")
            continue
        larger = height + LARGER[0], width + LARGER[1]
        try:
            run(*larger)
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} takes images of {height}×{width}, but not of {larger[0]}×{larger[1]} "
                f"({type(error).__name__}: {error}): networks of one fixed size, or of squares alone, are not "
                f"supported; set up the model so that it interpolates its position embedding"
            ) from error
        for multiple in MULTIPLES:
            try:
                run(height + multiple, width + multiple)
            except Exception:
                continue
            return images, multiple
        raise InputError(
            f"{type(model).__name__} takes images of {height}×{width}, but none a little larger: sides must be "
            f"multiples of at most {MULTIPLES[-1]}"
        )
    raise InputError(
        f"{type(model).__name__} runs on no image that was tried ({'; '.join(failures)}): give probe=(H, W) of one "
        f"that it takes"
    )


def logits_of(output: Any) -> Tensor:
    """The logits (B, K, h, w) among what a segmentation network returns.

    Raises:
        InputError: there are none.
    """
    found = output.get("out", output.get("logits")) if isinstance(output, Mapping) else output
    if not isinstance(found, Tensor) or found.ndim != 4:
        got = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(output).__name__}"
        raise InputError(
            f"the model returned {got}: expected logits (B, K, h, w), as they are or under the key 'out' or 'logits'; "
            f"give it a forward that returns them"
        )
    return found


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


def first_parameter(model: nn.Module) -> Tensor:
    """For its device and type."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError(f"{type(model).__name__} has no parameters: expected a trained network")
    return parameter


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in `eval` mode, and afterwards back in its own."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
