"""Memory without training: any single-frame network, steadied by what it said of the frames before.

What the network said of the places that a cell finds in the frames before (`labels.py`) is set against what it
says now, at the resolution of the cells, so that the present frame's fine detail stays:

    probabilities + strength · (read from the memory - probabilities at feature resolution, upsampled)

- Probabilities of a network that is surer than usual are flattened for this; its logits' scale is put back at the end.
- Where the present frame is sure and the memory says something else, the present frame counts for more.
- A frame that cannot be followed is labelled as by the single-frame network, if the frame before could not be either:
  so is a stream of one frame a second.

The defaults were chosen on CamVid's val clip with one ERFNet (15 frames a second) and held against frames one second
apart and against the synthetic drive; see `docs/methods/training-free.md`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.backbones.base import Backbone
from lmanet.errors import InputError
from lmanet.methods.labels import Reading, RemembersLabels, projection
from lmanet.nn.cells import averaged, rewritten
from lmanet.nn.place import place_of
from lmanet.ops import Backend

KEY_FEATURES = 64
"""Features beyond these go through a fixed random projection, which keeps distances."""

USUAL_MARGIN = 5.0
"""Logits whose `_margin` is larger are divided so that it is this: a network that is sure of all it says, by its loss
or a long training, would not listen to the memory."""

SURE_AGAINST_MEMORY = 0.5
"""How far a present frame that is sure holds its own against a memory that contradicts it, 0 to 1."""

TINY = 1e-30


class TrainingFreeMemory(RemembersLabels):
    """A single-frame network steadied by a memory of labels that needs no training.

    The difference between the labels given at the places that match and what the network says now is added to its
    probabilities, by a strength, where the frame can be followed; the module's text has the formula.

    Args:
        backbone: the single-frame network, trained. The finer its fused map the better: stride 4 to 8.
        memory_size: S, frames remembered.
        window: R, side of the square of cells that is searched in each remembered frame, odd.
        temperature: of the softmax over the keys' cosines.
        strength: how much of the difference between memory and present frame is added, 0 to 1; 0 gives the
            single-frame network's output.
        attention: the backend of `lmanet.ops.local_attention`.

    Raises:
        InputError: a size, the temperature or the strength is out of range.
    """

    method = "training-free"
    adjustable = ("memory_size", "window", "temperature", "strength", "attention")

    projection: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory_size: int = 2,
        window: int = 21,
        temperature: float = 0.02,
        strength: float = 0.75,
        attention: Backend = "auto",
    ) -> None:
        super().__init__(
            backbone,
            memory_size=memory_size,
            window=window,
            key_features=KEY_FEATURES,
            temperature=temperature,
            persistence=1.0,
            attention=attention,
        )
        self.strength = strength
        self.check_arguments()
        # Not saved: it is the same for every network of this width.
        narrow = self.key_features < backbone.channels
        kept = projection(backbone.channels, self.key_features) if narrow else None
        self.register_buffer("projection", kept, persistent=False)
        self.card = backbone.card
        self.to(place_of(backbone))

    def check_arguments(self) -> None:
        """Raise InputError unless S, R, temperature and strength are in their ranges."""
        super().check_arguments()
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength {self.strength}: expected 0 to 1")

    @property
    def arguments(self) -> dict[str, Any]:
        """S, R, temperature and strength, as the constructor takes them."""
        return {
            "memory_size": self.memory_size,
            "window": self.window,
            "temperature": self.temperature,
            "strength": self.strength,
        }

    def project(self, standardised: Tensor) -> Tensor:
        """Standardised features (B, C, h, w) to the keys', by a random projection where there are too many."""
        return standardised if self.projection is None else F.conv2d(standardised, self.projection)

    def steadied(self, logits: Tensor, fused: Tensor, key: Tensor, read: Reading) -> Tensor:
        """The network's logits (B, K, H, W), which may be written over, with the memory's share, by the rule above.

        Args:
            logits: of the present frame, float32 or float64.
            fused: (B, C, h, w), the frame's features; not used.
            key: (B, Ck, h, w), the frame's keys.
            read: what the memory says.
        """
        cells = (key.shape[-2], key.shape[-1])
        scale = (_margin(logits, cells) / USUAL_MARGIN).clamp_min(1)

        def probabilities(logits: Tensor) -> Tensor:
            return (logits / scale).softmax(1)

        def rewrite(logits: Tensor, change: Tensor) -> Tensor:
            # As a factor on the probabilities: without a change the logits stay what they are, to the bit.
            factor = (change / probabilities(logits).clamp_min_(TINY)).add_(1).clamp_min_(1e-6)
            return torch.addcmul(logits, scale, factor.log_())

        present = averaged(logits, cells, probabilities)
        trust = self.strength * read.vouched * _open(present, read.shares)

        return rewritten(logits, trust * (read.shares - present), rewrite)


def _margin(logits: Tensor, cells: tuple[int, int]) -> Tensor:
    """By how much the label's logit exceeds the next one, mean over the cells (B, 1, 1, 1): how sure the network is."""
    first, second = F.adaptive_avg_pool2d(logits, cells).topk(2, 1).values.unbind(1)
    return (first - second).mean((-2, -1))[:, None, None, None]


def _open(present: Tensor, remembered: Tensor) -> Tensor:
    """How far each cell is open to the memory: (B, 1, h, w), lower where it is sure of something else."""
    first, second = present.topk(2, 1).values.unbind(1)
    agreement = (present * remembered.clamp_min(0)).sqrt().sum(1)
    return (1 - SURE_AGAINST_MEMORY * (first - second) * (1 - agreement)).clamp(0, 1)[:, None]
