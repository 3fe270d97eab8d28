// The two inner loops, of forward and backward alike. A block is kBlock neighbouring cells of a row; it meets what its
// windows reach of a map in pieces of at most kPitch columns. For a row of a piece and a block there are kBlock ×
// kPitch weights:
//
//   dots:       products of the block's cells with a row's, over channels (scores; gradients of the weights)
//   accumulate: sums of a piece's cells, weighted for each cell of the block (readings; gradients)
#pragma once

#include "buffers.hpp"
#include "vec.hpp"

namespace lmanet::LMANET_VARIANT {

// The columns of a piece. Counted from where the window of the block's first cell begins, on the map or beyond it, they
// start at `skipped`; cell q's window is q to q + 2 · radius of that count.
struct Columns {
  int64_t first;      // on the map; may lie left of it
  int64_t from, end;  // those on the map that the block reaches, counted from `first`
  int64_t skipped;
  int64_t radius;
};

// +∞ where a column is in a cell's window and −∞ elsewhere, (kBlock, kPitch).
template <class T>
void fill_limits(const Columns& columns, T* limits) {
  for (int q = 0; q < kBlock; ++q) {
    for (int64_t j = 0; j < kPitch; ++j) {
      const int64_t position = columns.skipped + j;
      const bool seen = j >= columns.from && j < columns.end && position >= q && position <= q + 2 * columns.radius;
      limits[q * kPitch + j] = seen ? kInfinity<T> : -kInfinity<T>;
    }
  }
}

// What is taken off the sums of `dots` (nothing: nothing), and what they are limited by (nothing: by nothing).
template <class T>
struct DotOptions {
  const T* off_block = nullptr;    // (kBlock)
  const T* off_columns = nullptr;  // (kPitch)
  const T* limits = nullptr;       // (kBlock, kPitch)
};

template <class T, int kVectors>
LMANET_INLINE void dots_of_vectors(const T* block, const T* row, int64_t channels, const DotOptions<T>& options,
                                   int64_t column, T* to) {
  constexpr int L = kLanes<T>;
  Vector<T> sums[kBlock][kVectors];
#pragma GCC unroll 16
  for (int q = 0; q < kBlock; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[q][v] = Vector<T>{};
  }
  for (int64_t c = 0; c < channels; ++c) {
    Vector<T> cells[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) cells[v] = load<T>(row + c * kPitch + column + v * L);
#pragma GCC unroll 16
    for (int q = 0; q < kBlock; ++q) {
      const Vector<T> factor = broadcast<T>(block[c * kBlock + q]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[q][v] += factor * cells[v];
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t j = column + v * L;
    if (options.off_columns) {
      const Vector<T> off = load<T>(options.off_columns + j);
#pragma GCC unroll 16
      for (int q = 0; q < kBlock; ++q) sums[q][v] -= off;
    }
    if (options.off_block) {
#pragma GCC unroll 16
      for (int q = 0; q < kBlock; ++q) sums[q][v] -= options.off_block[q];
    }
    if (options.limits) {
#pragma GCC unroll 16
      for (int q = 0; q < kBlock; ++q) {
        sums[q][v] = limited<T>(sums[q][v], load<T>(options.limits + q * kPitch + j));
      }
    }
#pragma GCC unroll 16
    for (int q = 0; q < kBlock; ++q) store<T>(to + q * kPitch + j, sums[q][v]);
  }
}

// to (kBlock, kPitch) = block (channels, kBlock)ᵀ · row (channels, kPitch), for whole vectors up to column `end`.
template <class T>
inline void dots(const T* block, const T* row, int64_t channels, int64_t end, const DotOptions<T>& options, T* to) {
  constexpr int L = kLanes<T>;
  int64_t column = 0;
  for (; column + L < end; column += 2 * L) dots_of_vectors<T, 2>(block, row, channels, options, column, to);
  if (column < end) dots_of_vectors<T, 1>(block, row, channels, options, column, to);
}

template <class T, int kCells, int kVectors>
using Sums = Vector<T>[kCells][kVectors];

// One column's share for the cells kFrom to kEnd − 1.
template <class T, int kCells, int kVectors, int kFrom, int kEnd>
LMANET_INLINE void add_column(Sums<T, kCells, kVectors>& sums, const T* weights, const T* cell, int64_t row_pitch) {
  Vector<T> channels[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    channels[v] = load<T>(cell + v * kLanes<T>);
    __builtin_prefetch(cell + row_pitch + v * kLanes<T>);
  }
#pragma GCC unroll 16
  for (int q = kFrom; q < kEnd; ++q) {
    const Vector<T> weight = broadcast<T>(weights[q * kPitch]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[q][v] += weight * channels[v];
  }
}

// The first columns that the cells reach lie in the windows of the first of them only …
template <class T, int kCells, int kVectors, bool kInside, int kEnd>
LMANET_INLINE void add_head(Sums<T, kCells, kVectors>& sums, const Columns& columns, const T* weights, const T* cells,
                            int64_t cell_pitch, int64_t row_pitch) {
  if constexpr (kEnd < kCells) {
    const int64_t j = kEnd - 1 - columns.skipped;
    if (kInside || (j >= columns.from && j < columns.end)) {
      add_column<T, kCells, kVectors, 0, kEnd>(sums, weights + j, cells + j * cell_pitch, row_pitch);
    }
    add_head<T, kCells, kVectors, kInside, kEnd + 1>(sums, columns, weights, cells, cell_pitch, row_pitch);
  }
}

// … and the last ones in those of the last.
template <class T, int kCells, int kVectors, bool kInside, int kFrom>
LMANET_INLINE void add_tail(Sums<T, kCells, kVectors>& sums, const Columns& columns, const T* weights, const T* cells,
                            int64_t cell_pitch, int64_t row_pitch) {
  if constexpr (kFrom < kCells) {
    const int64_t j = 2 * columns.radius + kFrom - columns.skipped;
    if (kInside || (j >= columns.from && j < columns.end)) {
      add_column<T, kCells, kVectors, kFrom, kCells>(sums, weights + j, cells + j * cell_pitch, row_pitch);
    }
    add_tail<T, kCells, kVectors, kInside, kFrom + 1>(sums, columns, weights, cells, cell_pitch, row_pitch);
  }
}

// The rows of a piece: their weights (rows, kBlock, kPitch), and the first one's cell at column `first`, which is not
// read where it is not on the map.
template <class T>
struct Piece {
  Columns columns;
  int64_t rows;
  const T* weights;
  const T* cells;
  int64_t row_pitch, cell_pitch;
};

// For kCells cells from `first_cell` on, and kVectors of their channels. kInside: all that their windows reach is in
// the piece.
template <class T, int kCells, int kVectors, bool kInside>
void accumulate_vectors(const Piece<T>& piece, int64_t first_cell, int64_t channel, T* to, int64_t to_pitch) {
  Sums<T, kCells, kVectors> sums;
  T* to_cell = to + first_cell * to_pitch + channel;
#pragma GCC unroll 16
  for (int q = 0; q < kCells; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[q][v] = load<T>(to_cell + q * to_pitch + v * kLanes<T>);
  }
  Columns columns = piece.columns;
  columns.skipped -= first_cell;
  const int64_t cell_pitch = piece.cell_pitch, row_pitch = piece.row_pitch;
  const int64_t whole_from = larger_of(kCells - 1 - columns.skipped, columns.from);
  const int64_t whole_end = smaller_of(2 * columns.radius + 1 - columns.skipped, columns.end);
  for (int64_t row = 0; row < piece.rows; ++row) {
    const T* weights = piece.weights + row * kRowWeights + first_cell * kPitch;
    const T* cells = piece.cells + row * row_pitch + channel;
    add_head<T, kCells, kVectors, kInside, 1>(sums, columns, weights, cells, cell_pitch, row_pitch);
    for (int64_t j = whole_from; j < whole_end; ++j) {
      add_column<T, kCells, kVectors, 0, kCells>(sums, weights + j, cells + j * cell_pitch, row_pitch);
    }
    add_tail<T, kCells, kVectors, kInside, 1>(sums, columns, weights, cells, cell_pitch, row_pitch);
  }
#pragma GCC unroll 16
  for (int q = 0; q < kCells; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store<T>(to_cell + q * to_pitch + v * kLanes<T>, sums[q][v]);
  }
}

template <class T, int kCells, int kVectors>
inline void accumulate_cells(const Piece<T>& piece, int64_t channel, T* to, int64_t to_pitch) {
  const Columns& columns = piece.columns;
  for (int64_t cell = 0; cell < kBlock; cell += kCells) {
    const int64_t first = cell - columns.skipped, end = first + 2 * columns.radius + kCells;
    if (first >= columns.from && end <= columns.end) {
      accumulate_vectors<T, kCells, kVectors, true>(piece, cell, channel, to, to_pitch);
    } else {
      accumulate_vectors<T, kCells, kVectors, false>(piece, cell, channel, to, to_pitch);
    }
  }
}

// Windows so narrow that no column is in those of half a block: each cell goes through its own.
template <class T>
void accumulate_narrow(const Piece<T>& piece, int64_t channels, T* to, int64_t to_pitch) {
  const Columns& columns = piece.columns;
  for (int q = 0; q < kBlock; ++q) {
    const int64_t from = larger_of(q - columns.skipped, columns.from);
    const int64_t end = smaller_of(q + 2 * columns.radius + 1 - columns.skipped, columns.end);
    for (int64_t channel = 0; channel < channels; channel += kLanes<T>) {
      Vector<T> sum = load<T>(to + q * to_pitch + channel);
      for (int64_t row = 0; row < piece.rows; ++row) {
        const T* weights = piece.weights + row * kRowWeights + q * kPitch;
        const T* cells = piece.cells + row * piece.row_pitch + channel;
        for (int64_t j = from; j < end; ++j) sum += weights[j] * load<T>(cells + j * piece.cell_pitch);
      }
      store<T>(to + q * to_pitch + channel, sum);
    }
  }
}

// to (kBlock, to_pitch) += weights · cells, for `channels` channels, a multiple of the vector's lanes.
template <class T>
inline void accumulate(const Piece<T>& piece, int64_t channels, T* to, int64_t to_pitch) {
  constexpr int L = kLanes<T>, kHalf = kBlock / 2;
  static_assert(kBlock % 2 == 0);
  const int64_t wide = 2 * piece.columns.radius + 1;
  if (wide < kHalf) return accumulate_narrow<T>(piece, channels, to, to_pitch);
  int64_t channel = 0;
  // As many sums as there are registers; and more channels rather than more cells, as less is loaded for each.
  if constexpr (kBlock == 12) {
    for (; channel + 4 * L <= channels; channel += 4 * L) accumulate_cells<T, kHalf, 4>(piece, channel, to, to_pitch);
  }
  if (wide >= kBlock) {
    for (; channel + 2 * L <= channels; channel += 2 * L) accumulate_cells<T, kBlock, 2>(piece, channel, to, to_pitch);
  }
  for (; channel + 2 * L <= channels; channel += 2 * L) accumulate_cells<T, kHalf, 2>(piece, channel, to, to_pitch);
  for (; channel < channels; channel += L) accumulate_cells<T, kHalf, 1>(piece, channel, to, to_pitch);
}

}  // namespace lmanet::LMANET_VARIANT
