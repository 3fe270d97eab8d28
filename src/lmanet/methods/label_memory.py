"""Memory of labels, trained: how far each place and class follows what was said before is learned.

    logits + upsampled log((p + t (m - p)) / p)

p are the network's probabilities at the resolution of the cells, m what was read from the memory: shares of the labels
given at the places that match (`labels.py`). t is the trust, of each cell and class, from 0 to `MOST_TRUST`; two
1×1 convolutions see the features, how good the match is, p and m. Frames that can be `followed` count alone.
So nothing is lost on the way: where the trust is 0, as in a stream's first frame, the output is the network's own. The
network is never trained with it: a decoder that was gave worse labels wherever the memory stood aside.

What is remembered of a frame is in part what the network said of it by itself: of two labels that contradict each
other, a trust above a half would otherwise keep the one that was given first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmanet.backbones.base import Backbone, Features
from lmanet.errors import InputError
from lmanet.methods.base import TrainableVideoModel
from lmanet.methods.keys import COLOUR_CHANNELS, projection
from lmanet.methods.labels import Reading, RemembersLabels
from lmanet.methods.memory import MemoryState, default_window
from lmanet.nn.cells import label_shares, rewritten
from lmanet.ops import Backend

KEY_FEATURES = 32
"""Half of what the memory that needs no training takes, as these are trained: attention costs by their number."""

MOST_TRUST = 0.8
"""Above it, what was once said wrong would outlive the frames that say otherwise."""

FIRST_TRUST = 2.0
"""What the trust's sigmoid is of before the training: 0.7 of trust everywhere."""

LEAST = 1e-6
"""Probabilities below it count as this."""


class LabelMemory(RemembersLabels, TrainableVideoModel):
    """A single-frame network that remembers the labels given, and was trained how far to trust them.

    Args:
        backbone: the single-frame network, trained. The finer its fused map the better: stride 4 to 8.
        memory_size: S, frames remembered.
        window: R, side of the square of cells that is searched in each remembered frame, odd; if not given, by the
            map's stride (`default_window`).
        hidden: channels between the two convolutions that give the trust.
        persistence: how much of what is remembered is the labels given, 0 to 1, the rest being what the network said
            by itself. 1 holds longest on to what was said, right or wrong.
        temperature: of the softmax over the keys' cosines.
        attention: the backend of `lmanet.ops.local_attention`.

    Raises:
        InputError: a size is out of range.
    """

    method = "label-memory"
    adjustable = ("memory_size", "window", "persistence", "attention")
    trains_decoder = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        memory_size: int = 2,
        window: int | None = None,
        hidden: int = 32,
        persistence: float = 0.5,
        temperature: float = 0.03,
        attention: Backend = "auto",
    ) -> None:
        if hidden < 1:
            raise InputError(f"hidden {hidden}: expected at least 1 channel")
        super().__init__(
            backbone,
            memory_size=memory_size,
            window=default_window(backbone.stride) if window is None else window,
            key_features=KEY_FEATURES,
            temperature=temperature,
            persistence=persistence,
            attention=attention,
        )
        self.check_arguments()
        channels, classes = backbone.channels, backbone.num_classes
        self.key_projection = nn.Conv2d(channels, self.key_features, 1, bias=False)
        self.trust_in = nn.Conv2d(channels + 1 + 2 * classes, hidden, 1)
        self.trust_out = nn.Conv2d(hidden, classes, 1)
        with torch.no_grad():
            self.key_projection.weight.copy_(projection(channels, self.key_features))
        nn.init.zeros_(self.trust_out.weight)
        assert self.trust_out.bias is not None
        nn.init.constant_(self.trust_out.bias, FIRST_TRUST)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @property
    def arguments(self) -> dict[str, Any]:
        """S, R, hidden channels, persistence and temperature, as the constructor takes them."""
        return {
            "memory_size": self.memory_size,
            "window": self.window,
            "hidden": self.trust_in.out_channels,
            "persistence": self.persistence,
            "temperature": self.temperature,
        }

    def project(self, standardised: Tensor) -> Tensor:
        """Standardised features (B, C, h, w) to the keys', by a trained 1×1 convolution that began as a projection."""
        return self.key_projection(standardised)

    def steadied(self, logits: Tensor, fused: Tensor, key: Tensor, read: Reading) -> Tensor:
        """The network's logits (B, K, H, W), which may be written over, with the memory's share, by the formula above.

        Args:
            logits: of the present frame, float32 or float64.
            fused: (B, C, h, w), the frame's features.
            key: (B, Ck, h, w), the frame's keys.
            read: what the memory says.
        """
        shares = read.shares
        present = F.adaptive_avg_pool2d(logits, (key.shape[-2], key.shape[-1])).softmax(1)
        match = (key * read.matched).sum(1, keepdim=True)
        weight = self.trust_in.weight
        seen = torch.cat([x.to(weight.dtype) for x in (fused, match, present, shares)], 1)
        trust = MOST_TRUST * self.trust_out(F.relu(self.trust_in(seen))).sigmoid().to(logits.dtype)
        trust = trust * read.vouched
        present = present.clamp_min(LEAST)
        change = (trust * (shares - present) / present).add(1).clamp_min(LEAST).log()
        return rewritten(logits, change, Tensor.add_)

    def observe(self, images: Tensor) -> Features:
        """Features of frames (B, 3, H, W), with the colours and label shares of the cells behind them in `fused`."""
        features, colours, logits = self.alone(images)
        shares = label_shares(logits, (colours.shape[-2], colours.shape[-1]))
        parts = [part.to(features.fused.dtype) for part in (features.fused, colours, shares)]
        return Features(torch.cat(parts, 1), features.rest)

    def observed_parts(self) -> tuple[nn.Module, ...]:
        """The whole network, as it gives the labels."""
        return (self.backbone,)

    def from_observed(self, frame: Features, memory: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Logits (B, K, *size) of frames that were observed, and of those in their memories.

        Args:
            frame: what `observe` gave of the current frames.
            memory: `fused` of it (B, S, C', h, w) of the frames in their memories; None is no memory, as one of the
                frame itself says nothing new.
            size: (H, W) of the logits.
        """
        fused, colours, _ = self._parts(frame.fused)
        height, width = map(self.backbone.padded_length, size)
        logits = self.backbone.decode(Features(fused, frame.rest), (height, width))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if memory is not None:
            past, their_colours, shares = self._parts(memory.flatten(0, 1))
            keys = self.key(past, their_colours)
            # The trust is learned in a stream that goes on; what `followed` takes from it is no matter of training.
            values = self.value(shares, keys, keys.new_ones(len(keys), 1, 1, 1))
            state = MemoryState(*(x.unflatten(0, memory.shape[:2]) for x in (keys, values)))
            key = self.key(fused, colours)
            _, reading = self.read(key, state)
            logits = self.steadied(logits, fused, key, reading)
        return logits[..., : size[0], : size[1]]

    def _parts(self, observed: Tensor) -> tuple[Tensor, ...]:
        """What `observe` put together (N, C + colours + K, h, w), as it was."""
        sizes = [self.backbone.channels, COLOUR_CHANNELS, self.backbone.num_classes]
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in observed.split(sizes, 1))
