"""From what a network returns to logits: where they lie in it, and whether they must be made of something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Path = tuple[int | str, ...]
"""Indices, keys and names of attributes that lead to a tensor; empty for the returned value itself."""

Reading = Literal["logits", "probabilities", "sigmoids", "one logit", "one probability", "queries"]
"""What the network returns: logits of K classes; their softmax; a sigmoid of each; the logit, or its sigmoid, of the
second of two classes; or queries, each with a mask (B, Q, h, w) and logits (B, Q, K + 1) of the classes and of none."""

QUERIES = (
    ("class_queries_logits", "masks_queries_logits"),
    ("pred_logits", "pred_masks"),
    ("logits", "pred_masks"),
)
"""What the classes and the masks of queries are called: MaskFormer's kin in transformers, their originals, DETR."""


@dataclass(frozen=True)
class Outputs:
    """How logits are made of what a network returns; found once, when a network is tried out (`find_probe`).

    Calling it makes no decision that depends on values, so that it can be exported and compiled.

    Attributes:
        path: leads to the map (B, C, h, w); with queries to what holds their masks and classes.
        reading: what the map is.
        queries: with queries, what their classes and their masks are called.
        masks_first: with queries, whether the masks are interpolated before their sigmoid, not the semantic map.
        chosen: whether the path is not the one that is taken by itself.
        notes: what was recognised, in sentences for people.
    """

    path: Path = ()
    reading: Reading = "logits"
    queries: tuple[str, str] | None = None
    masks_first: bool = False
    chosen: bool = False
    notes: tuple[str, ...] = ()

    def __call__(self, returned: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Logits (B, K, h, w) of what the network returned, of its dtype.

        Args:
            returned: by the network, for images (B, 3, H, W).
            size: (H, W) that they are interpolated to, bilinearly: logits as logits, probabilities as probabilities.
                None: the size that they have.
        """
        found = self.map_of(returned, size)
        if size is not None and found.shape[-2:] != size:
            found = F.interpolate(found, size, mode="bilinear", align_corners=False)
        return _logits(found, self.reading)

    def map_of(self, returned: Any, size: tuple[int, int] | None = None) -> Tensor:
        """What logits are made of cell by cell (B, C, h, w), of what the network returned.

        Args:
            returned: by the network.
            size: (H, W) that masks are interpolated to, where these come first; anything else stays as it is.
        """
        found = value_at(returned, self.path)
        if self.queries is None:
            return found
        classes, masks = (value_at(found, (name,)) for name in self.queries)
        if self.masks_first and size is not None:
            masks = F.interpolate(masks, size, mode="bilinear", align_corners=False)
        return torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())

    @property
    def setting(self) -> dict[str, Any]:
        """What logits depend on, as JSON values; nothing for a network that returns them where they are expected."""
        setting: dict[str, Any] = {"output": name_of(self.path)} if self.chosen else {}
        return setting if self.reading == "logits" else {**setting, "reading": self.reading}


def value_at(returned: Any, path: Path) -> Any:
    """What lies at a path in what a network returned."""
    for step in path:
        inside = isinstance(returned, Mapping) or isinstance(step, int)
        returned = returned[step] if inside else getattr(returned, str(step))
    return returned


def name_of(path: Path) -> str:
    """A path as `output` takes it."""
    return ".".join(map(str, path))


def _logits(found: Tensor, reading: Reading) -> Tensor:
    if reading == "logits":
        return found
    if reading == "one logit":  # the softmax of (0, z) is the sigmoid of z
        return torch.cat([torch.zeros_like(found), found], 1)
    # In float32: less would round what is near 1 to it.
    wide = found if found.dtype == torch.float64 else found.float()
    if reading == "one probability":
        wide = torch.cat([_log(1 - wide), _log(wide)], 1)
    elif reading == "sigmoids":
        wide = _log(wide) - _log(1 - wide)
    else:
        wide = _log(wide)
    return wide.to(found.dtype)


def _log(x: Tensor) -> Tensor:
    """The logarithm, which is not infinite at 0."""
    return x.clamp(min=torch.finfo(torch.float32).tiny).log()
