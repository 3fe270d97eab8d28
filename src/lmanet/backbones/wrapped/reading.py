"""Whether what a network returns is logits, or was made of logits: probabilities, sigmoids, chosen classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lmanet.backbones.wrapped.outputs import Outputs, Reading
from lmanet.errors import InputError

NOTES: dict[Reading, str] = {
    "logits": "",
    "probabilities": "returns probabilities (softmax inside): their logarithm is taken as logits",
    "sigmoids": "returns a sigmoid of each class: the inverse, ln(p / (1 - p)), is taken as logits",
    "one logit": "returns one logit z: two classes of logits 0 and z, class 1 where z > 0",
    "one probability": "returns one probability p (sigmoid inside): two classes of logits ln(1 - p) and ln(p), class 1 "
    "where p > 0.5",
    "queries": "returns queries with masks and classes: the logarithm of their semantic map, the sum over queries of "
    "softmax(class) times sigmoid(mask), is taken as logits",
}

Origin = Literal["unbounded", "no gradient", "another"]
"""What made a map: a layer whose values have no bounds; what has no gradient, such as argmax; or anything else."""

MOVES = {
    "View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "Clone", "ToCopy", "Slice", "Squeeze", "Unsqueeze",
    "Alias", "Expand", "ConstantPadNd", "Index", "Select", "Split", "Crop", "AvgPool2D", "UpsampleBilinear2D",
    "UpsampleNearest2D", "UpsampleBicubic2D", "UpsampleBilinear2DAa", "Add", "Sub", "Mul", "Div", "Neg", "Cat",
}  # fmt: skip
UNBOUNDED = {
    "Convolution", "ConvolutionOverrideable", "MkldnnConvolution", "Addmm", "Mm", "Bmm", "Baddbmm", "NativeBatchNorm",
    "CudnnBatchNorm", "NativeGroupNorm", "NativeLayerNorm", "Relu", "LeakyRelu", "Gelu", "Silu", "Elu", "Softplus",
}  # fmt: skip
"""Steps of gradients: those that move, cut, resize, scale or add maps, and those that make one of any values."""


@dataclass(frozen=True)
class Seen:
    """What a map (B, C, h, w) looked like on some images.

    Attributes:
        channels: C.
        within: whether all values are in [0, 1].
        sums: whether they sum to 1 over the channels.
        same: 0 or 1, if all are that.
        whole: whether all are whole numbers.
        nan: whether one is NaN.
        positive: whether none is below 0.
        across: another dimension than the channels over which they sum to 1, as after a softmax of it.
    """

    channels: int
    within: bool
    sums: bool
    same: int | None
    whole: bool
    nan: bool
    positive: bool
    across: int | None

    @classmethod
    def of(cls, found: Tensor) -> Seen:
        """Look at a map."""
        x = found.detach()
        x = x if x.dtype == torch.float64 else x.float()
        # Bicubic interpolation leads a little beyond what it is between.
        near = bool(((x > -0.5) & (x < 1.5)).all())
        off = 1e-3 if found.dtype in (torch.float32, torch.float64) else 2e-2
        return cls(
            channels=x.shape[1],
            within=bool(((x >= 0) & (x <= 1)).all()),
            sums=near and _sums_to_1(x, 1, off),
            same=next((n for n in (0, 1) if (x == n).all()), None),
            whole=bool((x == x.round()).all()),
            nan=bool(x.isnan().any()),
            positive=bool((x >= 0).all()),
            across=next((n for n in (0, 2, 3) if near and x.shape[n] > 1 and _sums_to_1(x, n, off)), None),
        )


def _sums_to_1(x: Tensor, dim: int, off: float) -> bool:
    return bool(((x.sum(dim) - 1).abs() <= off).all())


def doubtful(seen: Sequence[Seen]) -> bool:
    """Whether it must be found out how a map was made: it may be probabilities, or classes that are chosen already."""
    alone = seen[0].channels == 1 and all(s.positive for s in seen)
    return alone or any(all(getattr(s, of) for s in seen) for of in ("within", "sums", "whole"))


def with_reading(outputs: Outputs, seen: Sequence[Seen], origin: Origin) -> Outputs:
    """Outputs that also say what the map is.

    Logits happen to be within [0, 1] on a few images: those of a ReLU, or of a head that was hardly trained. Read as
    sigmoids they would be cut off on all other images, and labels be lost; sigmoids that are read as logits lose none.
    So the map must also stay there on images far outside of what the network was made for, which are among `seen`,
    and, where its gradient tells, not be what a convolution, ReLU or the like returned.

    Args:
        outputs: where the map is.
        seen: it on all images that were tried.
        origin: how it was made; of meaning where it is `doubtful`.

    Raises:
        InputError: it is no map of logits, nor of what logits can be made of.
    """
    channels = seen[0].channels
    differ = sorted({s.channels for s in seen})
    if len(differ) > 1:
        raise InputError(
            f"the model returned maps of {' and '.join(map(str, differ))} classes for images of different sizes: "
            f"expected logits (B, K, h, w) of one K; if the channels are last, return .permute(0, 3, 1, 2)"
        )
    if outputs.queries is not None:
        return _noted(outputs, "queries")
    if origin == "no gradient" and all(s.whole for s in seen):
        raise InputError(
            "the model returned whole numbers alone: classes that are chosen already, as of argmax or a threshold; "
            "expected logits (B, K, h, w): return what these are taken of"
        )
    if all(s.same == 1 or (s.same == 0 and channels == 1) for s in seen):
        what = "one class" if channels == 1 else f"{channels} classes"
        raise InputError(
            f"the model returned {what}, and the same value everywhere, as a softmax of one class does, or one of the "
            f"batch (dim=0): return logits, or probabilities by softmax(1); of one class its logit, or its sigmoid"
        )
    if channels > 1 and all(s.sums for s in seen):
        return _noted(outputs, "probabilities")
    across = [s.across for s in seen if s.same is None]
    wrong = [n for n in across if n is not None]
    if wrong and len(wrong) == len(across):
        raise InputError(
            f"what the model returned sums to 1 over the dimension {wrong[0]}, not over the classes: a softmax of the "
            f"wrong dimension; take it with dim=1, or return what it is taken of"
        )
    if all(s.within for s in seen) and origin != "unbounded":
        return _noted(outputs, "sigmoids" if channels > 1 else "one probability")
    if channels == 1 and all(s.positive for s in seen):
        note = (
            "returns one value, never below 0 in the images that were tried: two classes, class 1 where it is above 0; "
            "if these are percents, 0 to 255 or depths, let its forward return logits"
        )
        return replace(outputs, reading="one logit", notes=(*outputs.notes, note))
    return _noted(outputs, "one logit" if channels == 1 else "logits")


def _noted(outputs: Outputs, reading: Reading) -> Outputs:
    note = NOTES[reading]
    return replace(outputs, reading=reading, notes=(*outputs.notes, note) if note else outputs.notes)


def origin_of(found: Tensor) -> Origin:
    """What made a map, by its gradient, through all that only moves, scales or adds maps.

    Args:
        found: computed with gradients.
    """
    left = [found.grad_fn]
    if left[0] is None:
        return "no gradient"
    seen: set[Any] = set()
    unbounded = False
    while left:
        step = left.pop()
        name = type(step).__name__.partition("Backward")[0]
        if step is None or step in seen or name == "AccumulateGrad":  # a parameter
            continue
        seen.add(step)
        if name in MOVES:
            left += [inner for inner, _ in step.next_functions]
        elif name in UNBOUNDED:
            unbounded = True
        else:
            return "another"
    return "unbounded" if unbounded else "another"
