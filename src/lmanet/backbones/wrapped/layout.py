"""What submodules return, as tensors and back: nested tuples, lists and dicts of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from lmanet.errors import InputError

Path = tuple[Any, ...]
"""Indices and keys that lead to a tensor; empty for the returned value itself."""


@dataclass(frozen=True)
class Shape:
    """A tensor without its values.

    Attributes:
        per_image: its length in the first dimension, per image; 0 where that does not go with the images.
        sides: of the dimensions after the first, or of all where `per_image` is 0.
    """

    per_image: int
    sides: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How what the calls returned is made of tensors, for images of one size.

    Attributes:
        spec: the nesting.
        leaves: per leaf its shape, or itself if it is not a tensor.
    """

    spec: Any
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, returned: list[Any], batch: int) -> tuple[list[Any], Layout]:
        """All leaves of what the calls returned, and the layout."""
        values, spec = pytree.tree_flatten(returned)
        leaves = (_shape(value, batch) if isinstance(value, Tensor) else value for value in values)
        return values, cls(spec, tuple(leaves))

    def by_image(self, value: Tensor, n: int) -> Tensor:
        """Leaf number `n` with the images alone along its first dimension."""
        per_image = self.leaves[n].per_image
        return value if per_image == 1 else value.unflatten(0, (-1, per_image))

    def build(self, known: Mapping[int, Tensor], batch: int, like: Tensor) -> list[Any]:
        """What the calls returned, with known leaves `by_image`; all others are copies of one number of `like`."""
        values = []
        for n, leaf in enumerate(self.leaves):
            if n in known:
                values.append(known[n] if leaf.per_image == 1 else known[n].flatten(0, 1))
            elif isinstance(leaf, Shape):
                first = (batch * leaf.per_image,) if leaf.per_image else ()
                values.append(like.flatten()[0].expand(*first, *leaf.sides))
            else:
                values.append(leaf)
        return pytree.tree_unflatten(values, self.spec)


def _shape(value: Tensor, batch: int) -> Shape:
    if value.ndim == 0 or value.shape[0] % batch:
        return Shape(0, tuple(value.shape))
    return Shape(value.shape[0] // batch, tuple(value.shape[1:]))


class RecentLayouts:
    """The layouts of the frame sizes that were used last; threads may share it.

    Nothing is ever written into the dict: another one takes its place. So a thread that comes in between costs at most
    that a size is forgotten, and there is no lock, with which networks could not be copied.
    """

    LIMIT = 16

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], Layout] = {}

    def __len__(self) -> int:
        return len(self._of)

    def get(self, size: tuple[int, int]) -> Layout | None:
        """The one of frames (H, W), if it is known still."""
        if (found := self._of.get(size)) is not None:
            self.put(size, found)
        return found

    def put(self, size: tuple[int, int], layout: Layout) -> None:
        """Note the one of frames (H, W); of more than `LIMIT` sizes the one that was not used for longest goes."""
        others = [(s, x) for s, x in self._of.items() if s != size]
        self._of = dict([*others[-self.LIMIT + 1 :], (size, layout)])


def check_leaves(of_two: list[Any], of_one: list[Any], needed: tuple[int, ...]) -> None:
    """Check that what the calls returned for two images can be told apart by images.

    Args:
        of_two: all leaves for two images.
        of_one: all leaves for one other image.
        needed: the numbers of those that are handed on.

    Raises:
        InputError: a tensor to be handed on belongs to no single image, or another kind of value changes with them.
    """
    for n, (two, one) in enumerate(zip(of_two, of_one, strict=True)):
        if not isinstance(two, Tensor):
            if type(two) is not type(one) or two != one:
                raise InputError(
                    f"a submodule before the cut returns a {type(two).__name__} that depends on the images: expected "
                    f"tensors in tuples, lists and dicts; choose another submodule to cut at"
                )
        elif n in needed and not (two.ndim and len(two) == 2 * len(one)):
            raise InputError(
                f"what comes after the cut needs a tensor {tuple(two.shape)} that does not belong to single images: "
                f"choose another submodule to cut at"
            )


def number_of_map(returned: list[Any], entry: int | str | None, at: str) -> int:
    """The number, among all leaves, of the map that `entry` names in what the last call returned.

    Raises:
        InputError: there is none; `at` is what the message calls the submodule.
    """
    last = [(tuple(map(key_of, path)), leaf) for path, leaf in pytree.tree_flatten_with_path(returned[-1])[0]]
    earlier = len(pytree.tree_leaves(returned)) - len(last)
    maps = {path: earlier + n for n, (path, leaf) in enumerate(last) if is_map(leaf)}
    if isinstance(entry, int) and -len(maps) <= entry < 0:
        return list(maps.values())[entry]
    path = () if entry is None else (entry,)
    if path not in maps:
        found = ", ".join(f"{_entry_name(p)} {tuple(leaf.shape)}" for p, leaf in last if p in maps)
        raise InputError(
            f"the output of {at!r} has no map (B, C, h, w) at entry {entry!r}: it holds {found or 'none'}; give entry= "
            f"one of these, or choose another submodule"
        )
    return maps[path]


def is_map(value: Any) -> bool:
    """Whether it may be (B, C, h, w)."""
    return isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()


def key_of(step: Any) -> Any:
    """The index or key of one step of a path."""
    return next(getattr(step, name) for name in ("idx", "key", "name") if hasattr(step, name))


def _entry_name(path: Path) -> str:
    return "itself" if not path else f"entry {path[0]!r}" if len(path) == 1 else f"entry {path!r}"
