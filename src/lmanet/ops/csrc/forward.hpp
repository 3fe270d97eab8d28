// Local attention forward: for each block of queries the scores of a few rows of keys at a time, with the softmax
// kept relative to the largest score so far (Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867).
#pragma once

#include <omp.h>

#include "blocks.hpp"

namespace lmanet::LMANET_VARIANT {

// The state of the softmax of a block's queries.
template <class T>
struct Softmax {
  T largest[kBlock];          // score so far, base 2
  Vector<T> totals[kBlock];   // of the weights relative to it
};

// 2^exponent; 1 also where the largest score was −∞ and still is.
template <class T>
inline T scalar_exp2(T exponent) {
  return exponent == T(0) || exponent != exponent ? T(1) : exp2<T>(broadcast<T>(exponent))[0];
}

// Scores (rows, kBlock, kPitch), of each row `count` columns up to a whole vector, to weights relative to the largest
// score so far; the sums read before are rescaled to it.
template <class T>
void soften(T* scores, int64_t rows, int64_t count, Softmax<T>& softmax, T* sums, int64_t channels) {
  constexpr int L = kLanes<T>;
  Vector<T> highest[kBlock];
#pragma GCC unroll 8
  for (int q = 0; q < kBlock; ++q) highest[q] = broadcast<T>(softmax.largest[q]);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < count; j += L) {
#pragma GCC unroll 8
      for (int q = 0; q < kBlock; ++q) {
        highest[q] = larger<T>(highest[q], load<T>(scores + row * kRowWeights + q * kPitch + j));
      }
    }
  }
  for (int q = 0; q < kBlock; ++q) {
    const T largest = largest_lane<T>(highest[q]);
    if (largest > softmax.largest[q]) {
      const T rescale = scalar_exp2<T>(softmax.largest[q] - largest);
      softmax.largest[q] = largest;
      softmax.totals[q] *= rescale;
      for (int64_t c = 0; c < channels; c += L) {
        store<T>(sums + q * channels + c, load<T>(sums + q * channels + c) * rescale);
      }
    }
  }
  for (int q = 0; q < kBlock; ++q) {
    const T largest = softmax.largest[q];
    Vector<T> total = softmax.totals[q];
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < count; j += L) {
        T* score = scores + row * kRowWeights + q * kPitch + j;
        const Vector<T> weight = exp2<T>(load<T>(score) - largest);
        store<T>(score, weight);
        total += weight;
      }
    }
    softmax.totals[q] = total;
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

// T is what is computed in, S what the tensors hold.
template <class T, class S>
bool forward(const Problem& p, const Map& query, const Map& keys, const Map& values, const Output& output,
             void* log_sum) {
  const int64_t channels = rounded_up(p.value_channels, kLanes<T>);
  const bool in_place = readable_in_place<T, S>(values, p.value_channels);
  Buffer<T> key_buffer(rows_size<T>(p, p.frames, p.key_channels));
  Buffer<T> value_buffer(in_place ? 0 : cells_size<T>(p, p.frames, p.value_channels));
  const int64_t block_size = rounded_up(p.key_channels * kBlock, 64);
  const int64_t thread_size = block_size + kRowWeights + kPieceWeights + rounded_up(kBlock * channels, 64);
  Buffer<T> work(p.threads * thread_size);
  if (!key_buffer.data || !value_buffer.data || !work.data) return false;
  const Tasks tasks(p, p.batch);

#pragma omp parallel num_threads(p.threads)
  {
    const Rows<T> key_rows = pack_rows<T, S>(p, keys, p.frames, p.key_channels, key_buffer.data);
    const Cells<T> value_cells = in_place ? cells_in_place<T>(values)
                                          : pack_cells<T, S>(p, values, p.frames, p.value_channels, value_buffer.data);
    T* block = work.data + omp_get_thread_num() * thread_size;
    T* limits = block + block_size;
    T* scores = limits + kRowWeights;
    T* sums = scores + kPieceWeights;

#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks.count(); ++i) {
      const Task task(p, tasks, i);
      for (int64_t y = task.row; y < task.end_row; ++y) {
        take_block<T, S>(p, query, task.map, 0, y, task.column, p.key_channels, T(p.scale * kLog2E), block);
        std::memset(sums, 0, kBlock * channels * sizeof(T));
        Softmax<T> softmax;
        for (int q = 0; q < kBlock; ++q) {
          softmax.largest[q] = -kInfinity<T>;
          softmax.totals[q] = Vector<T>{};
        }
        for_each_piece<T>(p, task.column, y, limits, [&](const Columns& columns, int64_t from, int64_t rows) {
          for (int64_t s = 0; s < p.frames; ++s) {
            for (int64_t row = 0; row < rows; ++row) {
              DotOptions<T> options;
              options.limits = limits;
              dots<T>(block, key_rows.at(task.map, s, from + row, columns.first), key_rows.channel, p.key_channels,
                      columns.count, options, scores + row * kRowWeights);
            }
            soften<T>(scores, rows, columns.count, softmax, sums, channels);
            accumulate<T>({columns, rows, scores, value_cells.at(task.map, s, from, columns.first), value_cells.row,
                           value_cells.column},
                          channels, sums, channels);
          }
        });
        for (int64_t q = 0; q < block_cells(p, task.column); ++q) {
          const int64_t x = task.column + q;
          const T total = sum_lanes<T>(softmax.totals[q]), largest = softmax.largest[q];
          T share = T(1) / total, log2_sum = largest + log2_of(total);
          const int64_t beyond = p.zero_border ? outside(p, y, x) : 0;
          if (beyond > 0) {
            // They are all alike, score 0 and value 0, so that it is enough to count them.
            const T top = largest > T(0) ? largest : T(0);
            const T inside = total * scalar_exp2<T>(largest - top), all = inside + beyond * scalar_exp2<T>(-top);
            share = inside / all / total;
            log2_sum = top + log2_of(all);
          }
          const int64_t cell = (task.map * p.height + y) * p.width + x;
          static_cast<T*>(log_sum)[cell] = log2_sum * T(kLn2);
          S* to = static_cast<S*>(output.data) + cell * p.value_channels;
          for (int64_t c = 0; c < p.value_channels; ++c) narrow(share * sums[q * channels + c], to + c);
        }
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
