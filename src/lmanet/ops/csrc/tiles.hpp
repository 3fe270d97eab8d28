// The inner loops by the tiles of AMX: a tile instruction multiplies 16 × 32 by 32 × 16 bfloat16 and adds up in
// float32. Queries come 16 at a time, two blocks below each other; keys and weights meet them as in micro.hpp.
#pragma once

#include "softmax.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr int kTileRows = 16;   // of each tile, 64 bytes wide
constexpr int kTileWidth = 16;  // float32, or pairs of bfloat16
constexpr int kPairRows = 2;    // rows of queries in a tile
static_assert(kPairRows * kBlock == kTileRows && kPitch == 2 * kTileWidth && kTileWidth == kLanes<float>);

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

// What was written before is in memory for the tiles to load: GCC's intrinsics do not say that they read it.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

// scores (16, kPitch) = queries (16, pairs) · keys (pairs, kPitch).
inline void tile_dots(const Pair* queries, const Pair* keys, int64_t pairs, int64_t all_pairs, float* scores) {
  settle_memory();
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
  settle_memory();
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

}  // namespace lmanet::LMANET_VARIANT
