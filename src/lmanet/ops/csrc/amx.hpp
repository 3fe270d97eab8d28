// Local attention forward in bfloat16 by AMX: a tile instruction multiplies 16 × 32 by 32 × 16 bfloat16 and adds up in
// float32. Queries come 16 at a time, two blocks below each other; keys and weights meet them as in forward.hpp.
//
// Tiles multiply whole pieces, also where weights are 0: a value that is not finite spoils all readings of the cells
// whose pieces it lies in, where the other kernels would spoil those whose windows do.
#pragma once

#include <omp.h>

#include "blocks.hpp"
#include "forward.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr int kTileRows = 16;   // of each tile, 64 bytes wide
constexpr int kTileWidth = 16;  // float32, or pairs of bfloat16
constexpr int kPairRows = 2;    // rows of queries in a tile
constexpr int64_t kTilePieceRows = 12;
static_assert(kTaskRows % kPairRows == 0);
static_assert(kPairRows * kBlock == kTileRows && kPitch == 2 * kTileWidth);

// Two bfloat16, as tiles multiply them: neighbouring channels of a key, or neighbouring columns of a value.
using Pair = uint32_t;

inline Pair pair_of(BFloat16 first, BFloat16 second) { return first.bits | static_cast<Pair>(second.bits) << 16; }

// Pairs of key channels that one tile instruction takes: all if they are few, otherwise as many as it can.
inline int64_t key_pairs(const Problem& p) { return smaller_of((p.key_channels + 1) / 2, kTileWidth); }
inline int64_t all_key_pairs(const Problem& p) { return rounded_up((p.key_channels + 1) / 2, key_pairs(p)); }

inline void configure_tiles(int64_t key_pairs) {
  // The layout that LDTILECFG reads (Intel SDM, volume 1, chapter 18).
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } configuration;
  for (int tile = 0; tile < 8; ++tile) {
    configuration.row_bytes[tile] = 64;
    configuration.rows[tile] = kTileRows;
  }
  configuration.row_bytes[4] = static_cast<uint16_t>(4 * key_pairs);  // queries
  configuration.rows[5] = static_cast<uint8_t>(key_pairs);            // keys
  _tile_loadconfig(&configuration);
}

// scores (16, kPitch) = queries (16, pairs) · keys (pairs, kPitch).
inline void tile_dots(const Pair* queries, const Pair* keys, int64_t pairs, int64_t all_pairs, float* scores) {
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t pair = 0; pair < all_pairs; pair += pairs) {
    _tile_loadd(4, queries + pair, all_pairs * sizeof(Pair));
    _tile_loadd(5, keys + pair * kPitch, kPitch * sizeof(Pair));
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, keys + pair * kPitch + kTileWidth, kPitch * sizeof(Pair));
    _tile_dpbf16ps(1, 4, 5);
  }
  _tile_stored(0, scores, kPitch * sizeof(float));
  _tile_stored(1, scores + kTileWidth, kPitch * sizeof(float));
}

// sums (16, pitch) += weights (rows, 16, kPitch) · values (rows, kPitch / 2, pitch) of pairs of columns.
inline void tile_accumulate(const Pair* weights, const Pair* values, int64_t row_pitch, int64_t rows, int64_t pitch,
                            float* sums) {
  constexpr int64_t kRowPairs = kTileRows * kPitch / 2;
  const int64_t bytes = pitch * sizeof(float);
  int64_t c = 0;
  for (; c + 4 * kTileWidth <= pitch; c += 4 * kTileWidth) {
    _tile_loadd(0, sums + c, bytes);
    _tile_loadd(1, sums + c + kTileWidth, bytes);
    _tile_loadd(2, sums + c + 2 * kTileWidth, bytes);
    _tile_loadd(3, sums + c + 3 * kTileWidth, bytes);
    for (int64_t row = 0; row < rows; ++row) {
      const Pair* from = values + row * row_pitch + c;
      _tile_loadd(6, weights + row * kRowPairs, kPitch / 2 * sizeof(Pair));
      _tile_loadd(7, from, bytes);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, from + kTileWidth, bytes);
      _tile_dpbf16ps(1, 6, 7);
      _tile_loadd(7, from + 2 * kTileWidth, bytes);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, from + 3 * kTileWidth, bytes);
      _tile_dpbf16ps(3, 6, 7);
    }
    _tile_stored(0, sums + c, bytes);
    _tile_stored(1, sums + c + kTileWidth, bytes);
    _tile_stored(2, sums + c + 2 * kTileWidth, bytes);
    _tile_stored(3, sums + c + 3 * kTileWidth, bytes);
  }
  for (; c < pitch; c += kTileWidth) {
    _tile_loadd(0, sums + c, bytes);
    for (int64_t row = 0; row < rows; ++row) {
      _tile_loadd(6, weights + row * kRowPairs, kPitch / 2 * sizeof(Pair));
      _tile_loadd(7, values + row * row_pitch + c, bytes);
      _tile_dpbf16ps(0, 6, 7);
    }
    _tile_stored(0, sums + c, bytes);
  }
}

// 2^x within 1e-4, relatively: a weight is rounded to bfloat16, which is forty times coarser.
inline __m512 rough_exp2(__m512 x, __mmask16 counts) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  // Chebyshev interpolation on [−½, ½].
  __m512 power = _mm512_set1_ps(0.055838283f);
  power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(0.24263948f));
  power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(0.69313673f));
  power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(0.99992456f));
  counts = _mm512_mask_cmp_ps_mask(counts, x, _mm512_set1_ps(Exp2<float>::kSmallest), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(counts, power, whole);
}

// Which of a row's columns each query sees, a bit for each; none if the row is not in its window.
struct Seen {
  uint32_t columns[kBlock];

  explicit Seen(const Columns& c) {
    for (int q = 0; q < kBlock; ++q) {
      columns[q] = 0;
      for (int64_t j = c.from; j < c.end; ++j) {
        const int64_t position = c.skipped + j;
        if (position >= q && position <= q + 2 * c.radius) columns[q] |= 1u << j;
      }
    }
  }
};

// As `soften`, for the queries of one row of a tile: their scores (rows, 16, kPitch), times a factor, to bfloat16
// weights laid out alike. `sums` are (kBlock, channels).
inline void tile_soften(const float* scores, int64_t rows, int64_t first_row, int64_t end_row, const Seen& seen,
                        float factor, Softmax<float>& softmax, float* sums, int64_t channels, Pair* weights) {
  constexpr int64_t kScores = kTileRows * kPitch;
  const __m512 factors = _mm512_set1_ps(factor);
  __m512 highest[kBlock];
#pragma GCC unroll 16
  for (int q = 0; q < kBlock; ++q) highest[q] = _mm512_set1_ps(-kInfinity<float>);
  for (int64_t row = first_row; row < end_row; ++row) {
#pragma GCC unroll 16
    for (int q = 0; q < kBlock; ++q) {
      const float* of_query = scores + row * kScores + q * kPitch;
      const __mmask16 low = seen.columns[q] & 0xffff, high = seen.columns[q] >> 16;
      highest[q] = _mm512_mask_max_ps(highest[q], low, highest[q], _mm512_loadu_ps(of_query));
      highest[q] = _mm512_mask_max_ps(highest[q], high, highest[q], _mm512_loadu_ps(of_query + kTileWidth));
    }
  }
  for (int q = 0; q < kBlock; ++q) {
    const float largest = factor * _mm512_reduce_max_ps(highest[q]);
    if (largest > softmax.largest[q]) rescale<float>(softmax, q, largest, sums, channels);
    const __m512 off = _mm512_set1_ps(softmax.largest[q]);
    const __mmask16 low = seen.columns[q] & 0xffff, high = seen.columns[q] >> 16;
    __m512 total = (__m512)softmax.totals[q];
    Pair* to = weights + q * kPitch / 2;
    for (int64_t row = 0; row < first_row; ++row) _mm512_storeu_si512(to + row * kScores / 2, __m512i{});
    for (int64_t row = first_row; row < end_row; ++row) {
      const float* of_query = scores + row * kScores + q * kPitch;
      const __m512 one = rough_exp2(_mm512_fmsub_ps(_mm512_loadu_ps(of_query), factors, off), low);
      const __m512 other = rough_exp2(_mm512_fmsub_ps(_mm512_loadu_ps(of_query + kTileWidth), factors, off), high);
      _mm512_storeu_si512(to + row * kScores / 2, (__m512i)_mm512_cvtne2ps_pbh(other, one));
      total = _mm512_add_ps(total, _mm512_add_ps(one, other));
    }
    for (int64_t row = end_row; row < rows; ++row) _mm512_storeu_si512(to + row * kScores / 2, __m512i{});
    softmax.totals[q] = (Vector<float>)total;
  }
}

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

inline bool forward_by_tiles(const Problem& p, const Map& query, const Map& keys, const Map& values,
                             const Output& output, void* log_sum) {
  const int64_t channels = rounded_up(p.value_channels, kTileWidth), pairs = all_key_pairs(p);
  const int64_t query_size = kTileRows * pairs, row_size = rounded_up(pairs * padded_width(p), kTileWidth);
  const int64_t weights_size = kTilePieceRows * kTileRows * kPitch / 2;
  const int64_t scores_size = kTilePieceRows * kTileRows * kPitch, sums_size = kTaskRows * kBlock * channels;
  Buffer<Pair> key_buffer(panels_size<Pair>(p, p.frames, pairs)), value_buffer(value_pairs_size(p));
  Buffer<Pair> pair_works(p.threads * (query_size + row_size + weights_size));
  Buffer<float> works(p.threads * (scores_size + sums_size + kRowWeights));
  if (!key_buffer.data || !value_buffer.data || !pair_works.data || !works.data) return false;

#pragma omp parallel num_threads(p.threads)
  {
    Pair* row_buffer = pair_works.data + omp_get_thread_num() * (query_size + row_size + weights_size);
    Pair* queries = row_buffer + row_size;
    Pair* weights = queries + query_size;
    float* scores = works.data + omp_get_thread_num() * (scores_size + sums_size + kRowWeights);
    float* task_sums = scores + scores_size;
    float* limits = task_sums + sums_size;
    const float factor = static_cast<float>((p.scale < 0 ? -p.scale : p.scale) * kLog2E);
    fill_zeros(row_buffer, row_size);
    configure_tiles(key_pairs(p));
    for (int64_t b = 0; b < p.batch; ++b) {
      const Part key_part{keys, b, 0, p.frames, pairs};
      const Panels<Pair> panels =
          pack_panels<Pair, BFloat16>(p, key_part, row_buffer, key_buffer.data, [&](const BFloat16* cell, int64_t n) {
            const BFloat16* first = cell + 2 * n * keys.channel;
            if (2 * n + 1 < p.key_channels) return pair_of(first[0], first[keys.channel]);
            return 2 * n < p.key_channels ? pair_of(first[0], BFloat16{0}) : Pair{0};
          });
      const ValuePairs value_pairs = pack_value_pairs(p, values, b, value_buffer.data);

#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < task_count(p); ++i) {
        const Task task(p, i);
        Softmax<float> states[kTaskRows];
        fill_zeros(task_sums, sums_size);
        for (int64_t group = 0; group < p.frames; group += kFrameGroup) {
          for (int64_t y = task.row; y < task.end_row; y += kPairRows) {
            take_query_pairs(p, query, b, y, task.column, queries);
            float* sums = task_sums + (y - task.row) * kBlock * channels;
            const auto read = [&](const Columns& columns, int64_t panel, const Range& rows) {
              const Seen seen(columns);
              const int64_t count = rows.end - rows.first;
              for (int64_t s = group; s < smaller_of(group + kFrameGroup, p.frames); ++s) {
                for (int64_t row = 0; row < count; ++row) {
                  tile_dots(queries, panels.at(s, panel, rows.first + row), key_pairs(p), pairs,
                            scores + row * kTileRows * kPitch);
                }
                for (int64_t k = 0; k < kPairRows; ++k) {
                  // Of the rows those that this row of queries sees.
                  const int64_t block = k * kBlock;
                  const int64_t first = smaller_of(larger_of(first_row(p, y + k) - rows.first, 0), count);
                  const int64_t end = larger_of(smaller_of(end_row(p, y + k) - rows.first, count), first);
                  tile_soften(scores + block * kPitch, count, first, end, seen, factor, states[y - task.row + k],
                              sums + block * channels, channels, weights + block * kPitch / 2);
                }
                tile_accumulate(weights, value_pairs.at(s, rows.first, columns.first), value_pairs.row, count, channels,
                                sums);
              }
            };
            const Range reached{first_row(p, y), end_row(p, smaller_of(y + kPairRows, p.height) - 1)};
            for_each_piece<float>(p, task.column, reached, kTilePieceRows, limits, read);
          }
        }
        for (int64_t y = task.row; y < task.end_row; ++y) {
          const int64_t cell = (b * p.height + y) * p.width + task.column, row = y - task.row;
          finish_block<float, BFloat16>(p, states[row], task_sums + row * kBlock * channels, channels, y, task.column,
                                        static_cast<BFloat16*>(output.data) + cell * p.value_channels,
                                        static_cast<float*>(log_sum) + cell);
        }
      }
    }
    _tile_release();
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
