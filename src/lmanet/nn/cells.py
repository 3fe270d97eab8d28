"""Between pixels and cells: the pixels of an image are squares of `stride` to a cell of a feature map."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

BAND_CELLS = 5
"""Rows of cells whose pixels are rewritten at a time: below a megabyte at 480 pixels' width and 11 classes."""


def upsampled(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells (B, K, h, w) to pixels (B, K, *size), by bilinear interpolation between the cells' middles."""
    factor = _whole_factor(cells, size)
    if factor is None:
        return F.interpolate(cells, size, mode="bilinear", align_corners=False)
    return _stretched(_edged(cells), _kernel(cells, factor))


def rewritten(logits: Tensor, cells: Tensor, rewrite: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits (B, K, H, W) to `rewrite(logits, cells upsampled)`, which sees the pixels of some rows at a time.

    Where there are no gradients `logits` are written over. A band of rows lies in the cache from one operation to the
    next, and no map of the image's size is made: about a third less time.

    Args:
        logits: of a whole number of pixels to a cell, or else they are rewritten as one.
        cells: (B, C, h, w).
        rewrite: of the same rows, logits (B, K, rows, W) and cells (B, C, rows, W) to new logits; pixel by pixel. It
            may write over the logits that it is given.
    """
    size = (logits.shape[-2], logits.shape[-1])
    factor = _whole_factor(cells, size)
    # On a GPU one launch for all counts for more than the cache.
    if factor is None or logits.requires_grad or logits.device.type != "cpu":
        return rewrite(logits.clone() if logits.requires_grad else logits, upsampled(cells, size))
    edged, kernel = _edged(cells), _kernel(cells, factor)
    if logits.is_contiguous(memory_format=torch.channels_last):
        edged = edged.contiguous(memory_format=torch.channels_last)  # as the logits: half the time
    bands = logits.split(factor * BAND_CELLS, -2)
    for first, band in zip(range(0, cells.shape[-2], BAND_CELLS), bands, strict=True):
        band.copy_(rewrite(band, _stretched(edged[..., first : first + BAND_CELLS + 2, :], kernel)))
    return logits


def _whole_factor(cells: Tensor, size: tuple[int, int]) -> int | None:
    """Pixels to a cell's side, if `_stretched` takes them: an even number, the same both ways; without gradients."""
    factor = size[0] // cells.shape[-2]
    whole = size == (cells.shape[-2] * factor, cells.shape[-1] * factor) and factor % 2 == 0
    return factor if whole and not cells.requires_grad else None


def _edged(cells: Tensor) -> Tensor:
    return F.pad(cells, (1, 1, 1, 1), mode="replicate")


def _kernel(cells: Tensor, factor: int) -> Tensor:
    """Weights of bilinear interpolation for `_stretched`: (C, 1, 2 factor, 2 factor), the same for every channel."""
    up = (torch.arange(factor, dtype=cells.dtype, device=cells.device) + 0.5) / factor
    ramp = torch.cat([up, up.flip(0)])
    return torch.outer(ramp, ramp).expand(cells.shape[1], 1, -1, -1)


def _stretched(edged: Tensor, kernel: Tensor) -> Tensor:
    """`upsampled` of cells with another on each side: a depthwise convolution, three to four times as fast on a CPU."""
    channels, factor = len(kernel), kernel.shape[-1] // 2
    with torch.autocast(edged.device.type, enabled=False):
        return F.conv_transpose2d(edged, kernel, stride=factor, padding=factor + factor // 2, groups=channels)


def label_shares(logits: Tensor, cells: tuple[int, int]) -> Tensor:
    """Logits (B, K, H, W) to the shares of each cell's pixels by label (B, K, h, w), float32, channels last."""
    batch, classes, height, width = logits.shape
    # While torch.export or torch.compile traces, the cache would keep what is no tensor outside of it.
    bins_of = _bins_of if torch.compiler.is_compiling() else _known_bins_of
    first, pixels = bins_of((height, width), cells, classes, logits.device)
    bins = logits.max(1).indices.add_(first).flatten(1)
    # Counted, not averaged over maps of each class, which would be K times the image.
    counts = bins.new_zeros(batch, len(pixels)).scatter_add_(1, bins, torch.ones_like(bins))
    return (counts / pixels).view(batch, *cells, classes).movedim(-1, 1)


def _bins_of(
    size: tuple[int, int], cells: tuple[int, int], classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of each pixel (H, W) its cell's bin for class 0; of each bin (h w K,) how many pixels its cell has."""
    rows, columns = (torch.arange(n, device=device) * m // n for n, m in zip(size, cells, strict=True))
    cell = rows[:, None] * cells[1] + columns
    high, wide = (
        (places[:, None] == torch.arange(m, device=device)).sum(0)
        for places, m in zip((rows, columns), cells, strict=True)
    )
    pixels = (high[:, None] * wide).flatten()
    return cell * classes, pixels.repeat_interleave(classes)


_known_bins_of = lru_cache(maxsize=8)(torch.inference_mode(False)(_bins_of))
