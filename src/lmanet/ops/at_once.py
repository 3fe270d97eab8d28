"""`tiled`'s forward pass with all tiles in one go: for devices where a launch costs more than arithmetic.

The map is filled up to whole tiles, so that all tiles are alike and their blocks are one strided view: about twenty
launches for the whole map, where tile after tile takes thousands. Positions outside the map are scored in vain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lmanet.ops.kernel import Inputs
from lmanet.ops.layout import to_cells

TILE = 8
"""Side of a tile in cells."""

CHUNK_BYTES = 512 * 2**20
"""Scores held at a time; a row of tiles at least."""

LN_2 = math.log(2)


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Attention over the places inside the map.

    Returns:
        Output (B, h, w, Cv) in the values' dtype, and log-sum-exp (B, h, w) in float32 or wider.
    """
    query, keys, values, radius = inputs.query, inputs.keys, inputs.values, inputs.window // 2
    precise = torch.promote_types(query.dtype, torch.float32)
    batch, size, _, height, width = values.shape
    # What no cell can reach need not be there.
    reach = min(radius, height - 1), min(radius, width - 1)
    tiles = -(-height // TILE), -(-width // TILE)
    filled = tiles[0] * TILE - height, tiles[1] * TILE - width
    margins = (0, 0, reach[1], reach[1] + filled[1], reach[0], reach[0] + filled[0])
    query_map = to_cells(query).to(precise) * (inputs.scale / LN_2)
    query_map = F.pad(query_map, (0, 0, 0, filled[1], 0, filled[0]))
    key_map, value_map = F.pad(to_cells(keys).to(precise), margins), F.pad(to_cells(values), margins)
    rows, columns = (
        _seen(length, count, near, radius, query.device)
        for length, count, near in zip((height, width), tiles, reach, strict=True)
    )
    places = rows.shape[-1] * columns.shape[-1]
    row_bytes = batch * tiles[1] * TILE**2 * size * places * precise.itemsize
    per_chunk = max(1, CHUNK_BYTES // row_bytes)
    outputs, log_sums = [], []
    for first in range(0, tiles[0], per_chunk):
        last = min(first + per_chunk, tiles[0])
        lines = slice(first * TILE, last * TILE + 2 * reach[0])
        queries = query_map[:, first * TILE : last * TILE]
        scores = torch.bmm(_tiles(queries), _blocks(key_map[:, :, lines], reach).transpose(1, 2))
        # (tile rows, tile columns, cells of a tile, cells of a block)
        seen = rows[first:last, None, :, None, :, None] & columns[None, :, None, :, None, :]
        unseen = ~seen.reshape(-1, TILE**2, 1, places)
        scores.view(batch, len(unseen), TILE**2, size, places).masked_fill_(unseen, -torch.inf)
        largest = scores.amax(dim=-1, keepdim=True)
        weights = scores.sub_(largest).exp2_()
        total = weights.sum(dim=-1, keepdim=True)
        blocks = _blocks(value_map[:, :, lines], reach)
        # Divided first, as sums of many values would pass float16's largest number.
        read = torch.bmm((weights / total).to(values.dtype), blocks)
        outputs.append(_map(read, batch, last - first, tiles[1]))
        log_sums.append(_map((largest + total.log2()) * LN_2, batch, last - first, tiles[1]))
    output, log_sum = torch.cat(outputs, 1), torch.cat(log_sums, 1)
    return output[:, :height, :width].contiguous(), log_sum[:, :height, :width, 0].contiguous()


def _seen(length: int, tiles: int, reach: int, radius: int, device: torch.device) -> Tensor:
    """Along one axis, which places of its block each cell of each tile sees: (tiles, cells, places) bool."""
    starts = torch.arange(tiles, device=device)[:, None, None] * TILE
    cells = torch.arange(TILE, device=device)[:, None]
    places = torch.arange(TILE + 2 * reach, device=device) - reach
    inside = (starts + places >= 0) & (starts + places < length)
    return inside & ((places - cells).abs() <= radius)


def _tiles(cells: Tensor) -> Tensor:
    """Whole tiles of a map (B, h, w, C), as (B * tiles, cells of a tile, C)."""
    batch, height, width, channels = cells.shape
    cut = cells.reshape(batch, height // TILE, TILE, width // TILE, TILE, channels)
    return cut.transpose(2, 3).reshape(-1, TILE**2, channels)


def _blocks(cells: Tensor, reach: tuple[int, int]) -> Tensor:
    """The tiles' blocks of a map with margins (B, S, h, w, C), as (B * tiles, S * cells of a block, C)."""
    batch, *_, channels = cells.shape
    views = cells.unfold(2, TILE + 2 * reach[0], TILE).unfold(3, TILE + 2 * reach[1], TILE)
    # (B, S, tile rows, tile columns, C, block rows, block columns)
    blocks = views.permute(0, 2, 3, 1, 5, 6, 4)
    return blocks.reshape(batch * blocks.shape[1] * blocks.shape[2], -1, channels)


def _map(tiles: Tensor, batch: int, rows: int, columns: int) -> Tensor:
    """Tiles (B * tiles, cells of a tile, C) to their map (B, h, w, C)."""
    cut = tiles.view(batch, rows, columns, TILE, TILE, -1)
    return cut.transpose(2, 3).reshape(batch, rows * TILE, columns * TILE, -1)
