"""Frames that are spoilt among good ones, for `training_free`: by darkness, noise, blur or something on the lens.

Optical flow does not find them in the frame before, nor the next one in them. But the network is less sure of them than
of the last frame that was found, and where it is sure of both it says the same. At a cut it says something else. So the
next frame is followed to the last that was found. In a spoilt one that one's probabilities count for half
(`share_of_past`), carried on by the motion that it was found with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.methods.following import ramp

LONGEST = 8
"""Frames for which the last one that was found counts."""

LESS_SURE = (0.0, 0.04)
"""By how much the mean of the largest probabilities is below the last found frame's: for no spoilt frame, for one."""

AGREEMENT = (0.5, 0.7)
"""Mean IoU of what both frames are sure of: up to which a frame is another picture, from which on it is the same."""

SURE = 0.8
"""Probability from which on a patch is sure."""

HALF = 0.5
"""Share of the past in a spoilt frame."""


def share_of_past(now: Tensor, carried: Tensor, found: Tensor) -> Tensor:
    """By how much a frame that is not found again is to be labelled by the past.

    Args:
        now: probabilities (B, K, h', w') of its patches.
        carried: those of the last found frame, where its motion leads.
        found: the same where they were.

    Returns:
        (B, 1, 1, 1), 0 to `HALF`.
    """
    less = (found.amax(1) - now.amax(1)).mean((-2, -1))[:, None, None, None]
    return HALF * ramp(less, *LESS_SURE) * ramp(agreement(now, carried), *AGREEMENT)


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Mean IoU (B, 1, 1, 1) of two frames' labels, over the classes of the first, where both are sure.

    Of probabilities (B, K, h', w'). Where there is no such place it is 0.
    """
    (sure, label), (sure_other, label_other) = one.max(1), other.max(1)
    counted = (sure > SURE) & (sure_other > SURE)
    here, there = (
        (F.one_hot(x, one.shape[1]) * counted[..., None]).flatten(1, 2).to(one.dtype)
        for x in (label, label_other)
    )
    both, either = (here * there).sum(1), torch.maximum(here, there).sum(1)
    classes = here.any(1)
    means = (both / either.clamp_min(1) * classes).sum(1) / classes.sum(1).clamp_min(1)
    return means[:, None, None, None]
