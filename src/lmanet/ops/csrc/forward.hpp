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

// Scores (rows, kBlock, pitch) to weights relative to the largest score so far; sums read before are rescaled.
template <class T>
void soften(T* scores, int64_t rows, int64_t pitch, Softmax<T>& softmax, T* sums, int64_t channels) {
  constexpr int L = kLanes<T>;
  for (int q = 0; q < kBlock; ++q) {
    Vector<T> highest = broadcast<T>(softmax.largest[q]);
    for (int64_t row = 0; row < rows; ++row) {
      const T* of_row = scores + (row * kBlock + q) * pitch;
      for (int64_t j = 0; j < pitch; j += L) highest = larger<T>(highest, load<T>(of_row + j));
    }
    const T largest = largest_lane<T>(highest);
    if (largest > softmax.largest[q]) {
      const T rescale = scalar_exp2<T>(softmax.largest[q] - largest);
      softmax.largest[q] = largest;
      softmax.totals[q] *= rescale;
      for (int64_t c = 0; c < channels; c += L) {
        store<T>(sums + q * channels + c, load<T>(sums + q * channels + c) * rescale);
      }
    }
    Vector<T> total = softmax.totals[q];
    for (int64_t row = 0; row < rows; ++row) {
      T* of_row = scores + (row * kBlock + q) * pitch;
      for (int64_t j = 0; j < pitch; j += L) {
        const Vector<T> weight = exp2<T>(load<T>(of_row + j) - softmax.largest[q]);
        store<T>(of_row + j, weight);
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
  const int64_t rows = chunk_rows<T>(p), most = largest_pitch<T>(p);
  const bool in_place = readable_in_place<T, S>(values, p.value_channels);
  Buffer<T> key_buffer(rows_size<T>(p, p.frames, p.key_channels));
  Buffer<T> value_buffer(in_place ? 0 : cells_size<T>(p, p.frames, p.value_channels));
  const int64_t block_size = rounded_up(p.key_channels * kBlock, 64);
  const int64_t thread_size = block_size + kBlock * (most + rows * most + channels);
  Buffer<T> work(p.threads * rounded_up(thread_size, 64));
  if (!key_buffer.data || !value_buffer.data || !work.data) return false;
  const Tasks tasks(p, p.batch);

#pragma omp parallel num_threads(p.threads)
  {
    const Rows<T> key_rows = pack_rows<T, S>(p, keys, p.frames, p.key_channels, key_buffer.data);
    const Cells<T> value_cells = in_place ? cells_in_place<T>(values)
                                          : pack_cells<T, S>(p, values, p.frames, p.value_channels, value_buffer.data);
    T* block = work.data + omp_get_thread_num() * rounded_up(thread_size, 64);
    T* limits = block + block_size;
    T* scores = limits + kBlock * most;
    T* sums = scores + kBlock * rows * most;

#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks.count(); ++i) {
      const Task task(p, tasks, i);
      const Segment segment = segment_of(task.column, p.radius, p.width);
      const int64_t pitch = rounded_up(segment.columns, kLanes<T>);
      fill_limits<T>(segment, pitch, limits);
      for (int64_t y = task.row; y < task.end_row; ++y) {
        take_block<T, S>(p, query, task.map, 0, y, task.column, p.key_channels, T(p.scale * kLog2E), block);
        std::memset(sums, 0, kBlock * channels * sizeof(T));
        Softmax<T> softmax;
        for (int q = 0; q < kBlock; ++q) {
          softmax.largest[q] = -kInfinity<T>;
          softmax.totals[q] = Vector<T>{};
        }
        for (int64_t s = 0; s < p.frames; ++s) {
          for (int64_t from = first_row(p, y); from < end_row(p, y); from += rows) {
            const int64_t count = smaller_of(rows, end_row(p, y) - from);
            for (int64_t row = 0; row < count; ++row) {
              DotOptions<T> options;
              options.limits = limits;
              dots<T>(block, key_rows.at(task.map, s, from + row, segment.first), key_rows.channel, p.key_channels,
                      options, scores + row * kBlock * pitch, pitch);
            }
            soften<T>(scores, count, pitch, softmax, sums, channels);
            accumulate<T>({segment, count, scores, pitch, value_cells.at(task.map, s, from, segment.first),
                           value_cells.row, value_cells.column},
                          channels, sums, channels);
          }
        }
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
