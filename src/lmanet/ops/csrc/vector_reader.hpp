// How vectors read the memory: scores, softmax and sums of a piece after each other, for one block of queries.
#pragma once

#include "forward.hpp"

namespace lmanet::LMANET_VARIANT {

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

// A `Reader` of forward.hpp. T is what is computed in, S what the tensors hold.
template <class T, class S>
class VectorReader {
 public:
  using Computed = T;
  using Stored = S;
  static constexpr int64_t kRows = 1;

  struct Memory {
    const int64_t row_size, block_size, thread_size;
    Buffer<T> keys, values, threads;

    Memory(const Problem& p, const Map& values)
        : row_size(rounded_up(p.key_channels * padded_width(p), 64)),
          block_size(rounded_up(p.key_channels * kBlock, 64)),
          thread_size(row_size + block_size + kPieceWeights),
          keys(panels_size<T>(p, p.frames, p.key_channels)),
          values(cells_size<T, S>(p, values, p.frames, p.value_channels)),
          threads(p.threads * thread_size) {}

    bool allocated() const { return keys.data && values.data && threads.data; }
  };

  struct Packed {
    Panels<T> keys;
    Cells<T> values;
  };

  VectorReader(const Problem& problem, const Memory& memory, int thread, const T* limits)
      : p(problem),
        memory(memory),
        row(memory.threads.data + thread * memory.thread_size),
        block(row + memory.row_size),
        scores(block + memory.block_size) {
    options.limits = limits;
    fill_zeros(row, memory.row_size);
  }

  LMANET_INLINE Packed pack(const Map& keys, const Map& values, int64_t b) {
    return {pack_panels<T, S>(p, {keys, b, 0, p.frames, p.key_channels}, row, memory.keys.data),
            pack_cells<T, S>(p, {values, b, 0, p.frames, p.value_channels}, memory.values.data)};
  }

  LMANET_INLINE void take(const Map& query, int64_t b, int64_t y, int64_t x) {
    take_block<T, S>(p, query, b, 0, y, x, p.key_channels, T(p.scale * kLog2E), block);
  }

  LMANET_INLINE void read(const Packed& packed, const Range& frames, const Columns& columns, int64_t panel,
                          const Range& rows, const Readings<T>& to) {
    const int64_t count = rows.end - rows.first;
    for (int64_t s = frames.first; s < frames.end; ++s) {
      for (int64_t i = 0; i < count; ++i) {
        dots<T>(block, packed.keys.at(s, panel, rows.first + i), p.key_channels, columns.end, options,
                scores + i * kRowWeights);
      }
      soften<T>(scores, count, columns.end, *to.softmax, to.sums, to.channels);
      const T* cells = packed.values.at(s, rows.first, columns.first);
      accumulate<T>({columns, count, scores, cells, packed.values.row, packed.values.column}, to.channels, to.sums,
                    to.channels);
    }
  }

 private:
  const Problem& p;
  const Memory& memory;
  T *const row, *const block, *const scores;
  DotOptions<T> options;
};

}  // namespace lmanet::LMANET_VARIANT
