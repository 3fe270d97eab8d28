"""Local attention as batched matrix products over tiles of the map: any device, lean in memory.

The map is cut into tiles of 8×8 queries. All positions that any query of a tile sees lie in the tile grown by
`window // 2` cells on each side and clipped to the map: the tile's block. One matrix product scores a tile's
queries against its block in all S frames, a bias of −∞ leaves out what lies outside each query's own window,
and a second product reads the values. Only a chunk of tiles has its scores in memory at a time. On a GPU the
forward pass takes all tiles in one go (`at_once.py`).

The backward pass keeps nothing but the output and the log-sum-exp of each query, and computes the weights
again chunk by chunk, as FlashAttention does (Dao et al., 2022, https://arxiv.org/abs/2205.14135).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lmanet.ops import at_once
from lmanet.ops.kernel import Inputs
from lmanet.ops.layout import to_cells, to_maps

TILE = 8
"""Side of a tile in cells. Larger tiles make better matrix products but score more positions in vain."""

CPU_CHUNK_BYTES = 2 * 2**20
"""Scores held at a time on a CPU: about what stays in a core's own cache."""

DEVICE_CHUNK_BYTES = 256 * 2**20
"""Scores held at a time on other devices, where few large launches count for more than caches."""

LN_2 = math.log(2)
"""Scores are kept in base 2: torch's exp2 on a CPU takes −∞ in its stride, exp is ten times slower on it."""


def refusal(query: Tensor) -> str | None:
    """Why it cannot run on tensors of this query's dtype and device: None, it takes all."""
    return None


def forward(inputs: Inputs, border: str) -> tuple[Tensor, Tensor]:
    """Output (B, Cv, h, w), in memory (B, h, w, Cv), and log-sum-exp (B, h, w), as `Kernel.forward` says."""
    output, log_sum = (_forward if inputs.query.device.type == "cpu" else at_once.forward)(inputs)
    if border == "zero":
        _add_outside(output, log_sum, inputs.values.shape[1], inputs.window)
    return to_maps(output), log_sum


def _forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Tile after tile: output (B, h, w, Cv) and log-sum-exp (B, h, w) over the places inside the map."""
    query, keys, values, window = inputs.query, inputs.keys, inputs.values, inputs.window
    precise = torch.promote_types(query.dtype, torch.float32)
    batch, size, channels, height, width = values.shape
    query_map = to_cells(query).to(precise) * (inputs.scale / LN_2)
    key_map = to_cells(keys).to(precise)
    value_map = to_cells(values)
    output = query.new_empty(batch, height, width, channels)
    log_sum = query.new_empty(batch, height, width, dtype=precise)
    for chunk in _chunks(query_map, size, window // 2):
        scores = chunk.scores(chunk.queries(query_map), chunk.block(key_map))
        largest = scores.amax(dim=-1, keepdim=True)
        weights = _exp2_(scores.sub_(largest))
        total = weights.sum(dim=-1, keepdim=True)
        if values.dtype == torch.float16:  # whose largest number, 65504, sums of many values would pass
            read = torch.bmm((weights / total).to(values.dtype), chunk.block(value_map))
        else:
            read = torch.bmm(weights.to(values.dtype), chunk.block(value_map)) / total
        chunk.put(read, output)
        chunk.put((largest + total.log2()) * LN_2, log_sum.unsqueeze(-1))
    return output, log_sum


def backward(
    inputs: Inputs, output: Tensor, log_sum: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values, in memory with their channels last, as `Kernel.backward` says."""
    query, keys, values, scale = inputs.query, inputs.keys, inputs.values, inputs.scale
    precise = log_sum.dtype
    size = keys.shape[1]
    query_map = to_cells(query).to(precise) * (scale / LN_2)
    log_sum_map = (log_sum / LN_2).unsqueeze(-1)
    key_map = to_cells(keys).to(precise)
    value_map = to_cells(values).to(precise)
    gradient_map = to_cells(gradient).to(precise)
    # The weights' gradient is centred by its mean under the weights, which equals gradient · output.
    centre = (gradient_map * to_cells(output)).sum(dim=-1, keepdim=True)
    query_gradient = torch.empty_like(query_map)
    key_gradient = torch.zeros_like(key_map)
    value_gradient = torch.zeros_like(value_map)
    for chunk in _chunks(query_map, size, inputs.window // 2):
        queries, block_keys = chunk.queries(query_map), chunk.block(key_map)
        gradients = chunk.queries(gradient_map)
        weights = _exp2_(chunk.scores(queries, block_keys).sub_(chunk.queries(log_sum_map)))
        chunk.add_block(torch.bmm(weights.transpose(1, 2), gradients), value_gradient)
        score_gradients = torch.bmm(gradients, chunk.block(value_map).transpose(1, 2))
        score_gradients.sub_(chunk.queries(centre)).mul_(weights)
        chunk.put(torch.bmm(score_gradients, block_keys), query_gradient)
        chunk.add_block(torch.bmm(score_gradients.transpose(1, 2), queries), key_gradient)
    key_gradient *= LN_2  # the queries carry scale / ln 2
    return (
        to_maps((query_gradient * scale).to(query.dtype)),
        to_maps(key_gradient.to(keys.dtype)),
        to_maps(value_gradient.to(values.dtype)),
    )


@dataclass(frozen=True)
class _Geometry:
    """How tiles lie in their blocks along one axis, in cells. Tiles alike in both axes share one bias."""

    tile: int
    block: int
    offset: int

    def seen(self, radius: int, device: torch.device) -> Tensor:
        """(tile, block) bool: which positions of the block lie in each query's window."""
        positions = torch.arange(self.block, device=device)
        queries = torch.arange(self.tile, device=device) + self.offset
        return (positions - queries[:, None]).abs() <= radius


@dataclass(frozen=True)
class _Chunk:
    """Tiles of one geometry that are worked on together.

    Attributes:
        corners: the first row and column of each tile, and of its block.
        rows: geometry along the rows.
        columns: geometry along the columns.
        bias: (cells of a tile, 1, cells of a block), 0 within a query's window and −∞ elsewhere.
    """

    corners: list[tuple[int, int, int, int]]
    rows: _Geometry
    columns: _Geometry
    bias: Tensor

    def queries(self, cells: Tensor) -> Tensor:
        """The tiles of a map (B, h, w, C), as (tiles * B, cells of a tile, C)."""
        tiles = torch.stack([self._tile(cells, y, x) for y, x, _, _ in self.corners])
        return tiles.view(-1, self.rows.tile * self.columns.tile, cells.shape[-1])

    def put(self, tiles: Tensor, cells: Tensor) -> None:
        """Write tiles (tiles * B, cells of a tile, C) to where they lie in a map (B, h, w, C)."""
        shape = (len(self.corners), -1, self.rows.tile, self.columns.tile, cells.shape[-1])
        for (y, x, _, _), tile in zip(self.corners, tiles.view(shape), strict=True):
            self._tile(cells, y, x).copy_(tile)

    def scores(self, queries: Tensor, block: Tensor) -> Tensor:
        """(tiles * B, cells of a tile, S * cells of a block), −∞ outside each query's window."""
        scores = torch.bmm(queries, block.transpose(1, 2))
        by_frame = scores.view(*scores.shape[:2], -1, self.bias.shape[-1])
        # Adding in place is faster here than torch.baddbmm, which first copies the bias to its result.
        by_frame.add_(self.bias)
        return scores

    def block(self, cells: Tensor) -> Tensor:
        """The tiles' blocks of a map (B, S, h, w, C), as (tiles * B, S * cells of a block, C)."""
        blocks = torch.stack([self._block(cells, y, x) for _, _, y, x in self.corners])
        return blocks.view(len(self.corners) * cells.shape[0], -1, cells.shape[-1])

    def add_block(self, blocks: Tensor, cells: Tensor) -> None:
        """Add blocks (tiles * B, S * cells of a block, C) to where they lie in a map (B, S, h, w, C).

        Blocks overlap: one after the other keeps the sum deterministic.
        """
        batch, size, _, _, channels = cells.shape
        shape = (len(self.corners), batch, size, self.rows.block, self.columns.block, channels)
        for (_, _, y, x), block in zip(self.corners, blocks.view(shape), strict=True):
            self._block(cells, y, x).add_(block)

    def _tile(self, cells: Tensor, y: int, x: int) -> Tensor:
        return cells[:, y : y + self.rows.tile, x : x + self.columns.tile]

    def _block(self, cells: Tensor, y: int, x: int) -> Tensor:
        return cells[:, :, y : y + self.rows.block, x : x + self.columns.block]


def _chunks(query_map: Tensor, size: int, radius: int) -> Iterator[_Chunk]:
    """All tiles of the map, alike ones together, as many at a time as the budget for scores allows."""
    batch, height, width, _ = query_map.shape
    budget = CPU_CHUNK_BYTES if query_map.device.type == "cpu" else DEVICE_CHUNK_BYTES
    for rows, row_starts in _split(height, radius).items():
        for columns, column_starts in _split(width, radius).items():
            bias = _bias(rows, columns, radius, query_map)
            per_chunk = max(1, budget // (batch * size * bias.nbytes))
            corners = [(y, x, by, bx) for y, by in row_starts for x, bx in column_starts]
            for first in range(0, len(corners), per_chunk):
                yield _Chunk(corners[first : first + per_chunk], rows, columns, bias)


def _split(length: int, radius: int) -> dict[_Geometry, list[tuple[int, int]]]:
    """Cut one axis into tiles; for each geometry that occurs, the first cells of tile and block."""
    tiles: dict[_Geometry, list[tuple[int, int]]] = {}
    for start in range(0, length, TILE):
        stop = min(start + TILE, length)
        block_start, block_stop = max(start - radius, 0), min(stop + radius, length)
        geometry = _Geometry(stop - start, block_stop - block_start, start - block_start)
        tiles.setdefault(geometry, []).append((start, block_start))
    return tiles


def _bias(rows: _Geometry, columns: _Geometry, radius: int, like: Tensor) -> Tensor:
    """(cells of a tile, 1, cells of a block): 0 within each query's window, −∞ elsewhere."""
    seen_rows = rows.seen(radius, like.device)[:, None, :, None]
    seen_columns = columns.seen(radius, like.device)[None, :, None, :]
    seen = seen_rows & seen_columns
    bias = like.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
    return bias.view(rows.tile * columns.tile, 1, rows.block * columns.block)


def _add_outside(output: Tensor, log_sum: Tensor, size: int, window: int) -> None:
    """Give positions outside the map their share of the softmax, in place: score 0, value 0.

    They are all alike, so that it is enough to count them; they need not be stored or scored.

    Args:
        output: (B, h, w, Cv), without them.
        log_sum: (B, h, w), without them.
        size: S.
        window: side of the window in cells.
    """
    _, height, width = log_sum.shape
    rows, columns = (_inside(length, window // 2, log_sum) for length in (height, width))
    outside = size * (window**2 - rows[:, None] * columns)
    shared = torch.logaddexp(log_sum, outside.log())
    output.mul_((log_sum - shared).exp().unsqueeze(-1))
    log_sum.copy_(shared)


def _inside(length: int, radius: int, like: Tensor) -> Tensor:
    """(length,): how many cells of each cell's window lie on the map, along one axis."""
    cells = torch.arange(length, device=like.device)
    inside = (cells + radius).clamp(max=length - 1) - (cells - radius).clamp(min=0) + 1
    return inside.to(like.dtype)


def _exp2_(scores: Tensor) -> Tensor:
    """2 to the power of scores that are at most 0, in place; weights too small to count become 0.

    Peaked attention has weights in the denormal range, and those slow the exponential and the products after
    it five- to tenfold on a CPU. The weights of a row sum to 1 or more, so that 2⁻¹⁰⁰ (2⁻¹⁰⁰⁰ in
    float64) adds nothing.
    """
    smallest = -1000.0 if scores.dtype == torch.float64 else -100.0
    return torch.threshold_(scores, smallest, -torch.inf).exp2_()
