"""Where the logits lie in what a network returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lmanet.backbones.wrapped.layout import is_map
from lmanet.backbones.wrapped.outputs import QUERIES, Outputs, Path, name_of, value_at
from lmanet.errors import InputError

USUAL = ("out", "logits")
"""What torchvision and transformers call them; the first goes before the second, and both before all others."""
DEEPEST = 5
CLASSIFIER = "this is one answer for each image, as of a classifier: give a network that labels every pixel"
EXPECTED = "expected logits (B, K, h, w), a float for each class and cell"
MASKS_ENLARGED_FIRST = ("Mask2Former", "Eomt")
"""Of these, transformers interpolates the masks before their sigmoid, of all others of the kind the semantic map."""


def find_map(returned: Any, images: Tensor, output: str | int | None) -> Outputs:
    """The place of the map that logits are made of, in what a network returned for images (B, 3, H, W).

    Args:
        returned: by the network.
        images: that it was for.
        output: key or index of it, nested ones with dots between; None: as found.

    Raises:
        InputError: there is none, or there are several.
    """
    if isinstance(returned, Tensor):
        if output is not None:
            raise InputError(
                f"output={output!r}: the model returned one tensor {tuple(returned.shape)}, not several outputs: leave "
                f"output= out"
            )
        check_map(returned, images)
        return Outputs()
    path: Path = () if output is None else _resolved(returned, str(output))
    inside = value_at(returned, path)
    chosen = output is not None
    if isinstance(inside, Tensor):
        check_map(inside, images, f"output {name_of(path)!r} of the model is")
        return Outputs(path, chosen=chosen)
    if (queries := _queries(inside, path)) is not None:
        return dataclasses.replace(queries, chosen=chosen)
    children = dict(_children(inside))
    if (usual := next((n for n in USUAL if n in children and is_map(children[n])), None)) is not None:
        check_map(children[usual], images)
        return Outputs((*path, usual), chosen=chosen)
    found = (*path, *_only_map(inside, images))
    note = (
        f"of what it returns, {name_of(found)!r} is taken as its logits: the only map of the image's aspect"
    )
    return Outputs(found, chosen=True, notes=() if chosen else (note,))


def check_map(value: Tensor, images: Tensor, said: str = "the model returned") -> None:
    """Raise InputError, which says what a tensor is, unless it may be logits (B, K, h, w) of images (B, 3, H, W)."""
    batch, _, height, width = images.shape
    shape = tuple(value.shape)
    whole = not value.is_floating_point()

    def refuse(why: str) -> NoReturn:
        kind = f" of {value.dtype}" if whole else ""
        raise InputError(f"{said} a tensor {shape}{kind}: {EXPECTED}; {why}")

    if value.is_quantized:
        refuse("a quantised tensor: return .dequantize()")
    if value.layout is not torch.strided:
        refuse("a sparse tensor: return .to_dense()")
    if value.is_complex():
        refuse("give it a forward that returns them")
    if whole:
        refuse(
            "whole numbers are classes that are chosen already: return what argmax or the threshold is taken of"
        )
    if value.ndim == 2 and shape[0] == batch:
        refuse(CLASSIFIER)
    if value.ndim == 3 and shape[0] == batch and _of_aspect(shape[1:], images):
        refuse("the dimension of the classes is missing: return logits, of one class by .unsqueeze(1)")
    if value.ndim == 3 and _of_aspect(shape[1:], images):
        refuse("the batch is missing: keep its dimension, also for one image (no [0], no .squeeze())")
    if value.ndim == 3 and shape[0] == batch:
        refuse("this is a sequence of cells: return .transpose(1, 2).unflatten(2, (h, w))")
    if value.ndim != 4:
        refuse("give it a forward that returns them")
    if shape[0] != batch:
        refuse(f"{batch} images went in: the first dimension must be theirs")
    if _of_aspect(shape[1:3], images) and not _of_aspect(shape[2:], images):
        refuse("the channels are last: return .permute(0, 3, 1, 2)")
    if shape[2:] == (1, 1):
        refuse(CLASSIFIER)
    # What is always of the same size, or loses a margin, has not quite the image's aspect.
    if not 0.5 <= (height / shape[2]) / (width / shape[3]) <= 2 or shape[1] == 0:
        refuse(f"images of {height}×{width} went in, whose aspect h and w should have")


def _queries(value: Any, path: Path) -> Outputs | None:
    """Of masks of queries and their classes, if these are what was returned."""
    children = dict(_children(value))
    for classes, masks in QUERIES:
        if not all(isinstance(children.get(name), Tensor) for name in (classes, masks)):
            continue
        of_classes, of_masks = children[classes].shape, children[masks].shape
        if len(of_classes) != 3 or len(of_masks) != 4 or of_classes[:2] != of_masks[:2]:
            continue
        if classes != QUERIES[0][0]:
            raise InputError(
                f"the model returned masks of {of_masks[1]} queries ({masks!r} {tuple(of_masks)}) and their classes "
                f"({classes!r} {tuple(of_classes)}), and it is not known whether the last of these means none: give it "
                f"a forward that returns the semantic map, the sum over queries of probability of the class times "
                f"sigmoid of the mask"
            )
        enlarged = type(value).__name__.startswith(MASKS_ENLARGED_FIRST)
        return Outputs(path, "queries", (classes, masks), masks_first=enlarged)
    return None


def _only_map(value: Any, images: Tensor) -> Path:
    """The path of the one map in a value: of the image's aspect, or else nearly."""
    tensors = dict(_tensors(value))
    maps = {path: x for path, x in tensors.items() if is_map(x) and _may_be(x, images)}
    for candidates in ([p for p, x in maps.items() if _of_aspect(x.shape[2:], images)], list(maps)):
        # The same map under two names is one.
        different = list({id(maps[path]): path for path in reversed(candidates)}.values())
        if len(different) == 1:
            return different[0]
        if different:
            raise InputError(
                f"the model returned several maps that may be its logits: {_listed(maps)}; give output= "
                f"(--model-output on the command line) one of these names"
            )
    if len(tensors) == 1:
        (path, x), *_ = tensors.items()
        check_map(x, images, f"output {name_of(path)!r} of the model is")
    held = f"holding {_listed(tensors)}" if tensors else "without a tensor"
    raise InputError(
        f"the model returned a {type(value).__name__} {held}: {EXPECTED}; {_advice(tensors, images)}"
    )


def _advice(tensors: Mapping[Path, Tensor], images: Tensor) -> str:
    for path, x in tensors.items():
        last = x.ndim == 4 and len(x) == len(images) and _of_aspect(x.shape[1:3], images)
        if last and x.is_floating_point():
            return f"if these are {name_of(path)!r}, their channels are last: return .permute(0, 3, 1, 2)"
    return "give it a forward that returns them"


def _may_be(x: Tensor, images: Tensor) -> bool:
    try:
        check_map(x, images)
    except InputError:
        return False
    return True


def _of_aspect(sides: tuple[int, ...], images: Tensor) -> bool:
    """Whether a map (h, w) is of the image's aspect, to a cell."""
    height, width = images.shape[-2:]
    rows, columns = sides
    return rows > 0 and columns > 0 and abs(rows * width - columns * height) <= max(height, width)


def _resolved(returned: Any, output: str) -> Path:
    """The path of what a user calls by its key or index, nested ones with dots between."""
    path: Path = ()
    value, rest = returned, output
    while rest:
        step, child, rest = _step(value, rest)
        if step is None:
            tensors = dict(_tensors(returned))
            raise InputError(
                f"output={output!r}: the model returned no such entry: it holds {_listed(tensors) or 'no tensors'}"
            )
        path, value = (*path, step), child
    return path


def _step(value: Any, name: str) -> tuple[int | str | None, Any, str]:
    """The first step that a name says, what is there, and the rest of the name."""
    children = list(_children(value))
    parts = name.split(".")
    for length in range(len(parts), 0, -1):  # keys may have dots
        first, rest = ".".join(parts[:length]), ".".join(parts[length:])
        for step, child in children:
            if str(step) == first:
                return step, child, rest
    number = int(parts[0]) if parts[0].removeprefix("-").isdecimal() else len(children)
    if -len(children) <= number < len(children):
        return *children[number], ".".join(parts[1:])
    return None, None, ""


def _children(value: Any) -> Iterator[tuple[int | str, Any]]:
    """What a container holds, by key, index or attribute; of anything else nothing."""
    if isinstance(value, Mapping):
        yield from ((key, x) for key, x in value.items() if isinstance(key, int | str))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, Tensor | nn.Module | type):
        yield from vars(value).items()


def _tensors(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif len(path) < DEEPEST:
        for step, child in _children(value):
            yield from _tensors(child, (*path, step))


def _listed(tensors: Mapping[Path, Tensor]) -> str:
    return ", ".join(f"{name_of(path)} {tuple(x.shape)}" for path, x in tensors.items())
