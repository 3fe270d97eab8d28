"""Frames that are spoilt among good ones, for `training_free`: by darkness, noise, blur or something on the lens.

Optical flow does not find them in the last good frame, nor the next good one in them. But the network is less sure of
them (`fallen`), and where it is sure of both it says the same (`same_picture`); at a cut it says something else. So
the last good frame is kept: the next is followed to it first. In a spoilt frame that is not found, its probabilities
count for up to half, carried on by the motion that it was found with. A frame that is found although the network is
far less sure of it is labelled as any other, but does not become the last good one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.methods.following import ramp

LONGEST = 8
"""Frames for which the last good one counts."""

LESS_SURE = (0.0, 0.04)
"""By how much the mean of the largest probabilities is below the last good frame's: in no spoilt frame, in one."""

AGREEMENT = (0.5, 0.7)
"""Mean IoU of what both frames are sure of: up to which a frame is another picture, from which on it is the same."""

SURE = 0.8
"""Probability from which on a patch is sure."""

BOTH_SURE = (0.15, 0.25)
"""Share of a frame that both are sure of: up to which their agreement says nothing, from which on all."""


def fallen(now: Tensor, good: Tensor) -> float:
    """Whether a network is less sure of a frame than of the last good one, 0 to 1, of probabilities (1, K, h', w')."""
    less = good.amax(1).mean() - now.amax(1).mean()
    return float(ramp(less, *LESS_SURE))


def same_picture(one: Tensor, other: Tensor) -> float:
    """Whether two frames show the same, 0 to 1, of probabilities (1, K, h', w') of both at the same places.

    By the mean IoU of their labels where both are sure, over the classes of the first there.
    """
    (sure, label), (sure_other, label_other) = one.max(1), other.max(1)
    counted = (sure > SURE) & (sure_other > SURE)
    here, there = (F.one_hot(x[counted], one.shape[1]).to(one.dtype) for x in (label, label_other))
    both, either = (here * there).sum(0), torch.maximum(here, there).sum(0)
    classes = here.any(0)
    agreement = (both / either.clamp_min(1))[classes].mean().nan_to_num(0)
    share = counted.to(one.dtype).mean()
    return float(ramp(agreement, *AGREEMENT) * ramp(share, *BOTH_SURE))
