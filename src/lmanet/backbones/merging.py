"""A network with fewer classes than it was trained for, each the sum of some of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmanet.backbones.base import Backbone, Features
from lmanet.classes import Classes
from lmanet.errors import InputError


class Merged(Backbone):
    """A network whose classes are added up into fewer: the probability of each is the sum of its classes'.

    Classes that belong to none are never said: their share goes to the others. Methods, trainings and scores know only
    the merged classes. `merged` makes one by names.

    Args:
        network: the network, which is shared, not copied.
        groups: for each class the ids of the network's classes that it is made of.

    Raises:
        InputError: fewer than two groups, an empty one, an id that the network has not, or one that is there twice.
    """

    def __init__(self, network: Backbone, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.groups = [list(group) for group in groups]
        _check(self.groups, network.num_classes)
        self.network = network
        self.num_classes = len(self.groups)
        self.channels, self.stride = network.channels, network.stride
        self.normalisation, self.notes, self.card = network.normalisation, network.notes, network.card
        self.training = network.training

    @property
    def not_cut(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the network's is."""
        return self.network.not_cut

    @property
    def setting(self) -> dict[str, Any]:
        """That of the network."""
        return self.network.setting

    def encode(self, images: Tensor) -> Features:
        """Images (B, 3, H, W) in [0, 1] to the network's features."""
        return self.network.encode(images)

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features to logits (B, K, H, W) of the merged classes; their softmax is the sum of the network's."""
        logits = self.network.decode(features, size)
        return torch.cat([_sum(logits, group) for group in self.groups], 1)

    def padded_length(self, length: int) -> int:
        """What the network's is."""
        return self.network.padded_length(length)

    def fold_norms(self) -> None:
        """Fold what the network folds."""
        self.network.fold_norms()

    def encoder_parts(self) -> tuple[nn.Module, ...]:
        """Those of the network."""
        return self.network.encoder_parts()

    def decoder_parts(self) -> tuple[nn.Module, ...]:
        """Those of the network."""
        return self.network.decoder_parts()


def merged(
    network: Backbone,
    names: Mapping[str, Sequence[str]],
    palette: Sequence[tuple[int, int, int]] | None = None,
) -> Merged:
    """A network that says fewer classes, by their names.

    ```python
    network = lmanet.load("cityscapes.safetensors").backbone
    fewer = lmanet.backbones.merged(network, {"road": ["road"], "vehicle": ["car", "truck", "bus"]})
    report = lmanet.evaluate("folder:my_video", lmanet.SingleFrame(fewer))
    ```

    Args:
        network: knows the names of its classes (`classes`); it is shared, not copied.
        names: for each class, in order, the names of the network's classes that it is made of.
        palette: an RGB colour for each; that of the first class in it, if not given.

    Raises:
        InputError: the network does not know its classes' names, or has no class of a name; or see `Merged`.
    """
    known = network.classes
    if known is None:
        raise InputError(
            "classes to be merged of a network that does not know their names: set its attribute classes first, "
            "lmanet.Classes(names, palette)"
        )
    if missing := [name for group in names.values() for name in group if name not in known.names]:
        raise InputError(f"the network has no class {missing[0]!r} to merge: it has {', '.join(known.names)}")
    groups = [[known.names.index(name) for name in group] for group in names.values()]
    fewer = Merged(network, groups)
    colours = palette if palette is not None else [known.palette[group[0]] for group in groups]
    fewer.classes = Classes(tuple(names), tuple(colours))
    return fewer


def _sum(logits: Tensor, group: list[int]) -> Tensor:
    if len(group) == 1:
        return logits[:, group[0] : group[0] + 1]
    return logits[:, group].logsumexp(1, keepdim=True)


def _check(groups: list[list[int]], count: int) -> None:
    if len(groups) < 2 or not all(groups):
        raise InputError(f"classes merged into {groups}: expected at least two groups, none of them empty")
    ids = [number for group in groups for number in group]
    if wrong := [number for number in ids if not 0 <= number < count]:
        raise InputError(f"class {wrong[0]} to be merged: expected 0 to {count - 1}, as the network has")
    if twice := [number for number in ids if ids.count(number) > 1]:
        raise InputError(
            f"class {twice[0]} of the network is to be merged twice: expected it in one group, once"
        )
