// Local attention backward. Weights are computed again from the log-sum-exp, as FlashAttention does (Dao et al., 2022,
// https://arxiv.org/abs/2205.14135): once for each block of queries, for the queries' gradient, and once for each
// block of keys, for the keys' and values'. Nothing is added to by two threads, so that the result does not depend on
// their number.
#pragma once

#include <omp.h>

#include "blocks.hpp"

namespace lmanet::LMANET_VARIANT {

// Scores less the log-sum-exp to weights, and the weights' gradients, already centred, to those of the scores.
template <class T>
void differentiate(T* scores, T* gradients, int64_t rows, int64_t count) {
  for (int64_t row = 0; row < rows * kBlock; ++row) {
    for (int64_t j = row * kPitch; j < row * kPitch + count; j += kLanes<T>) {
      const Vector<T> weight = exp2<T>(load<T>(scores + j));
      store<T>(scores + j, weight);
      store<T>(gradients + j, weight * load<T>(gradients + j));
    }
  }
}

// Per query, (B, h, padded w): the log-sum-exp in base 2, and the mean of the weights' gradients under the weights,
// which equals gradient · output.
template <class T, class S>
void prepare_queries(const Problem& p, const Map& gradient, const Map& output, const T* log_sum, T* log2_sums,
                     T* centres) {
  const int64_t width = padded_width(p, kLanes<T>);
#pragma omp for
  for (int64_t i = 0; i < p.batch * p.height; ++i) {
    const int64_t y = i % p.height, b = i / p.height;
    for (int64_t x = 0; x < p.width; ++x) {
      const S *g = at<S>(gradient, b, 0, y, x), *o = at<S>(output, b, 0, y, x);
      T centre = 0;
      for (int64_t c = 0; c < p.value_channels; ++c) {
        centre += widened(g[c * gradient.channel]) * widened(o[c * output.channel]);
      }
      centres[i * width + x] = centre;
      log2_sums[i * width + x] = log_sum[i * p.width + x] * T(kLog2E);
    }
  }
}

// Both passes' work for one block: its own two maps' channels, and the working space of a thread.
template <class T>
struct BackwardWork {
  T *key_block, *value_block, *limits, *weights, *gradients, *key_sums, *value_sums;

  static int64_t padded(int64_t count) { return rounded_up(count, 64); }

  static int64_t size(const Problem& p) {
    return kRowWeights + 2 * kPieceWeights + padded(kBlock * p.key_channels) + padded(kBlock * p.value_channels) +
           padded(kBlock * rounded_up(p.key_channels, kLanes<T>)) +
           padded(kBlock * rounded_up(p.value_channels, kLanes<T>));
  }

  BackwardWork(const Problem& p, T* work) {
    const auto next = [&work](int64_t count) {
      T* piece = work;
      work += padded(count);
      return piece;
    };
    key_block = next(kBlock * p.key_channels);
    value_block = next(kBlock * p.value_channels);
    limits = next(kRowWeights);
    weights = next(kPieceWeights);
    gradients = next(kPieceWeights);
    key_sums = next(kBlock * rounded_up(p.key_channels, kLanes<T>));
    value_sums = next(kBlock * rounded_up(p.value_channels, kLanes<T>));
  }
};

template <class T, class S>
bool backward(const Problem& p, const Map& gradient, const Map& query, const Map& keys, const Map& values,
              const Map& output, const void* log_sum, const Output& query_gradient, const Output& key_gradient,
              const Output& value_gradient) {
  const int64_t width = padded_width(p, kLanes<T>);
  const int64_t key_channels = rounded_up(p.key_channels, kLanes<T>);
  const int64_t value_channels = rounded_up(p.value_channels, kLanes<T>);
  const int64_t work_size = BackwardWork<T>::size(p);
  const bool keys_in_place = readable_in_place<T, S>(keys, p.key_channels);
  const bool query_in_place = readable_in_place<T, S>(query, p.key_channels);
  const bool gradient_in_place = readable_in_place<T, S>(gradient, p.value_channels);
  Buffer<T> log2_sums(p.batch * p.height * width), centres(p.batch * p.height * width);
  Buffer<T> key_row_buffer(rows_size<T>(p, p.frames, p.key_channels));
  Buffer<T> value_row_buffer(rows_size<T>(p, p.frames, p.value_channels));
  Buffer<T> query_row_buffer(rows_size<T>(p, 1, p.key_channels));
  Buffer<T> gradient_row_buffer(rows_size<T>(p, 1, p.value_channels));
  Buffer<T> key_cell_buffer(keys_in_place ? 0 : cells_size<T>(p, p.frames, p.key_channels));
  Buffer<T> query_cell_buffer(query_in_place ? 0 : cells_size<T>(p, 1, p.key_channels));
  Buffer<T> gradient_cell_buffer(gradient_in_place ? 0 : cells_size<T>(p, 1, p.value_channels));
  Buffer<T> works(p.threads * work_size);
  const bool allocated = log2_sums.data && centres.data && key_row_buffer.data && value_row_buffer.data &&
                         query_row_buffer.data && gradient_row_buffer.data && key_cell_buffer.data &&
                         query_cell_buffer.data && gradient_cell_buffer.data && works.data;
  if (!allocated) return false;
  const Tasks query_tasks(p, p.batch), key_tasks(p, p.batch * p.frames);

#pragma omp parallel num_threads(p.threads)
  {
    prepare_queries<T, S>(p, gradient, output, static_cast<const T*>(log_sum), log2_sums.data, centres.data);
    const Rows<T> key_rows = pack_rows<T, S>(p, keys, p.frames, p.key_channels, key_row_buffer.data);
    const Rows<T> value_rows = pack_rows<T, S>(p, values, p.frames, p.value_channels, value_row_buffer.data);
    const Rows<T> query_rows = pack_rows<T, S>(p, query, 1, p.key_channels, query_row_buffer.data);
    const Rows<T> gradient_rows = pack_rows<T, S>(p, gradient, 1, p.value_channels, gradient_row_buffer.data);
    const Cells<T> key_cells = keys_in_place
                                   ? cells_in_place<T>(keys)
                                   : pack_cells<T, S>(p, keys, p.frames, p.key_channels, key_cell_buffer.data);
    const Cells<T> query_cells = query_in_place
                                     ? cells_in_place<T>(query)
                                     : pack_cells<T, S>(p, query, 1, p.key_channels, query_cell_buffer.data);
    const Cells<T> gradient_cells =
        gradient_in_place ? cells_in_place<T>(gradient)
                          : pack_cells<T, S>(p, gradient, 1, p.value_channels, gradient_cell_buffer.data);
    const BackwardWork<T> work(p, works.data + omp_get_thread_num() * work_size);

    // The queries' gradient, a block of queries at a time.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < query_tasks.count(); ++i) {
      const Task task(p, query_tasks, i);
      for (int64_t y = task.row; y < task.end_row; ++y) {
        take_block<T, S>(p, query, task.map, 0, y, task.column, p.key_channels, T(p.scale * kLog2E), work.key_block);
        take_block<T, S>(p, gradient, task.map, 0, y, task.column, p.value_channels, T(1), work.value_block);
        std::memset(work.key_sums, 0, kBlock * key_channels * sizeof(T));
        DotOptions<T> score_options, gradient_options;
        score_options.off_block = log2_sums.data + (task.map * p.height + y) * width + task.column;
        score_options.limits = work.limits;
        gradient_options.off_block = centres.data + (task.map * p.height + y) * width + task.column;
        for_each_piece<T>(p, task.column, y, work.limits, [&](const Columns& columns, int64_t from, int64_t rows) {
          for (int64_t s = 0; s < p.frames; ++s) {
            for (int64_t row = 0; row < rows; ++row) {
              const int64_t offset = row * kRowWeights;
              dots<T>(work.key_block, key_rows.at(task.map, s, from + row, columns.first), key_rows.channel,
                      p.key_channels, columns.count, score_options, work.weights + offset);
              dots<T>(work.value_block, value_rows.at(task.map, s, from + row, columns.first), value_rows.channel,
                      p.value_channels, columns.count, gradient_options, work.gradients + offset);
            }
            differentiate<T>(work.weights, work.gradients, rows, columns.count);
            accumulate<T>({columns, rows, work.gradients, key_cells.at(task.map, s, from, columns.first),
                           key_cells.row, key_cells.column},
                          key_channels, work.key_sums, key_channels);
          }
        });
        S* row = static_cast<S*>(query_gradient.data) + (task.map * p.height + y) * p.width * p.key_channels;
        put_block<T, S>(p, work.key_sums, key_channels, T(p.scale), task.column, p.key_channels, row);
      }
    }

    // The keys' and values' gradients, a block of keys at a time: which queries see a key is as which keys a query sees.
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < key_tasks.count(); ++i) {
      const Task task(p, key_tasks, i);
      const int64_t b = task.map / p.frames, s = task.map % p.frames;
      for (int64_t y = task.row; y < task.end_row; ++y) {
        take_block<T, S>(p, keys, b, s, y, task.column, p.key_channels, T(p.scale * kLog2E), work.key_block);
        take_block<T, S>(p, values, b, s, y, task.column, p.value_channels, T(1), work.value_block);
        std::memset(work.key_sums, 0, kBlock * key_channels * sizeof(T));
        std::memset(work.value_sums, 0, kBlock * value_channels * sizeof(T));
        for_each_piece<T>(p, task.column, y, work.limits, [&](const Columns& columns, int64_t from, int64_t rows) {
          for (int64_t row = 0; row < rows; ++row) {
            const int64_t offset = row * kRowWeights;
            const int64_t queries = (b * p.height + from + row) * width + columns.first;
            DotOptions<T> score_options, gradient_options;
            score_options.off_columns = log2_sums.data + queries;
            score_options.limits = work.limits;
            gradient_options.off_columns = centres.data + queries;
            dots<T>(work.key_block, query_rows.at(b, 0, from + row, columns.first), query_rows.channel,
                    p.key_channels, columns.count, score_options, work.weights + offset);
            dots<T>(work.value_block, gradient_rows.at(b, 0, from + row, columns.first), gradient_rows.channel,
                    p.value_channels, columns.count, gradient_options, work.gradients + offset);
          }
          differentiate<T>(work.weights, work.gradients, rows, columns.count);
          accumulate<T>({columns, rows, work.weights, gradient_cells.at(b, 0, from, columns.first),
                         gradient_cells.row, gradient_cells.column},
                        value_channels, work.value_sums, value_channels);
          accumulate<T>({columns, rows, work.gradients, query_cells.at(b, 0, from, columns.first), query_cells.row,
                         query_cells.column},
                        key_channels, work.key_sums, key_channels);
        });
        const int64_t cells = (task.map * p.height + y) * p.width;
        put_block<T, S>(p, work.key_sums, key_channels, T(p.scale), task.column, p.key_channels,
                        static_cast<S*>(key_gradient.data) + cells * p.key_channels);
        put_block<T, S>(p, work.value_sums, value_channels, T(1), task.column, p.value_channels,
                        static_cast<S*>(value_gradient.data) + cells * p.value_channels);
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
