// Local attention forward: the one way through map and frames, whatever does the arithmetic. A Reader does it, for
// blocks of queries: `VectorReader` by the vectors of the instruction set, `TileReader` by the tiles of AMX. It has
//
//   Computed, Stored     what sums are computed in, what the tensors hold
//   kRows                rows of blocks, one below the other, that it reads for at a time; a divisor of kTaskRows
//   Memory(p, values)    working buffers of all threads; `allocated()` says whether there was memory for them
//   Packed               one sample's keys and values, laid out as it reads them
//   Reader(p, memory, thread, limits)              a thread's; `limits` are the piece's, as `for_each_piece` fills them
//   pack(keys, values, b) -> Packed                must be called by all threads of a parallel region
//   take(query, b, y, x)                           the queries of kRows blocks from (y, x) on, for the calls of `read`
//   read(packed, frames, columns, panel, rows, readings)   adds what these queries read of a piece, frame by frame
#pragma once

#include <omp.h>

#include "blocks.hpp"
#include "softmax.hpp"

namespace lmanet::LMANET_VARIANT {

// What blocks below each other have read so far: sums (blocks, kBlock, channels) relative to each block's softmax.
template <class T>
struct Readings {
  Softmax<T>* softmax;
  T* sums;
  int64_t channels;  // those of the values, and zeros up to whole vectors

  Readings below(int64_t blocks) const { return {softmax + blocks, sums + blocks * kBlock * channels, channels}; }
};

template <class Reader>
bool forward(const Problem& p, const Map& query, const Map& keys, const Map& values, const Output& output,
             void* log_sum) {
  using T = typename Reader::Computed;
  using S = typename Reader::Stored;
  static_assert(kTaskRows % Reader::kRows == 0);
  const int64_t channels = rounded_up(p.value_channels, kLanes<T>), sums_size = kTaskRows * kBlock * channels;
  typename Reader::Memory memory(p, values);
  Buffer<T> works(p.threads * (kRowWeights + sums_size));
  if (!memory.allocated() || !works.data) return false;

#pragma omp parallel num_threads(p.threads)
  {
    T* limits = works.data + omp_get_thread_num() * (kRowWeights + sums_size);
    T* sums = limits + kRowWeights;
    Reader reader(p, memory, omp_get_thread_num(), limits);
    for (int64_t b = 0; b < p.batch; ++b) {
      const typename Reader::Packed packed = reader.pack(keys, values, b);

#pragma omp for schedule(dynamic)
      for (int64_t i = 0; i < task_count(p); ++i) {
        const Task task(p, i);
        Softmax<T> softmax[kTaskRows];
        const Readings<T> of_task{softmax, sums, channels};
        fill_zeros(sums, sums_size);
        for (int64_t group = 0; group < p.frames; group += kFrameGroup) {
          const Range frames{group, smaller_of(group + kFrameGroup, p.frames)};
          for (int64_t y = task.row; y < task.end_row; y += Reader::kRows) {
            reader.take(query, b, y, task.column);
            const Readings<T> readings = of_task.below(y - task.row);
            const Range reached{first_row(p, y), end_row(p, smaller_of(y + Reader::kRows, p.height) - 1)};
            for_each_piece<T>(p, task.column, reached, kPieceRows, limits,
                              [&](const Columns& columns, int64_t panel, const Range& rows) {
                                reader.read(packed, frames, columns, panel, rows, readings);
                              });
          }
        }
        for (int64_t y = task.row; y < task.end_row; ++y) {
          const int64_t cell = (b * p.height + y) * p.width + task.column;
          const Readings<T> readings = of_task.below(y - task.row);
          finish_block<T, S>(p, *readings.softmax, readings.sums, channels, y, task.column,
                             static_cast<S*>(output.data) + cell * p.value_channels, static_cast<T*>(log_sum) + cell);
        }
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
