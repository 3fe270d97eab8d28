// The softmax of a block's queries, kept relative to the largest score so far (Milakov and Gimelshein, 2018,
// https://arxiv.org/abs/1805.02867).
#pragma once

#include "blocks.hpp"

namespace lmanet::LMANET_VARIANT {

// The state of the softmax of a block's queries.
template <class T>
struct Softmax {
  T largest[kBlock];         // score so far, base 2
  Vector<T> totals[kBlock];  // of the weights relative to it

  Softmax() {
    for (int q = 0; q < kBlock; ++q) {
      largest[q] = -kInfinity<T>;
      totals[q] = Vector<T>{};
    }
  }
};

// 2^exponent; 1 also where the largest score was −∞ and still is.
template <class T>
inline T scalar_exp2(T exponent) {
  return exponent == T(0) || exponent != exponent ? T(1) : exp2<T>(broadcast<T>(exponent))[0];
}

// Make a query's totals and its sums, of (kBlock, channels), relative to a larger score.
template <class T>
inline void rescale(Softmax<T>& softmax, int q, T largest, T* sums, int64_t channels) {
  const T factor = scalar_exp2<T>(softmax.largest[q] - largest);
  softmax.largest[q] = largest;
  softmax.totals[q] *= factor;
  for (int64_t c = q * channels; c < (q + 1) * channels; c += kLanes<T>) {
    store<T>(sums + c, load<T>(sums + c) * factor);
  }
}

inline float log2_of(float x) { return __builtin_log2f(x); }
inline double log2_of(double x) { return __builtin_log2(x); }

// How many positions of a cell's windows lie outside the map.
inline int64_t outside(const Problem& p, int64_t y, int64_t x) {
  const int64_t window = 2 * p.radius + 1;
  const int64_t columns = smaller_of(x + p.radius, p.width - 1) - larger_of(x - p.radius, 0) + 1;
  return p.frames * (window * window - (end_row(p, y) - first_row(p, y)) * columns);
}

// A block's reading and its log-sum-exp.
template <class T, class S>
void finish_block(const Problem& p, const Softmax<T>& softmax, const T* sums, int64_t pitch, int64_t y, int64_t x,
                  S* output, T* log_sum) {
  for (int64_t q = 0; q < block_cells(p, x); ++q) {
    const T total = sum_lanes<T>(softmax.totals[q]), largest = softmax.largest[q];
    T share = T(1) / total, log2_sum = largest + log2_of(total);
    const int64_t beyond = p.zero_border ? outside(p, y, x + q) : 0;
    if (beyond > 0) {
      // They are all alike, score 0 and value 0, so that it is enough to count them.
      const T top = largest > T(0) ? largest : T(0);
      const T inside = scalar_exp2<T>(largest - top), all = total * inside + beyond * scalar_exp2<T>(-top);
      share = inside / all;
      log2_sum = top + log2_of(all);
    }
    log_sum[q] = log2_sum * T(kLn2);
    put_cells<T, S>(sums + q * pitch, pitch, share, 1, p.value_channels, output + q * p.value_channels);
  }
}

}  // namespace lmanet::LMANET_VARIANT
