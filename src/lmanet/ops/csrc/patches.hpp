// Passes over the pixels of a frame's logits, and what they leave of each patch of kPatch × kPatch pixels.
//
// A row of patches is worked on in strips. A strip's row of pixels is copied to where its classes lie below each other,
// whatever the layout in memory, so that vectors of pixels go through the classes in the first cache. A patch is one
// thread's, so that results do not depend on their number.
#pragma once

#include <omp.h>

#include "blocks.hpp"

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

// Bytes as numbers.
inline void take_row(const Map& map, const Strip& strip, int64_t row, int64_t channels, float* to, uint8_t) {
  const uint8_t* from = at<uint8_t>(map, strip.sample, 0, strip.row + row, strip.column);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t x = 0; x < strip.columns; ++x) to[c * kStrip + x] = from[x * map.column + c * map.channel];
  }
}

// The `row`th row of a strip's pixels, (channels, kStrip). What is beyond the image has any value.
inline void take_row(const Map& map, const Strip& strip, int64_t row, int64_t channels, float* to, float = 0) {
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

// Logits of a vector of pixels, kStrip from class to class, to e^(logit - largest); returns 1 / their sum.
LMANET_INLINE Vector<float> soften_pixels(float* logits, int64_t classes) {
  Vector<float> largest = load<float>(logits), total{};
  for (int64_t k = 1; k < classes; ++k) largest = larger<float>(largest, load<float>(logits + k * kStrip));
  for (int64_t k = 0; k < classes; ++k) {
    const Vector<float> weight = exp2<float>((load<float>(logits + k * kStrip) - largest) * float(kLog2E));
    store<float>(logits + k * kStrip, weight);
    total += weight;
  }
  return 1.0f / total;
}

// The first of the largest values of a vector of pixels over the classes, by number.
struct Best {
  Vector<float> value;
  Types<float>::IntVector label;

  LMANET_INLINE void meet(Vector<float> other, int64_t k) {
    const auto better = other > value;
    value = better ? other : value;
    label = better ? static_cast<int32_t>(k) - Types<float>::IntVector{} : label;
  }
};

inline void put_labels(Types<float>::IntVector labels, uint8_t* to) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes<float>), aligned(1), may_alias));
  *reinterpret_cast<Bytes*>(to) = __builtin_convertvector(labels, Bytes);
}

// Shares of the labels of one patch, `plane` from class to class; those of other labels are 0 already.
inline void count_labels(const uint8_t* labels, int64_t rows, int64_t columns, int64_t plane, float* shares) {
  int counts[256], others = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t x = 0; x < columns; ++x) {
      const uint8_t label = labels[row * kStrip + x];
      counts[label] = 0;
      others |= label ^ labels[0];
    }
  }
  if (others == 0) {  // as of most patches
    shares[labels[0] * plane] = 1;
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t x = 0; x < columns; ++x) {
      const uint8_t label = labels[row * kStrip + x];
      shares[label * plane] = ++counts[label] / static_cast<float>(rows * columns);
    }
  }
}

// Labels (kPatch, kStrip) of a strip to the image, and to shares of its patches.
inline void finish_labels(const Pixels& p, const Strip& strip, const uint8_t* labels, const Labels& to) {
  const int64_t rows = patches(p.height), columns = patches(p.width), plane = rows * columns;
  for (int64_t row = 0; row < strip.rows; ++row) {
    std::memcpy(to.pixels + (strip.sample * p.height + strip.row + row) * p.width + strip.column,
                labels + row * kStrip, strip.columns);
  }
  float* shares = to.shares + strip.sample * p.classes * plane + strip.row / kPatch * columns + strip.column / kPatch;
  for (int64_t k = 0; k < p.classes; ++k) fill_zeros(shares + k * plane, patches(strip.columns));
  for (int64_t x = 0; x < strip.columns; x += kPatch) {
    count_labels(labels + x, strip.rows, smaller_of(kPatch, strip.columns - x), plane, shares + x / kPatch);
  }
}

// Sums (classes, kStrip) over a strip's rows to means of its patches.
inline void put_means(const Pixels& p, const Strip& strip, const float* sums, float* means) {
  const int64_t rows = patches(p.height), columns = patches(p.width);
  for (int64_t k = 0; k < p.classes; ++k) {
    float* to = means + ((strip.sample * p.classes + k) * rows + strip.row / kPatch) * columns + strip.column / kPatch;
    for (int64_t x = 0; x < strip.columns; x += kPatch) {
      const int64_t wide = smaller_of(kPatch, strip.columns - x);
      float sum = 0;
      for (int64_t i = 0; i < wide; ++i) sum += sums[k * kStrip + x + i];
      to[x / kPatch] = sum / (strip.rows * wide);
    }
  }
}

// Means over the patches of what `prepare` makes of a vector of pixels, in place, times what it returns. S: what maps
// hold.
template <class S, class Prepare>
bool patch_means(const Pixels& p, const Map& maps, const Prepare& prepare, float* means) {
  const int64_t size = p.classes * kStrip;
  Buffer<float> works(p.threads * 2 * size);
  if (!works.data) return false;
  fill_zeros(works.data, p.threads * 2 * size);
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float *pixels = works.data + thread * 2 * size, *sums = pixels + size;
    fill_zeros(sums, size);
    for (int64_t row = 0; row < strip.rows; ++row) {
      take_row(maps, strip, row, p.classes, pixels, S{});
      for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
        const Vector<float> factor = prepare(pixels + x);
        for (int64_t j = x; j < size; j += kStrip) {
          store<float>(sums + j, load<float>(sums + j) + load<float>(pixels + j) * factor);
        }
      }
    }
    put_means(p, strip, sums, means);
  });
  return true;
}

inline bool patch_probabilities(const Pixels& p, const Map& logits, float* means) {
  return patch_means<float>(p, logits, [&](float* pixels) { return soften_pixels(pixels, p.classes); }, means);
}

inline bool patch_means(const Pixels& p, const Map& maps, bool bytes, float* means) {
  const auto as_is = [](const float*) { return broadcast<float>(1); };
  return bytes ? patch_means<uint8_t>(p, maps, as_is, means) : patch_means<float>(p, maps, as_is, means);
}

inline bool labelled(const Pixels& p, const Map& logits, const Labels& to) {
  const int64_t size = p.classes * kStrip;
  Buffer<float> works(p.threads * size);
  if (!works.data) return false;
  fill_zeros(works.data, p.threads * size);
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float* pixels = works.data + thread * size;
    uint8_t labels[kPatch * kStrip];
    for (int64_t row = 0; row < strip.rows; ++row) {
      take_row(logits, strip, row, p.classes, pixels);
      for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
        Best best{load<float>(pixels + x), {}};
        for (int64_t k = 1; k < p.classes; ++k) best.meet(load<float>(pixels + k * kStrip + x), k);
        put_labels(best.label, labels + row * kStrip + x);
      }
    }
    finish_labels(p, strip, labels, to);
  });
  return true;
}

// Rows of the change around a row of patches, (channels, 3, kStripPatches), those beyond the map as at its border: from
// the patch to the left of the strip on.
inline void take_change(const Pixels& p, const Map& change, const Strip& strip, float* to) {
  const int64_t rows = patches(p.height), columns = patches(p.width);
  const int64_t row = strip.row / kPatch, column = strip.column / kPatch, count = patches(strip.columns);
  for (int64_t c = 0; c <= p.classes; ++c) {
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t y = larger_of(0, smaller_of(row + i - 1, rows - 1));
      const float* from = at<float>(change, strip.sample, 0, y, 0) + c * change.channel;
      float* line = to + (c * 3 + i) * kStripPatches;
      line[0] = from[larger_of(0, column - 1) * change.column];
      if (change.column == 1) {
        std::memcpy(line + 1, from + column, count * sizeof(float));
      } else {
        for (int64_t j = 0; j < count; ++j) line[1 + j] = from[(column + j) * change.column];
      }
      line[1 + count] = from[smaller_of(column + count, columns - 1) * change.column];
    }
  }
}

// Of the change around a row of patches the bilinear interpolation at its `row`th row of pixels, still by patch:
// (channels, kStripPatches).
inline void mix_rows(const float* change, int64_t channels, int64_t row, float* to) {
  const float other = row % 3 == 0 ? 0.375f : 0.125f;  // pixels' middles lie 3/8 or 1/8 from the patch's
  for (int64_t c = 0; c < channels; ++c, change += 3 * kStripPatches, to += kStripPatches) {
    const float *own = change + kStripPatches, *next = row < kPatch / 2 ? change : own + kStripPatches;
    for (int64_t j = 0; j < kStripPatches; j += kLanes<float>) {
      store<float>(to + j, load<float>(own + j) * (1 - other) + load<float>(next + j) * other);
    }
  }
}

// The same between columns: from patches, one to the left of the first pixel's on, to a vector of pixels.
struct Stretch {
  Types<float>::IntVector left{};
  Vector<float> right_weight{};

  Stretch() {
    for (int i = 0; i < kLanes<float>; ++i) {
      left[i] = i / kPatch + i % kPatch / (kPatch / 2);
      right_weight[i] = 0.125f + 0.25f * ((i + kPatch / 2) % kPatch);
    }
  }

  LMANET_INLINE Vector<float> operator()(const float* patches) const {
    const Vector<float> values = load<float>(patches);
    return lanes(values, values, left) * (1 - right_weight) + lanes(values, values, left + 1) * right_weight;
  }
};

// The whole number from 0 to `last` next to a place, the even one between two; `last` for NaN.
LMANET_INLINE void nearest(Vector<float> place, int64_t last, int32_t* to) {
  constexpr float kShift = 8388608.0f;  // 2²³ rounds to whole numbers
  const Vector<float> within = larger<float>(limited<float>(place, broadcast<float>(last)), Vector<float>{});
  using Bits = Types<float>::IntVector;
  *reinterpret_cast<Bits*>(to) = __builtin_convertvector((within + kShift) - kShift, Bits);
}

// Labels before, at the nearest pixels to where the flow leads. `flow` is a row of a strip, (2, kStrip).
inline void carry(const Pixels& p, const Map& before, const float* flow, const Strip& strip, int64_t row,
                  int32_t* carried) {
  constexpr int L = kLanes<float>;
  const uint8_t* from = at<uint8_t>(before, strip.sample, 0, 0, 0);
  const Vector<float> steps = __builtin_convertvector(lane_numbers(), Vector<float>);
  for (int64_t x = 0; x < strip.columns; x += L) {
    alignas(64) int32_t columns[L], rows[L];
    nearest(steps + static_cast<float>(strip.column + x) + load<float>(flow + x), p.width - 1, columns);
    nearest(static_cast<float>(strip.row + row) + load<float>(flow + kStrip + x), p.height - 1, rows);
    for (int i = 0; i < L; ++i) carried[x + i] = from[rows[i] * before.row + columns[i] * before.column];
  }
}

inline bool steadied(const Pixels& p, const Map& logits, float* written, const Map& change, const Map& before,
                     const Map& flow, const Labels& to) {
  const int64_t channels = p.classes + 1;
  const int64_t size = p.classes * kStrip + channels * 4 * kStripPatches + 2 * kStrip;
  Buffer<float> works(p.threads * size);
  if (!works.data) return false;
  fill_zeros(works.data, p.threads * size);
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float *pixels = works.data + thread * size, *around = pixels + p.classes * kStrip;
    float *mixed = around + channels * 3 * kStripPatches, *leading = mixed + channels * kStripPatches;
    alignas(64) int32_t carried[kStrip];
    uint8_t labels[kPatch * kStrip];
    const Stretch stretch;
    take_change(p, change, strip, around);
    for (int64_t row = 0; row < strip.rows; ++row) {
      take_row(flow, strip, row, 2, leading);
      carry(p, before, leading, strip, row, carried);
      mix_rows(around, channels, row, mixed);
      take_row(logits, strip, row, p.classes, pixels);
      for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
        const float* patches = mixed + x / kPatch;
        const auto preferred = *reinterpret_cast<const Types<float>::IntVector*>(carried + x);
        const Vector<float> kept = stretch(patches + p.classes * kStripPatches);
        const Vector<float> share = soften_pixels(pixels + x, p.classes);
        Best best{broadcast<float>(-kInfinity<float>), {}};
        for (int64_t k = 0; k < p.classes; ++k) {
          float* pixel = pixels + k * kStrip + x;
          Vector<float> said = load<float>(pixel) * share + stretch(patches + k * kStripPatches);
          said += preferred == static_cast<int32_t>(k) ? kept : Vector<float>{};
          const Vector<float> logit = log2(larger<float>(said, broadcast<float>(1e-30f))) * float(kLn2);
          store<float>(pixel, logit);
          best.meet(logit, k);
        }
        put_labels(best.label, labels + row * kStrip + x);
      }
      put_row(pixels, logits, written, strip, row, p.classes);
    }
    finish_labels(p, strip, labels, to);
  });
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
