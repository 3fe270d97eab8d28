// The two inner loops, of forward and backward alike. A block is kBlock neighbouring cells of a row; it meets the
// rows of a map that its windows reach, of each row the columns that any of its windows reaches: a segment.
//
//   dots:       products of the block's cells with the segment's, over channels (scores; gradients of the weights)
//   accumulate: sums of the segment's cells, weighted for each cell of the block (readings; gradients)
#pragma once

#include "buffers.hpp"
#include "vec.hpp"

namespace lmanet::LMANET_VARIANT {

#define LMANET_INLINE inline __attribute__((always_inline))

// The columns of a segment. Relative to the window of the block's first cell they run from `skipped` (what the map's
// border cut off) on; cell q's window is the columns q to q + 2 · radius of that count.
struct Segment {
  int64_t first;    // column on the map
  int64_t columns;  // how many
  int64_t skipped;
  int64_t radius;
};

inline Segment segment_of(int64_t block_column, int64_t radius, int64_t width) {
  const int64_t first = larger_of(block_column - radius, 0);
  const int64_t last = smaller_of(block_column + kBlock - 1 + radius, width - 1);
  return {first, last - first + 1, first - (block_column - radius), radius};
}

// +∞ where a column is in a cell's window and −∞ elsewhere, (kBlock, pitch).
template <class T>
void fill_limits(const Segment& segment, int64_t pitch, T* limits) {
  for (int q = 0; q < kBlock; ++q) {
    for (int64_t j = 0; j < pitch; ++j) {
      const int64_t position = segment.skipped + j;
      const bool seen = j < segment.columns && position >= q && position <= q + 2 * segment.radius;
      limits[q * pitch + j] = seen ? kInfinity<T> : -kInfinity<T>;
    }
  }
}

// Where the sums of `dots` start (nothing: at 0), and what they are limited by (nothing: by nothing).
template <class T>
struct DotOptions {
  const T* block_start = nullptr;   // (kBlock): taken off
  const T* column_start = nullptr;  // (columns): taken off
  const T* limits = nullptr;        // (kBlock, pitch)
};

template <class T, int kVectors>
LMANET_INLINE void dots_of_vectors(const T* block, const T* segment, int64_t segment_pitch, int64_t channels,
                                   const DotOptions<T>& options, int64_t column, T* to, int64_t pitch) {
  constexpr int L = kLanes<T>;
  Vector<T> sums[kBlock][kVectors];
#pragma GCC unroll 8
  for (int q = 0; q < kBlock; ++q) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[q][v] = Vector<T>{};
  }
  for (int64_t c = 0; c < channels; ++c) {
    const T* row = segment + c * segment_pitch + column;
    Vector<T> cells[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) cells[v] = load<T>(row + v * L);
#pragma GCC unroll 8
    for (int q = 0; q < kBlock; ++q) {
      const Vector<T> factor = broadcast<T>(block[c * kBlock + q]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[q][v] += factor * cells[v];
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const int64_t j = column + v * L;
    if (options.column_start) {
      const Vector<T> start = load<T>(options.column_start + j);
#pragma GCC unroll 8
      for (int q = 0; q < kBlock; ++q) sums[q][v] -= start;
    }
#pragma GCC unroll 8
    for (int q = 0; q < kBlock; ++q) {
      Vector<T> sum = sums[q][v];
      if (options.block_start) sum -= options.block_start[q];
      if (options.limits) sum = limited<T>(sum, load<T>(options.limits + q * pitch + j));
      store<T>(to + q * pitch + j, sum);
    }
  }
}

// to (kBlock, pitch) = block (channels, kBlock)ᵀ · segment (channels, columns). `pitch` is whole vectors; the segment
// is followed by enough to read whole vectors of it.
template <class T>
inline void dots(const T* block, const T* segment, int64_t segment_pitch, int64_t channels,
                 const DotOptions<T>& options, T* to, int64_t pitch) {
  constexpr int L = kLanes<T>;
  int64_t column = 0;
  for (; column + 2 * L <= pitch; column += 2 * L) {
    dots_of_vectors<T, 2>(block, segment, segment_pitch, channels, options, column, to, pitch);
  }
  if (column < pitch) dots_of_vectors<T, 1>(block, segment, segment_pitch, channels, options, column, to, pitch);
}

// One column's share for the cells kFrom to kTo − 1 of the block.
template <class T, int kVectors, int kFrom, int kTo>
LMANET_INLINE void add_column(Vector<T> (&sums)[kBlock][kVectors], const T* weights, int64_t pitch, const T* cell) {
  Vector<T> channels[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) channels[v] = load<T>(cell + v * kLanes<T>);
#pragma GCC unroll 8
  for (int q = kFrom; q < kTo; ++q) {
    const Vector<T> weight = broadcast<T>(weights[q * pitch]);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[q][v] += weight * channels[v];
  }
}

// The first columns of a segment lie in the windows of the block's first cells only …
template <class T, int kVectors, int kCells>
LMANET_INLINE void add_head(Vector<T> (&sums)[kBlock][kVectors], const Segment& segment, const T* weights,
                            int64_t pitch, const T* cells, int64_t cell_pitch) {
  if constexpr (kCells < kBlock) {
    const int64_t j = kCells - 1 - segment.skipped;
    if (j >= 0 && j < segment.columns) {
      add_column<T, kVectors, 0, kCells>(sums, weights + j, pitch, cells + j * cell_pitch);
    }
    add_head<T, kVectors, kCells + 1>(sums, segment, weights, pitch, cells, cell_pitch);
  }
}

// … and the last ones in those of its last cells.
template <class T, int kVectors, int kFrom>
LMANET_INLINE void add_tail(Vector<T> (&sums)[kBlock][kVectors], const Segment& segment, const T* weights,
                            int64_t pitch, const T* cells, int64_t cell_pitch) {
  if constexpr (kFrom < kBlock) {
    const int64_t j = 2 * segment.radius + kFrom - segment.skipped;
    if (j >= segment.columns) return;
    if (j >= 0) add_column<T, kVectors, kFrom, kBlock>(sums, weights + j, pitch, cells + j * cell_pitch);
    add_tail<T, kVectors, kFrom + 1>(sums, segment, weights, pitch, cells, cell_pitch);
  }
}

// Segments one below the other: their weights (rows, kBlock, pitch), and their first cells.
template <class T>
struct Segments {
  Segment segment;
  int64_t rows;
  const T* weights;
  int64_t pitch;
  const T* cells;
  int64_t row_pitch, cell_pitch;
};

template <class T, int kVectors>
void accumulate_channels(const Segments<T>& in, int64_t channel, T* to, int64_t to_pitch) {
  Vector<T> sums[kBlock][kVectors];
#pragma GCC unroll 8
  for (int q = 0; q < kBlock; ++q) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[q][v] = load<T>(to + q * to_pitch + channel + v * kLanes<T>);
  }
  const Segment& segment = in.segment;
  const int64_t whole_from = larger_of(kBlock - 1 - segment.skipped, 0);
  const int64_t whole_to = smaller_of(2 * segment.radius + 1 - segment.skipped, segment.columns);
  for (int64_t row = 0; row < in.rows; ++row) {
    const T* weights = in.weights + row * kBlock * in.pitch;
    const T* cells = in.cells + row * in.row_pitch + channel;
    add_head<T, kVectors, 1>(sums, segment, weights, in.pitch, cells, in.cell_pitch);
    for (int64_t j = whole_from; j < whole_to; ++j) {
      add_column<T, kVectors, 0, kBlock>(sums, weights + j, in.pitch, cells + j * in.cell_pitch);
    }
    add_tail<T, kVectors, 1>(sums, segment, weights, in.pitch, cells, in.cell_pitch);
  }
#pragma GCC unroll 8
  for (int q = 0; q < kBlock; ++q) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store<T>(to + q * to_pitch + channel + v * kLanes<T>, sums[q][v]);
  }
}

// Windows narrower than the block: no column is in all of them, so each cell goes through its own.
template <class T>
void accumulate_narrow(const Segments<T>& in, int64_t channels, T* to, int64_t to_pitch) {
  const Segment& segment = in.segment;
  for (int q = 0; q < kBlock; ++q) {
    const int64_t from = larger_of(q - segment.skipped, 0);
    const int64_t end = smaller_of(q + 2 * segment.radius + 1 - segment.skipped, segment.columns);
    for (int64_t channel = 0; channel < channels; channel += kLanes<T>) {
      Vector<T> sum = load<T>(to + q * to_pitch + channel);
      for (int64_t row = 0; row < in.rows; ++row) {
        const T* weights = in.weights + (row * kBlock + q) * in.pitch;
        const T* cells = in.cells + row * in.row_pitch + channel;
        for (int64_t j = from; j < end; ++j) sum += weights[j] * load<T>(cells + j * in.cell_pitch);
      }
      store<T>(to + q * to_pitch + channel, sum);
    }
  }
}

// to (kBlock, to_pitch) += weights · cells, for `channels` channels, a multiple of the vector's lanes.
template <class T>
inline void accumulate(const Segments<T>& in, int64_t channels, T* to, int64_t to_pitch) {
  constexpr int L = kLanes<T>;
  if (2 * in.segment.radius < kBlock - 1) return accumulate_narrow<T>(in, channels, to, to_pitch);
  int64_t channel = 0;
  for (; channel + 2 * L <= channels; channel += 2 * L) accumulate_channels<T, 2>(in, channel, to, to_pitch);
  if (channel < channels) accumulate_channels<T, 1>(in, channel, to, to_pitch);
}

}  // namespace lmanet::LMANET_VARIANT
