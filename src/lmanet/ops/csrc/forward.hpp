// Local attention forward: for each block of queries the scores of a few rows of keys at a time, with the softmax
// kept relative to the largest score so far (Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867).
#pragma once

#include <omp.h>

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

// Scores (rows, kBlock, kPitch), of each row whole vectors up to column `end`, to weights relative to the largest
// score so far; the sums read before are rescaled to it.
template <class T>
void soften(T* scores, int64_t rows, int64_t end, Softmax<T>& softmax, T* sums, int64_t channels) {
  constexpr int L = kLanes<T>;
  Vector<T> highest[kBlock];
#pragma GCC unroll 16
  for (int q = 0; q < kBlock; ++q) highest[q] = broadcast<T>(softmax.largest[q]);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < end; j += L) {
#pragma GCC unroll 16
      for (int q = 0; q < kBlock; ++q) {
        highest[q] = larger<T>(highest[q], load<T>(scores + row * kRowWeights + q * kPitch + j));
      }
    }
  }
  for (int q = 0; q < kBlock; ++q) {
    const T largest = largest_lane<T>(highest[q]);
    if (largest > softmax.largest[q]) rescale<T>(softmax, q, largest, sums, channels);
  }
  for (int q = 0; q < kBlock; ++q) {
    const T largest = softmax.largest[q];
    Vector<T> total = softmax.totals[q];
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < end; j += L) {
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

// T is what is computed in, S what the tensors hold.
template <class T, class S>
bool forward(const Problem& p, const Map& query, const Map& keys, const Map& values, const Output& output,
             void* log_sum) {
  const int64_t channels = rounded_up(p.value_channels, kLanes<T>);
  const int64_t block_size = rounded_up(p.key_channels * kBlock, 64), sums_size = kTaskRows * kBlock * channels;
  const int64_t row_size = rounded_up(p.key_channels * padded_width(p), 64);
  const int64_t thread_size = block_size + kRowWeights + kPieceWeights + sums_size + row_size;
  Buffer<T> key_buffer(panels_size<T>(p, p.frames, p.key_channels));
  Buffer<T> value_buffer(cells_size<T, S>(p, values, p.frames, p.value_channels));
  Buffer<T> works(p.threads * thread_size);
  if (!key_buffer.data || !value_buffer.data || !works.data) return false;

#pragma omp parallel num_threads(p.threads)
  {
    T* row_buffer = works.data + omp_get_thread_num() * thread_size;
    T* block = row_buffer + row_size;
    T* limits = block + block_size;
    T* scores = limits + kRowWeights;
    T* task_sums = scores + kPieceWeights;
    DotOptions<T> options;
    options.limits = limits;
    fill_zeros(row_buffer, row_size);
    for (int64_t b = 0; b < p.batch; ++b) {
      const Panels<T> key_panels =
          pack_panels<T, S>(p, {keys, b, 0, p.frames, p.key_channels}, row_buffer, key_buffer.data);
      const Cells<T> value_cells = pack_cells<T, S>(p, {values, b, 0, p.frames, p.value_channels}, value_buffer.data);

#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < task_count(p); ++i) {
        const Task task(p, i);
        Softmax<T> states[kTaskRows];
        fill_zeros(task_sums, sums_size);
        for (int64_t group = 0; group < p.frames; group += kFrameGroup) {
          for (int64_t y = task.row; y < task.end_row; ++y) {
            take_block<T, S>(p, query, b, 0, y, task.column, p.key_channels, T(p.scale * kLog2E), block);
            Softmax<T>& softmax = states[y - task.row];
            T* sums = task_sums + (y - task.row) * kBlock * channels;
            const auto read = [&](const Columns& columns, int64_t panel, const Range& rows) {
              const int64_t count = rows.end - rows.first;
              for (int64_t s = group; s < smaller_of(group + kFrameGroup, p.frames); ++s) {
                for (int64_t row = 0; row < count; ++row) {
                  dots<T>(block, key_panels.at(s, panel, rows.first + row), p.key_channels, columns.end, options,
                          scores + row * kRowWeights);
                }
                soften<T>(scores, count, columns.end, softmax, sums, channels);
                const T* cells = value_cells.at(s, rows.first, columns.first);
                accumulate<T>({columns, count, scores, cells, value_cells.row, value_cells.column}, channels, sums,
                              channels);
              }
            };
            for_each_piece<T>(p, task.column, {first_row(p, y), end_row(p, y)}, kPieceRows, limits, read);
          }
        }
        for (int64_t y = task.row; y < task.end_row; ++y) {
          const int64_t cell = (b * p.height + y) * p.width + task.column, row = y - task.row;
          finish_block<T, S>(p, states[row], task_sums + row * kBlock * channels, channels, y, task.column,
                             static_cast<S*>(output.data) + cell * p.value_channels, static_cast<T*>(log_sum) + cell);
        }
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
