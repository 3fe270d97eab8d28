"""Passes over the pixels of logits, and what they leave of each patch of 4×4 pixels.

On a CPU, in float32 and where no gradient is wanted, the project's kernel makes each in one pass. Elsewhere they are
the expressions of torch functions below, which are also what the kernel is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.errors import InputError
from lmanet.ops.native import NativePatches, variants

PATCH = 4
"""Pixels to a side of a patch."""

MOST_CLASSES = 255
"""Labels are bytes, of which the last means void."""

TINY = 1e-30
"""Probabilities below it count as this where their logarithm is taken."""

KERNEL = NativePatches() if variants() else None


def patch_means(maps: Tensor) -> Tensor:
    """Means over patches of 4×4 pixels.

    Args:
        maps: (B, C, H, W), floating point or uint8. Any strides.

    Returns:
        (B, C, ⌈H/4⌉, ⌈W/4⌉), of the maps' dtype, float32 of uint8. The last patches of a row or a column may have fewer
        pixels.
    """
    kernel = kernel_for(maps) or kernel_for(maps, dtype=torch.uint8)
    if kernel and maps.numel() and maps.shape[1] <= MOST_CLASSES:
        return kernel.patch_means(maps)
    maps = maps.float() if maps.dtype == torch.uint8 else maps
    return F.avg_pool2d(maps, PATCH, ceil_mode=True, count_include_pad=False)


def patch_probabilities(logits: Tensor) -> Tensor:
    """The probabilities of the classes, meaned over patches of 4×4 pixels.

    Args:
        logits: (B, K, H, W), floating point, K of 1 to 255. Any strides.

    Returns:
        (B, K, ⌈H/4⌉, ⌈W/4⌉), of the logits' dtype: means over a patch of the softmax over K of each of its pixels. The
        last patches of a row or a column may have fewer pixels.

    Raises:
        InputError: logits of another shape.
    """
    _check_logits(logits)
    if kernel := kernel_for(logits):
        return kernel.patch_probabilities(logits)
    return patch_means(logits.softmax(1))


def steadied(logits: Tensor, change: Tensor, before: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Logits changed by what is known of the patches, and by the labels given to the frame before.

    The probabilities of each pixel (the softmax over K) plus the first K channels of `change`, interpolated between the
    patches' middles; and that of the label given before, at the nearest pixel to where the flow leads, plus the last
    one. Of these the logarithm is taken, of those below 1e-30 that of 1e-30.

    Args:
        logits: (B, K, H, W), floating point, K of 1 to 255. Any strides. They are written over, unless a gradient
            through them or the change is wanted.
        change: (B, K + 1, ⌈H/4⌉, ⌈W/4⌉), of the logits' dtype, by patches of 4×4 pixels.
        before: labels (B, H, W) uint8; those from K on are no class's.
        flow: (B, 2, H, W) float32, how many pixels to the right and down. Beyond the image the border counts.

    Returns:
        The new logits (B, K, H, W), logarithms; and their labels (B, H, W) uint8, the first of equals.

    Raises:
        InputError: shapes or dtypes that do not belong together.
    """
    _check_logits(logits)
    _check_change(logits, change, before, flow)
    if kernel := kernel_for(logits, change, flow):
        return logits, kernel.steadied(logits, change, before, flow)
    classes, height, width = logits.shape[1:]
    whole = (change.shape[-2] * PATCH, change.shape[-1] * PATCH)
    if logits.stride(1) == 1:
        change = change.contiguous(
            memory_format=torch.channels_last
        )  # as the logits: what adds them up is faster
    stretched = F.interpolate(change, whole, mode="bilinear", align_corners=False)[..., :height, :width]
    labels = _carried(before, flow)[:, None].long()
    kept = stretched[:, -1:] * (labels < classes)
    said = (logits.softmax(1) + stretched[:, :-1]).scatter_add_(1, labels.clamp_max(classes - 1), kept)
    new = said.clamp_min(TINY).log()
    if not (torch.is_grad_enabled() and new.requires_grad):
        new = logits.copy_(new)
    return new, new.max(1).indices.byte()  # the same as by `argmax`, in a fifth of the time


def _carried(labels: Tensor, flow: Tensor) -> Tensor:
    """Labels (B, H, W) at the nearest pixels to where a flow (B, 2, H, W) leads."""
    height, width = labels.shape[-2:]
    columns = (torch.arange(width, device=flow.device) + flow[:, 0]).round_().clamp_(0, width - 1)
    rows = (torch.arange(height, device=flow.device)[:, None] + flow[:, 1]).round_().clamp_(0, height - 1)
    index = torch.add(columns.long(), rows.long(), alpha=width)
    return labels.flatten(1).gather(1, index.flatten(1)).view_as(labels)


def kernel_for(*maps: Tensor, dtype: torch.dtype = torch.float32) -> NativePatches | None:
    """The kernel, if it takes these maps: it is for one dtype on the CPU, and differentiates nothing."""
    plain = all(x.device.type == "cpu" and x.dtype == dtype for x in maps)
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in maps)
    # torch.compile and torch.export see expressions of torch alone.
    return KERNEL if plain and not learning and not torch.compiler.is_compiling() else None


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 4 or 0 in logits.shape or logits.shape[1] > MOST_CLASSES:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}, expected (B, K, H, W), at least 1 in every dimension and at "
            f"most {MOST_CLASSES} classes"
        )


def _check_change(logits: Tensor, change: Tensor, before: Tensor, flow: Tensor) -> None:
    batch, classes, height, width = logits.shape
    expected = {
        "change": (change, (batch, classes + 1, -(-height // PATCH), -(-width // PATCH)), logits.dtype),
        "labels before": (before, (batch, height, width), torch.uint8),
        "flow": (flow, (batch, 2, height, width), torch.float32),
    }
    for name, (given, shape, dtype) in expected.items():
        if given.shape != shape or given.dtype != dtype or given.device != logits.device:
            raise InputError(
                f"{name}: {given.dtype} {tuple(given.shape)} on {given.device}, expected {dtype} {shape} on "
                f"{logits.device}, for logits of shape {tuple(logits.shape)}"
            )
