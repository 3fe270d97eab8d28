"""Where the points of a frame were in the frame before: optical flow as tensors, and reading maps along it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bytes_of(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), uint8 or float in [0, 1], as uint8, in memory of their own.

    A copy in any case: the caller may read the next frame into the same memory.
    """
    return images.clone() if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).byte()


def flows(pixels: Tensor, before: Tensor, *, refinements: int | None = None) -> tuple[Tensor, Tensor]:
    """Optical flow from frames to those before, and back, by DIS (Kroeger et al., ECCV 2016) at the preset "fast".

    Args:
        pixels: (B, 3, H, W) uint8, at least 16×16.
        before: the same of the frames before.
        refinements: see `lmanet.flow.dis_flows`.

    Returns:
        Two (B, 2, H, W) float32: how many pixels to the right and down; on the frames' device, computed on the CPU.
    """
    from lmanet.flow import dis_flows

    both = []
    for pair in zip(pixels, before, strict=True):
        images = (x.cpu().permute(1, 2, 0).numpy() for x in pair)
        both.append(dis_flows(*images, preset="fast", refinements=refinements))
    there, back = (
        torch.stack([torch.from_numpy(x).permute(2, 0, 1) for x in one]) for one in zip(*both, strict=True)
    )
    return there.to(pixels.device), back.to(pixels.device)


def places(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where a flow leads.

    Args:
        flow: (B, 2, h, w), to the right and down, in places of its own map.

    Returns:
        (B, h, w, 2) as `grid_sample` takes it, with the middles of the outermost places at -1 and 1; and whether that
        is inside of the map, (B, 1, h, w) bool.
    """
    height, width = flow.shape[-2:]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1)
    return grid, inside[:, None]


def read_at(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps (B, C, h, w) read at places (B, h', w', 2), by bilinear interpolation; outside as at the border."""
    return F.grid_sample(maps, grid.to(maps.dtype), padding_mode="border", align_corners=True)


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on."""
    return ((x - low) / (high - low)).clamp(0, 1)
