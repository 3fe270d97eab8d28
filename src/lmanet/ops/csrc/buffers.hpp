// Working buffers, and the layouts that the inner loops want.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "attention.hpp"
#include "vec.hpp"

namespace lmanet::LMANET_VARIANT {

inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Elements that are zero at first, aligned to cache lines. `data` is null if there was no memory.
template <class T>
struct Buffer {
  T* data = nullptr;

  explicit Buffer(int64_t count) {
    const size_t bytes = rounded_up(larger_of(count, 1) * sizeof(T), 64);
    data = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data) std::memset(data, 0, bytes);
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

struct BFloat16 {
  uint16_t bits;
};

inline float widened(float value) { return value; }
inline double widened(double value) { return value; }
inline float widened(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

inline void narrow(float value, float* to) { *to = value; }
inline void narrow(double value, double* to) { *to = value; }
inline void narrow(float value, BFloat16* to) {  // to the nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    to->bits = static_cast<uint16_t>((bits >> 16) | 0x40);  // NaN stays NaN
  } else {
    to->bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}

template <class S>
inline const S* at(const Map& map, int64_t batch, int64_t frame, int64_t row, int64_t column) {
  return static_cast<const S*>(map.data) + batch * map.batch + frame * map.frame + row * map.row +
         column * map.column;
}

// A map with its channels one after the other: vectors of channels of one cell.
template <class T>
struct Cells {
  const T* data;
  int64_t batch, frame, row, column;

  const T* at(int64_t b, int64_t s, int64_t y, int64_t x) const {
    return data + b * batch + s * frame + y * row + x * column;
  }
};

// A map with its columns one after the other: vectors of neighbouring cells of one channel. Behind each row there are
// zeros, so that a vector may begin at any column.
template <class T>
struct Rows {
  const T* data;
  int64_t batch, frame, row, channel;

  const T* at(int64_t b, int64_t s, int64_t y, int64_t x) const {
    return data + b * batch + s * frame + y * row + x;
  }
};

inline int64_t padded_width(const Problem& p, int64_t lanes) { return rounded_up(p.width, lanes) + 2 * lanes; }

template <class T>
int64_t rows_size(const Problem& p, int64_t frames, int64_t channels) {
  return p.batch * frames * p.height * channels * padded_width(p, kLanes<T>);
}

// Must be called by all threads of a parallel region, on a buffer of `rows_size`.
template <class T, class S>
Rows<T> pack_rows(const Problem& p, const Map& map, int64_t frames, int64_t channels, T* buffer) {
  const int64_t width = padded_width(p, kLanes<T>);
  const Rows<T> rows{buffer, frames * p.height * channels * width, p.height * channels * width, channels * width,
                     width};
#pragma omp for
  for (int64_t i = 0; i < p.batch * frames * p.height; ++i) {
    const int64_t y = i % p.height, s = i / p.height % frames, b = i / p.height / frames;
    T* row = buffer + i * rows.row;
    // A few cells at a time, as one of both sides is strided: their cache lines are used whole.
    constexpr int64_t kTile = 16;
    for (int64_t x0 = 0; x0 < p.width; x0 += kTile) {
      const int64_t x1 = smaller_of(x0 + kTile, p.width);
      for (int64_t c = 0; c < channels; ++c) {
        const S* from = at<S>(map, b, s, y, 0) + c * map.channel;
        for (int64_t x = x0; x < x1; ++x) row[c * width + x] = widened(from[x * map.column]);
      }
    }
  }
  return rows;
}

// Whether the inner loops can read the map where it is.
template <class T, class S>
bool readable_in_place(const Map& map, int64_t channels) {
  return sizeof(S) == sizeof(T) && map.channel == 1 && channels % kLanes<T> == 0;
}

template <class T>
int64_t cells_size(const Problem& p, int64_t frames, int64_t channels) {
  return p.batch * frames * p.height * p.width * rounded_up(channels, kLanes<T>);
}

template <class T>
Cells<T> cells_in_place(const Map& map) {
  return {static_cast<const T*>(map.data), map.batch, map.frame, map.row, map.column};
}

// Must be called by all threads of a parallel region, on a buffer of `cells_size`.
template <class T, class S>
Cells<T> pack_cells(const Problem& p, const Map& map, int64_t frames, int64_t channels, T* buffer) {
  const int64_t padded = rounded_up(channels, kLanes<T>);
  const int64_t row = p.width * padded, frame = p.height * row;
#pragma omp for
  for (int64_t i = 0; i < p.batch * frames * p.height; ++i) {
    const int64_t y = i % p.height, s = i / p.height % frames, b = i / p.height / frames;
    constexpr int64_t kTile = 16;
    for (int64_t c0 = 0; c0 < channels; c0 += kTile) {
      const int64_t c1 = smaller_of(c0 + kTile, channels);
      for (int64_t x = 0; x < p.width; ++x) {
        const S* from = at<S>(map, b, s, y, x);
        T* to = buffer + i * row + x * padded;
        for (int64_t c = c0; c < c1; ++c) to[c] = widened(from[c * map.channel]);
      }
    }
  }
  return {buffer, frames * frame, frame, row, padded};
}

}  // namespace lmanet::LMANET_VARIANT
