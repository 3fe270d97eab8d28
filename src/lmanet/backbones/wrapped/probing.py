"""Trying a network out on random images: which sizes it takes, and what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmanet.backbones.wrapped.outputs import Outputs, value_at
from lmanet.backbones.wrapped.unwrapping import set_mode
from lmanet.errors import InputError
from lmanet.nn.place import place_of

PROBE_SIZES = ((128, 192), (224, 224), (256, 256), (384, 384), (512, 512))
"""Heights and widths that networks are tried at, until one runs."""
LARGER = (64, 128)
"""What is added to these in a second try, to tell networks of one size."""
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


def find_probe(
    model: nn.Module, size: tuple[int, int] | None, *, output: str | int | None = None, batch: int = 2
) -> Probe:
    """Random images that the model takes, which sizes it takes beside them, and what it returns.

    Args:
        model: as `Wrapped` takes it, in `eval` mode.
        size: (H, W); None tries the usual ones.
        output: key or index of the logits among what it returns, nested ones with dots between; None: as found.
        batch: how many images it is given at once.

    Raises:
        InputError: it runs at none, or at one only and `size` was not given, or does not return logits.
    """
    place = place_of(model)
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def run(height: int, width: int) -> tuple[Tensor, Outputs]:
        images = torch.rand(batch, 3, height, width, generator=generator).to(place)
        return images, find_outputs(model(images), images, output)

    failures = []
    for height, width in (size,) if size else PROBE_SIZES:
        try:
            images, outputs = run(height, width)
        except InputError:
            raise
        except Exception as error:  # whatever a network raises of a size that it does not take
            failures.append(f"{height}×{width}: {type(error).__name__}: {error}")
            continue
        larger = height + LARGER[0], width + LARGER[1]
        try:
            run(*larger)
        except Exception as error:
            if size:
                return Probe(images, 1, size, outputs)
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
            return Probe(images, multiple, None, outputs)
        raise InputError(
            f"{type(model).__name__} takes images of {height}×{width}, but none a little larger: sides must be "
            f"multiples of at most {MULTIPLES[-1]}"
        )
    raise InputError(
        f"{type(model).__name__} runs on no image that was tried ({'; '.join(failures)}): give probe=(H, W) of one "
        f"that it takes"
    )


def find_outputs(returned: Any, images: Tensor, output: str | int | None) -> Outputs:
    """How logits are made of what a network returned for images (B, 3, H, W).

    Raises:
        InputError: it cannot be told, or there are none.
    """
    path = next(((k,) for k in ("out", "logits") if isinstance(returned, Mapping) and k in returned), ())
    found = value_at(returned, path)
    if not isinstance(found, Tensor) or found.ndim != 4:
        got = (
            f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(returned).__name__}"
        )
        raise InputError(
            f"the model returned {got}: expected logits (B, K, h, w), as they are or under the key 'out' or 'logits'; "
            f"give it a forward that returns them"
        )
    return Outputs(path)


def notes_of(
    model: nn.Module, size: tuple[int, int] | None, *, output: str | int | None = None
) -> tuple[str, ...]:
    """What is recognised of a network's output, in sentences for people; see `find_probe`."""
    with in_eval_mode(model):
        try:
            return find_probe(model, size, output=output).outputs.notes
        except InputError:  # it may take one image at a time
            return find_probe(model, size, output=output, batch=1).outputs.notes


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


def first_parameter(model: nn.Module) -> Tensor:
    """For its device and type."""
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise InputError(f"{type(model).__name__} has no parameters: expected a trained network")
    return parameter


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
