// How tiles read the memory, in bfloat16.
//
// Tiles multiply whole pieces, also where weights are 0: a value that is not finite spoils all readings of the cells
// whose pieces it lies in, where `VectorReader` would spoil those whose windows do.
#pragma once

#include "forward.hpp"
#include "tiles.hpp"

namespace lmanet::LMANET_VARIANT {

// Values (S, h, pairs of columns, channels), with a margin of zeros at both ends of each row. Pairs begin where panels
// can begin.
struct ValuePairs {
  const Pair* data;
  int64_t frame, row, channels, shift;

  const Pair* at(int64_t s, int64_t y, int64_t column) const {
    return data + s * frame + y * row + (column + kMargin + shift) / 2 * channels;
  }
};

inline int64_t value_row_pairs(const Problem& p) { return padded_width(p) / 2 + 1; }

inline int64_t value_pairs_size(const Problem& p) {
  return p.frames * p.height * value_row_pairs(p) * rounded_up(p.value_channels, kTileWidth);
}

// Must be called by all threads of a parallel region.
inline ValuePairs pack_value_pairs(const Problem& p, const Map& values, int64_t b, Pair* buffer) {
  const int64_t channels = rounded_up(p.value_channels, kTileWidth), row = value_row_pairs(p) * channels;
  const ValuePairs pairs{buffer, p.height * row, row, channels, p.radius % kBlock % 2};
#pragma omp for
  for (int64_t i = 0; i < p.frames * p.height; ++i) {
    const int64_t y = i % p.height, s = i / p.height;
    const BFloat16* cells = at<BFloat16>(values, b, s, y, 0);
    for (int64_t n = 0; n < value_row_pairs(p); ++n) {
      Pair* to = buffer + i * row + n * channels;
      const int64_t x = 2 * n - kMargin - pairs.shift;
      fill_zeros(to, channels);
      const bool first = x >= 0 && x < p.width, second = x + 1 >= 0 && x + 1 < p.width;
      if (first && second && values.channel == 1) {  // the common case, for the compiler to vectorise
        const BFloat16 *one = cells + x * values.column, *other = one + values.column;
        for (int64_t c = 0; c < p.value_channels; ++c) to[c] = pair_of(one[c], other[c]);
      } else {
        for (int64_t c = 0; c < p.value_channels; ++c) {
          const BFloat16* from = cells + c * values.channel;
          to[c] = pair_of(first ? from[x * values.column] : BFloat16{0},
                          second ? from[(x + 1) * values.column] : BFloat16{0});
        }
      }
    }
  }
  return pairs;
}

// Two rows of a block of queries, (16, all pairs), times −1 if need be so that the factor on the scores is positive.
inline void take_query_pairs(const Problem& p, const Map& query, int64_t b, int64_t y, int64_t x, Pair* pairs) {
  const uint16_t sign = p.scale < 0 ? 0x8000 : 0;
  const auto take = [&](const BFloat16* cell, int64_t c) {
    if (c >= p.key_channels) return BFloat16{0};
    return BFloat16{static_cast<uint16_t>(cell[c * query.channel].bits ^ sign)};
  };
  fill_zeros(pairs, kTileRows * all_key_pairs(p));
  for (int64_t i = 0; i < smaller_of(kPairRows, p.height - y); ++i) {
    for (int64_t q = 0; q < block_cells(p, x); ++q) {
      const BFloat16* cell = at<BFloat16>(query, b, 0, y + i, x + q);
      Pair* to = pairs + (i * kBlock + q) * all_key_pairs(p);
      for (int64_t n = 0; n < (p.key_channels + 1) / 2; ++n) to[n] = pair_of(take(cell, 2 * n), take(cell, 2 * n + 1));
    }
  }
}

// A `Reader` of forward.hpp.
class TileReader {
 public:
  using Computed = float;
  using Stored = BFloat16;
  static constexpr int64_t kRows = kPairRows;

  struct Memory {
    static constexpr int64_t kWeightsSize = kPieceRows * kTileRows * kPitch / 2;
    static constexpr int64_t kScoresSize = kPieceRows * kTileRows * kPitch;
    const int64_t pairs, row_size, query_size, thread_size;
    Buffer<Pair> keys, values, threads;
    Buffer<float> scores;

    Memory(const Problem& p, const Map&)
        : pairs(all_key_pairs(p)),
          row_size(rounded_up(pairs * padded_width(p), kTileWidth)),
          query_size(kTileRows * pairs),
          thread_size(row_size + query_size + kWeightsSize),
          keys(panels_size<Pair>(p, p.frames, pairs)),
          values(value_pairs_size(p)),
          threads(p.threads * thread_size),
          scores(p.threads * kScoresSize) {}

    bool allocated() const { return keys.data && values.data && threads.data && scores.data; }
  };

  struct Packed {
    Panels<Pair> keys;
    ValuePairs values;
  };

  TileReader(const Problem& problem, const Memory& memory, int thread, const float*)
      : p(problem),
        memory(memory),
        pairs(memory.pairs),
        factor(static_cast<float>((p.scale < 0 ? -p.scale : p.scale) * kLog2E)),
        row(memory.threads.data + thread * memory.thread_size),
        queries(row + memory.row_size),
        weights(queries + memory.query_size),
        scores(memory.scores.data + thread * Memory::kScoresSize) {
    fill_zeros(row, memory.row_size);
    configure_tiles(key_pairs(p));
  }
  ~TileReader() { _tile_release(); }
  TileReader(const TileReader&) = delete;
  TileReader& operator=(const TileReader&) = delete;

  LMANET_INLINE Packed pack(const Map& keys, const Map& values, int64_t b) {
    const auto pair_at = [&](const BFloat16* cell, int64_t n) {
      const BFloat16* first = cell + 2 * n * keys.channel;
      if (2 * n + 1 < p.key_channels) return pair_of(first[0], first[keys.channel]);
      return 2 * n < p.key_channels ? pair_of(first[0], BFloat16{0}) : Pair{0};
    };
    const Part key_part{keys, b, 0, p.frames, pairs};
    return {pack_panels<Pair, BFloat16>(p, key_part, row, memory.keys.data, pair_at),
            pack_value_pairs(p, values, b, memory.values.data)};
  }

  LMANET_INLINE void take(const Map& query, int64_t b, int64_t y, int64_t x) {
    first_query_row = y;
    take_query_pairs(p, query, b, y, x, queries);
  }

  LMANET_INLINE void read(const Packed& packed, const Range& frames, const Columns& columns, int64_t panel,
                          const Range& rows, const Readings<float>& to) {
    const Seen seen(columns);
    const int64_t count = rows.end - rows.first;
    for (int64_t s = frames.first; s < frames.end; ++s) {
      for (int64_t i = 0; i < count; ++i) {
        tile_dots(queries, packed.keys.at(s, panel, rows.first + i), key_pairs(p), pairs,
                  scores + i * kTileRows * kPitch);
      }
      for (int64_t k = 0; k < kPairRows; ++k) {
        // Of the rows those that this row of queries sees.
        const int64_t y = first_query_row + k, block = k * kBlock * kPitch;
        const int64_t first = smaller_of(larger_of(first_row(p, y) - rows.first, 0), count);
        const int64_t end = larger_of(smaller_of(end_row(p, y) - rows.first, count), first);
        const Readings<float> of_row = to.below(k);
        tile_soften(scores + block, count, first, end, seen, factor, *of_row.softmax, of_row.sums, to.channels,
                    weights + block / 2);
      }
      tile_accumulate(weights, packed.values.at(s, rows.first, columns.first), packed.values.row, count, to.channels,
                      to.sums);
    }
  }

 private:
  const Problem& p;
  const Memory& memory;
  const int64_t pairs;  // of key channels
  const float factor;   // on the scores; their sign is the queries'
  Pair *const row, *const queries, *const weights;
  float* const scores;
  int64_t first_query_row = 0;
};

}  // namespace lmanet::LMANET_VARIANT
