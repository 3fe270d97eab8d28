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

constexpr int kPitch = 32;                     // columns of a piece, as the inner loops lay them out
constexpr int kPieceBlocks = kPitch / kBlock;  // and how many blocks' width of them it has
constexpr int kRowWeights = kBlock * kPitch;
constexpr int64_t kFirstPanel = 1 - (kPitch + kBlock - 1) / kBlock;  // the leftmost one that reaches the map
constexpr int64_t kMargin = kPitch + kBlock;                         // how far panels reach beyond the map at most

// Uninitialised elements, aligned to cache lines. `data` is null if there was no memory.
template <class T>
struct Buffer {
  T* data = nullptr;

  explicit Buffer(int64_t count) {
    data = static_cast<T*>(std::aligned_alloc(64, rounded_up(larger_of(count, 1) * sizeof(T), 64)));
  }
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

template <class T>
inline void fill_zeros(T* data, int64_t count) {
  std::memset(data, 0, count * sizeof(T));
}

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
  return static_cast<const S*>(map.data) + batch * map.batch + frame * map.frame + row * map.row + column * map.column;
}

// Maps (S, h, w, C) of one sample with their channels one after the other: vectors of channels of one cell.
template <class T>
struct Cells {
  const T* data;
  int64_t frame, row, column;

  const T* at(int64_t s, int64_t y, int64_t x) const { return data + s * frame + y * row + x * column; }
};

// Maps of one sample as `dots` reads them: for each channel of a row kPitch columns one after the other, with zeros for
// those beyond the map. Panel n holds the columns from kBlock · n − radius mod kBlock on, so that what any block
// reaches is some of them side by side, wherever it begins. They overlap: the map is held kPitch / kBlock times.
template <class T>
struct Panels {
  const T* data;
  int64_t frame, panel, row;

  const T* at(int64_t s, int64_t n, int64_t y) const { return data + s * frame + (n - kFirstPanel) * panel + y * row; }
};

inline int64_t panel_column(const Problem& p, int64_t n) { return n * kBlock - p.radius % kBlock; }

// The panel after the last one.
inline int64_t panels_end(const Problem& p) { return (p.width - 1 + p.radius % kBlock) / kBlock + 1; }

template <class T>
int64_t panels_size(const Problem& p, int64_t frames, int64_t channels) {
  return frames * (panels_end(p) - kFirstPanel) * p.height * channels * kPitch;
}

// A row of the map as (channels, padded width), with a margin on both sides that a panel may reach.
inline int64_t padded_width(const Problem& p) { return rounded_up(p.width, kPitch) + 2 * kMargin; }

// Frames of one sample of a tensor.
struct Part {
  const Map& map;
  int64_t sample, first_frame, frames, channels;
};

// Must be called by all threads of a parallel region, on a buffer of `panels_size`; `row` is a thread's own, zeros of
// channels · padded width at first. What a channel is, `read(cell, channel)` decides.
template <class T, class S, class Read>
Panels<T> pack_panels(const Problem& p, const Part& part, T* row, T* buffer, const Read& read) {
  const int64_t width = padded_width(p), row_size = part.channels * kPitch, panel_size = p.height * row_size;
  const Panels<T> panels{buffer, (panels_end(p) - kFirstPanel) * panel_size, panel_size, row_size};
#pragma omp for
  for (int64_t i = 0; i < part.frames * p.height; ++i) {
    const int64_t y = i % p.height, s = i / p.height;
    const S* from = at<S>(part.map, part.sample, part.first_frame + s, y, 0);
    // A few cells at a time, as one of both sides is strided: their cache lines are used whole.
    constexpr int64_t kTile = 16;
    for (int64_t x0 = 0; x0 < p.width; x0 += kTile) {
      const int64_t x1 = smaller_of(x0 + kTile, p.width);
      for (int64_t c = 0; c < part.channels; ++c) {
        for (int64_t x = x0; x < x1; ++x) row[c * width + kMargin + x] = read(from + x * part.map.column, c);
      }
    }
    for (int64_t n = kFirstPanel; n < panels_end(p); ++n) {
      T* to = const_cast<T*>(panels.at(s, n, y));
      for (int64_t c = 0; c < part.channels; ++c) {
        std::memcpy(to + c * kPitch, row + c * width + kMargin + panel_column(p, n), kPitch * sizeof(T));
      }
    }
  }
  return panels;
}

template <class T, class S>
Panels<T> pack_panels(const Problem& p, const Part& part, T* row, T* buffer) {
  return pack_panels<T, S>(p, part, row, buffer,
                           [&](const S* cell, int64_t c) { return widened(cell[c * part.map.channel]); });
}

// Whether the inner loops can read a map's cells where they are.
template <class T, class S>
bool readable_in_place(const Map& map, int64_t channels) {
  return sizeof(S) == sizeof(T) && map.channel == 1 && channels % kLanes<T> == 0;
}

template <class T, class S>
int64_t cells_size(const Problem& p, const Map& map, int64_t frames, int64_t channels) {
  if (readable_in_place<T, S>(map, channels)) return 0;
  return frames * p.height * p.width * rounded_up(channels, kLanes<T>);
}

// Must be called by all threads of a parallel region, on a buffer of `cells_size` unless they are readable in place.
template <class T, class S>
Cells<T> pack_cells(const Problem& p, const Part& part, T* buffer) {
  const Map& map = part.map;
  if (readable_in_place<T, S>(map, part.channels)) {
    return {reinterpret_cast<const T*>(at<S>(map, part.sample, part.first_frame, 0, 0)), map.frame, map.row,
            map.column};
  }
  const int64_t padded = rounded_up(part.channels, kLanes<T>), row = p.width * padded;
#pragma omp for
  for (int64_t i = 0; i < part.frames * p.height; ++i) {
    const int64_t y = i % p.height, s = i / p.height;
    constexpr int64_t kTile = 16;
    for (int64_t c0 = 0; c0 < padded; c0 += kTile) {
      const int64_t c1 = smaller_of(c0 + kTile, part.channels), padding = smaller_of(c0 + kTile, padded);
      for (int64_t x = 0; x < p.width; ++x) {
        const S* from = at<S>(map, part.sample, part.first_frame + s, y, x);
        T* to = buffer + i * row + x * padded;
        for (int64_t c = c0; c < c1; ++c) to[c] = widened(from[c * map.channel]);
        for (int64_t c = larger_of(c0, part.channels); c < padding; ++c) to[c] = T(0);
      }
    }
  }
  return {buffer, p.height * row, row, padded};
}

}  // namespace lmanet::LMANET_VARIANT
