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
void differentiate(T* scores, T* gradients, int64_t rows, int64_t end) {
  for (int64_t row = 0; row < rows * kBlock; ++row) {
    for (int64_t j = row * kPitch; j < row * kPitch + end; j += kLanes<T>) {
      const Vector<T> weight = exp2<T>(load<T>(scores + j));
      store<T>(scores + j, weight);
      store<T>(gradients + j, weight * load<T>(gradients + j));
    }
  }
}

// Per query of a sample, (h, padded width) with the rows' margins as panels have them: the log-sum-exp in base 2, and
// the mean of the weights' gradients under the weights, which equals gradient · output.
template <class T, class S>
void prepare_queries(const Problem& p, int64_t b, const Map& gradient, const Map& output, const T* log_sum,
                     T* log2_sums, T* centres) {
  const int64_t width = padded_width(p);
#pragma omp for
  for (int64_t y = 0; y < p.height; ++y) {
    for (int64_t x = 0; x < p.width; ++x) {
      const S *g = at<S>(gradient, b, 0, y, x), *o = at<S>(output, b, 0, y, x);
      T centre = 0;
      for (int64_t c = 0; c < p.value_channels; ++c) {
        centre += widened(g[c * gradient.channel]) * widened(o[c * output.channel]);
      }
      centres[y * width + kMargin + x] = centre;
      log2_sums[y * width + kMargin + x] = log_sum[(b * p.height + y) * p.width + x] * T(kLog2E);
    }
  }
}

// One of both sides of the attention: queries and their outputs' gradients, or a frame's keys and values.
template <class T>
struct Side {
  Part keys, values;
  Panels<T> key_panels, value_panels;
  Cells<T> key_cells, value_cells;
};

// A thread's working space.
template <class T>
struct BackwardWork {
  T *row, *key_block, *value_block, *limits, *weights, *gradients, *key_sums, *value_sums;
  int64_t size = 0;

  // Without memory it is the size that counts.
  BackwardWork(const Problem& p, T* memory) {
    const auto next = [&](int64_t count) {
      T* piece = memory ? memory + size : nullptr;
      size += rounded_up(count, 64);
      return piece;
    };
    row = next(larger_of(p.key_channels, p.value_channels) * padded_width(p));
    key_block = next(kBlock * p.key_channels);
    value_block = next(kBlock * p.value_channels);
    limits = next(kRowWeights);
    weights = next(kPieceWeights);
    gradients = next(kPieceWeights);
    key_sums = next(kBlock * rounded_up(p.key_channels, kLanes<T>));
    value_sums = next(kBlock * rounded_up(p.value_channels, kLanes<T>));
  }
};

// For each piece of what a block of `own` reaches in `other`: the weights, their scores' gradients, and then `use`.
// `options` say which log-sum-exp and centre belong to weights of a row of the piece.
template <class T, class S, class Options, class Use>
LMANET_INLINE void differentiate_block(const Problem& p, const Side<T>& own, const Side<T>& other, int64_t y,
                                       int64_t column, const BackwardWork<T>& work, const Options& options,
                                       const Use& use) {
  take_block<T, S>(p, own.keys.map, own.keys.sample, own.keys.first_frame, y, column, p.key_channels,
                   T(p.scale * kLog2E), work.key_block);
  take_block<T, S>(p, own.values.map, own.values.sample, own.values.first_frame, y, column, p.value_channels, T(1),
                   work.value_block);
  for_each_piece<T>(p, column, {first_row(p, y), end_row(p, y)}, kPieceRows, work.limits,
                    [&](const Columns& columns, int64_t panel, const Range& rows) {
                      for (int64_t row = 0; row < rows.end - rows.first; ++row) {
                        const int64_t offset = row * kRowWeights, on_map = rows.first + row;
                        DotOptions<T> of_scores, of_gradients;
                        options(columns, on_map, of_scores, of_gradients);
                        of_scores.limits = work.limits;
                        dots<T>(work.key_block, other.key_panels.at(0, panel, on_map), p.key_channels, columns.end,
                                of_scores, work.weights + offset);
                        dots<T>(work.value_block, other.value_panels.at(0, panel, on_map), p.value_channels,
                                columns.end, of_gradients, work.gradients + offset);
                      }
                      differentiate<T>(work.weights, work.gradients, rows.end - rows.first, columns.end);
                      use(columns, rows);
                    });
}

template <class T, class S>
bool backward(const Problem& p, const Map& gradient, const Map& query, const Map& keys, const Map& values,
              const Map& output, const void* log_sum, const Output& query_gradient, const Output& key_gradient,
              const Output& value_gradient) {
  const int64_t width = padded_width(p);
  const int64_t key_channels = rounded_up(p.key_channels, kLanes<T>);
  const int64_t value_channels = rounded_up(p.value_channels, kLanes<T>);
  const int64_t row_size = rounded_up(p.width, kBlock) * key_channels;
  const int64_t work_size = BackwardWork<T>(p, nullptr).size;
  Buffer<T> log2_sums(p.height * width), centres(p.height * width), query_sums(p.height * row_size);
  Buffer<T> key_panels(panels_size<T>(p, 1, p.key_channels)), value_panels(panels_size<T>(p, 1, p.value_channels));
  Buffer<T> query_panels(panels_size<T>(p, 1, p.key_channels));
  Buffer<T> gradient_panels(panels_size<T>(p, 1, p.value_channels));
  Buffer<T> key_cells(cells_size<T, S>(p, keys, 1, p.key_channels));
  Buffer<T> query_cells(cells_size<T, S>(p, query, 1, p.key_channels));
  Buffer<T> gradient_cells(cells_size<T, S>(p, gradient, 1, p.value_channels));
  Buffer<T> works(p.threads * work_size);
  const bool allocated = log2_sums.data && centres.data && query_sums.data && key_panels.data && value_panels.data &&
                         query_panels.data && gradient_panels.data && key_cells.data && query_cells.data &&
                         gradient_cells.data && works.data;
  if (!allocated) return false;
  fill_zeros(log2_sums.data, p.height * width);
  fill_zeros(centres.data, p.height * width);

#pragma omp parallel num_threads(p.threads)
  {
    const BackwardWork<T> work(p, works.data + omp_get_thread_num() * work_size);
    fill_zeros(work.row, larger_of(p.key_channels, p.value_channels) * width);
    for (int64_t b = 0; b < p.batch; ++b) {
      prepare_queries<T, S>(p, b, gradient, output, static_cast<const T*>(log_sum), log2_sums.data, centres.data);
      const Part query_part{query, b, 0, 1, p.key_channels}, gradient_part{gradient, b, 0, 1, p.value_channels};
      const Side<T> query_side{query_part,
                               gradient_part,
                               pack_panels<T, S>(p, query_part, work.row, query_panels.data),
                               pack_panels<T, S>(p, gradient_part, work.row, gradient_panels.data),
                               pack_cells<T, S>(p, query_part, query_cells.data),
                               pack_cells<T, S>(p, gradient_part, gradient_cells.data)};
      for (int64_t s = 0; s < p.frames; ++s) {
        const Part key_part{keys, b, s, 1, p.key_channels}, value_part{values, b, s, 1, p.value_channels};
        const Side<T> key_side{key_part,
                               value_part,
                               pack_panels<T, S>(p, key_part, work.row, key_panels.data),
                               pack_panels<T, S>(p, value_part, work.row, value_panels.data),
                               pack_cells<T, S>(p, key_part, key_cells.data),
                               Cells<T>{}};

#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < task_count(p); ++i) {
          const Task task(p, i);
          for (int64_t y = task.row; y < task.end_row; ++y) {
            T* sums = query_sums.data + y * row_size + task.column * key_channels;
            if (s == 0) fill_zeros(sums, kBlock * key_channels);
            const int64_t block = y * width + kMargin + task.column;
            differentiate_block<T, S>(
                p, query_side, key_side, y, task.column, work,
                [&](const Columns&, int64_t, DotOptions<T>& of_scores, DotOptions<T>& of_gradients) {
                  of_scores.off_block = log2_sums.data + block;
                  of_gradients.off_block = centres.data + block;
                },
                [&](const Columns& columns, const Range& rows) {
                  accumulate<T>({columns, rows.end - rows.first, work.gradients,
                                 key_side.key_cells.at(0, rows.first, columns.first), key_side.key_cells.row,
                                 key_side.key_cells.column},
                                key_channels, sums, key_channels);
                });
          }
        }

        // Which queries see a key is as which keys a query sees.
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < task_count(p); ++i) {
          const Task task(p, i);
          for (int64_t y = task.row; y < task.end_row; ++y) {
            fill_zeros(work.key_sums, kBlock * key_channels);
            fill_zeros(work.value_sums, kBlock * value_channels);
            differentiate_block<T, S>(
                p, key_side, query_side, y, task.column, work,
                [&](const Columns& columns, int64_t row, DotOptions<T>& of_scores, DotOptions<T>& of_gradients) {
                  of_scores.off_columns = log2_sums.data + row * width + kMargin + columns.first;
                  of_gradients.off_columns = centres.data + row * width + kMargin + columns.first;
                },
                [&](const Columns& columns, const Range& rows) {
                  accumulate<T>({columns, rows.end - rows.first, work.weights,
                                 query_side.value_cells.at(0, rows.first, columns.first), query_side.value_cells.row,
                                 query_side.value_cells.column},
                                value_channels, work.value_sums, value_channels);
                  accumulate<T>({columns, rows.end - rows.first, work.gradients,
                                 query_side.key_cells.at(0, rows.first, columns.first), query_side.key_cells.row,
                                 query_side.key_cells.column},
                                key_channels, work.key_sums, key_channels);
                });
            const int64_t cell = ((b * p.frames + s) * p.height + y) * p.width + task.column;
            const int64_t count = block_cells(p, task.column);
            put_cells<T, S>(work.key_sums, key_channels, T(p.scale), count, p.key_channels,
                            static_cast<S*>(key_gradient.data) + cell * p.key_channels);
            put_cells<T, S>(work.value_sums, value_channels, T(1), count, p.value_channels,
                            static_cast<S*>(value_gradient.data) + cell * p.value_channels);
          }
        }
      }
#pragma omp for
      for (int64_t y = 0; y < p.height; ++y) {
        put_cells<T, S>(query_sums.data + y * row_size, key_channels, T(p.scale), p.width, p.key_channels,
                        static_cast<S*>(query_gradient.data) + (b * p.height + y) * p.width * p.key_channels);
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
