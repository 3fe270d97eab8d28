// The way through the map, block by block, shared by forward and backward.
#pragma once

#include "buffers.hpp"
#include "micro.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr double kLog2E = 1.4426950408889634;  // scores are kept in base 2
constexpr double kLn2 = 0.6931471805599453;

// Rows of a piece: their weights stay in a core's first cache, with the cells they meet passing through it.
constexpr int64_t kPieceRows = 12;
constexpr int64_t kPieceWeights = kPieceRows * kRowWeights;

// Blocks of one strip of the map below each other are one task: what they reach overlaps and stays in the cache.
constexpr int64_t kTaskRows = 16;

// A task goes through a few frames with all of its blocks, then through the next few: more than these would not stay in
// the cache from one block to the next.
constexpr int64_t kFrameGroup = 4;

// A map in tasks: strips of kBlock columns, each in parts of kTaskRows rows.
inline int64_t task_parts(const Problem& p) { return (p.height + kTaskRows - 1) / kTaskRows; }
inline int64_t task_count(const Problem& p) { return (p.width + kBlock - 1) / kBlock * task_parts(p); }

struct Task {
  int64_t column, row, end_row;

  Task(const Problem& p, int64_t i)
      : column(i / task_parts(p) * kBlock),
        row(i % task_parts(p) * kTaskRows),
        end_row(smaller_of(row + kTaskRows, p.height)) {}
};

// The cells of a block that are on the map.
inline int64_t block_cells(const Problem& p, int64_t column) { return smaller_of(kBlock, p.width - column); }

// A block's channels as `dots` takes them, (channels, kBlock), times a factor; zeros for cells beyond the map.
template <class T, class S>
void take_block(const Problem& p, const Map& map, int64_t b, int64_t s, int64_t y, int64_t x, int64_t channels,
                T factor, T* block) {
  const int64_t count = block_cells(p, x);
  for (int64_t q = 0; q < kBlock; ++q) {
    const S* cell = at<S>(map, b, s, y, x) + q * map.column;
    for (int64_t c = 0; c < channels; ++c) {
      block[c * kBlock + q] = q < count ? factor * widened(cell[c * map.channel]) : T(0);
    }
  }
}

// Write cells' sums (count, pitch) times a factor to an output (count, channels).
template <class T, class S>
void put_cells(const T* sums, int64_t pitch, T factor, int64_t count, int64_t channels, S* to) {
  for (int64_t q = 0; q < count; ++q) {
    for (int64_t c = 0; c < channels; ++c) narrow(factor * sums[q * pitch + c], to + q * channels + c);
  }
}

inline int64_t first_row(const Problem& p, int64_t row) { return larger_of(row - p.radius, 0); }
inline int64_t end_row(const Problem& p, int64_t row) { return smaller_of(row + p.radius + 1, p.height); }

struct Range {
  int64_t first, end;
};

// Call work(columns, panel, rows) for each piece, of at most `piece_rows` rows, of what a block reaches within the rows
// `reached`, with the piece's limits filled.
template <class T, class Work>
LMANET_INLINE void for_each_piece(const Problem& p, int64_t block_column, const Range& reached, int64_t piece_rows,
                                  T* limits, const Work& work) {
  const int64_t reach_end = smaller_of(block_column + kBlock + p.radius, p.width);
  const int64_t reach_first = block_column / kBlock - p.radius / kBlock;
  const int64_t beyond = larger_of(kFirstPanel - reach_first, 0);  // panels of it that are not on the map
  for (int64_t n = reach_first + rounded_up(beyond, kPieceBlocks);; n += kPieceBlocks) {
    const int64_t first = panel_column(p, n), left = reach_end - first;
    if (left <= 0) return;
    // The next piece begins whole blocks further on, the last one takes what there is.
    const Columns columns{first, larger_of(-first, 0), left <= kPitch ? left : kPieceBlocks * kBlock,
                          first - (block_column - p.radius), p.radius};
    if (columns.from >= columns.end) continue;
    fill_limits<T>(columns, limits);
    for (int64_t from = reached.first; from < reached.end; from += piece_rows) {
      work(columns, n, Range{from, smaller_of(from + piece_rows, reached.end)});
    }
    if (left <= kPitch) return;
  }
}

}  // namespace lmanet::LMANET_VARIANT
