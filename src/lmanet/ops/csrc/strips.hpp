// Strips of a row of patches. A strip's row of pixels is copied to where its classes lie below each other, whatever the
// layout in memory, so that vectors of pixels go through the classes in the first cache.
#pragma once

#include <omp.h>

#include "buffers.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr int64_t kPatch = 4;
constexpr int64_t kStrip = 64;         // columns
constexpr int64_t kStripPatches = 32;  // room for those of a strip, one on each side, and what a vector reads beyond

inline int64_t patches(int64_t pixels) { return (pixels + kPatch - 1) / kPatch; }

// Where a strip of a row of patches lies: its first pixel, and how many pixels it has.
struct Strip {
  int64_t sample, row, column, rows, columns;
};

// `work(strip, thread)` for each strip of the image.
template <class Work>
void for_each_strip(const Pixels& p, const Work& work) {
  const int64_t rows = patches(p.height);
#pragma omp parallel for num_threads(p.threads) schedule(static)
  for (int64_t i = 0; i < p.batch * rows; ++i) {
    const int64_t row = i % rows * kPatch;
    for (int64_t column = 0; column < p.width; column += kStrip) {
      work(Strip{i / rows, row, column, smaller_of(kPatch, p.height - row), smaller_of(kStrip, p.width - column)},
           omp_get_thread_num());
    }
  }
}

// Whether channels lie one after the other, so many that squares of them are best turned round in the registers.
inline bool turned(const Map& map, int64_t channels) { return map.channel == 1 && channels > kLanes<float> / 2; }

// `use(x, c, pixels, count)` for squares of at most kLanes pixels from x on and `count` channels from c on.
template <class Use>
LMANET_INLINE void for_each_square(const Strip& strip, int64_t channels, const Use& use) {
  constexpr int64_t L = kLanes<float>;
  for (int64_t x = 0; x < strip.columns; x += L) {
    for (int64_t c = 0; c < channels; c += L) {
      use(x, c, smaller_of(L, strip.columns - x), smaller_of(L, channels - c));
    }
  }
}

// The `row`th row of a strip's pixels, (channels, kStrip). What is beyond the image has any value.
inline void take_row(const Map& map, const Strip& strip, int64_t row, int64_t channels, float* to) {
  const float* from = at<float>(map, strip.sample, 0, strip.row + row, strip.column);
  if (map.column == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      std::memcpy(to + c * kStrip, from + c * map.channel, strip.columns * sizeof(float));
    }
  } else if (turned(map, channels)) {
    for_each_square(strip, channels, [&](int64_t x, int64_t c, int64_t pixels, int64_t count) {
      Vector<float> square[kLanes<float>];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<float>; ++i) {
        square[i] = load_part(from + (x + smaller_of(i, pixels - 1)) * map.column + c, count);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<float>; ++i) {
        if (i < count) store<float>(to + (c + i) * kStrip + x, square[i]);
      }
    });
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t x = 0; x < strip.columns; ++x) to[c * kStrip + x] = from[x * map.column + c * map.channel];
    }
  }
}

inline void put_row(const float* from, const Map& map, float* written, const Strip& strip, int64_t row,
                    int64_t channels) {
  float* to = written + (at<float>(map, strip.sample, 0, strip.row + row, strip.column) - at<float>(map, 0, 0, 0, 0));
  if (map.column == 1) {
    for (int64_t c = 0; c < channels; ++c) {
      std::memcpy(to + c * map.channel, from + c * kStrip, strip.columns * sizeof(float));
    }
  } else if (turned(map, channels)) {
    for_each_square(strip, channels, [&](int64_t x, int64_t c, int64_t pixels, int64_t count) {
      Vector<float> square[kLanes<float>];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<float>; ++i) {
        square[i] = load<float>(from + (c + smaller_of(i, count - 1)) * kStrip + x);
      }
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<float>; ++i) {
        if (i < pixels) store_part(to + (x + i) * map.column + c, square[i], count);
      }
    });
  } else {
    for (int64_t x = 0; x < strip.columns; ++x) {
      for (int64_t c = 0; c < channels; ++c) to[x * map.column + c * map.channel] = from[c * kStrip + x];
    }
  }
}

}  // namespace lmanet::LMANET_VARIANT
