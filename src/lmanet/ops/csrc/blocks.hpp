// The way through the map, block by block, shared by forward and backward.
#pragma once

#include "buffers.hpp"
#include "micro.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr double kLog2E = 1.4426950408889634;  // scores are kept in base 2
constexpr double kLn2 = 0.6931471805599453;

// Rows of a piece: their weights stay in a core's first cache, with the cells they meet passing through it.
constexpr int64_t kPieceRows = 24;
constexpr int64_t kPieceWeights = kPieceRows * kRowWeights;

// Blocks of one strip of the map below each other are one task: their segments overlap and stay in the cache.
constexpr int64_t kTaskRows = 32;

struct Tasks {
  int64_t maps, strips, parts;  // of each map: strips of kBlock columns, each in parts of kTaskRows rows

  Tasks(const Problem& p, int64_t maps)
      : maps(maps),
        strips((p.width + kBlock - 1) / kBlock),
        parts((p.height + kTaskRows - 1) / kTaskRows) {}

  int64_t count() const { return maps * strips * parts; }
};

struct Task {
  int64_t map, column, row, end_row;

  Task(const Problem& p, const Tasks& tasks, int64_t i)
      : map(i / (tasks.strips * tasks.parts)),
        column(i / tasks.parts % tasks.strips * kBlock),
        row(i % tasks.parts * kTaskRows),
        end_row(smaller_of(row + kTaskRows, p.height)) {}
};

// The cells of a block that are on the map.
inline int64_t block_cells(const Problem& p, int64_t column) { return smaller_of(kBlock, p.width - column); }

// A block's channels as `dots` takes them, (channels, kBlock), times a factor; zeros for cells beyond the map.
template <class T, class S>
void take_block(const Problem& p, const Map& map, int64_t b, int64_t s, int64_t y, int64_t x, int64_t channels,
                T factor, T* block) {
  const S* cells = at<S>(map, b, s, y, x);
  const int64_t count = block_cells(p, x);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t q = 0; q < kBlock; ++q) {
      block[c * kBlock + q] = q < count ? factor * widened(cells[c * map.channel + q * map.column]) : T(0);
    }
  }
}

// Write a block of sums (kBlock, pitch) times a factor to an output (…, w, channels).
template <class T, class S>
void put_block(const Problem& p, const T* sums, int64_t pitch, T factor, int64_t column, int64_t channels, S* row) {
  const int64_t count = block_cells(p, column);
  for (int64_t q = 0; q < count; ++q) {
    for (int64_t c = 0; c < channels; ++c) {
      narrow(factor * sums[q * pitch + c], row + (column + q) * channels + c);
    }
  }
}

inline int64_t first_row(const Problem& p, int64_t row) { return larger_of(row - p.radius, 0); }
inline int64_t end_row(const Problem& p, int64_t row) { return smaller_of(row + p.radius + 1, p.height); }

// Call work(columns, first row, rows) for each piece of what a block reaches, with the piece's limits filled.
template <class T, class Work>
LMANET_INLINE void for_each_piece(const Problem& p, int64_t block_column, int64_t y, T* limits, const Work& work) {
  for (int64_t n = 0;; ++n) {
    const Columns columns = columns_of(block_column, p.radius, p.width, n);
    if (columns.count <= 0) return;
    fill_limits<T>(columns, limits);
    for (int64_t from = first_row(p, y); from < end_row(p, y); from += kPieceRows) {
      work(columns, from, smaller_of(kPieceRows, end_row(p, y) - from));
    }
  }
}

}  // namespace lmanet::LMANET_VARIANT
