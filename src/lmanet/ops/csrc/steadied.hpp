// Logits changed by what is known of their patches, and by the labels given to the frame before.
#pragma once

#include "patches.hpp"

namespace lmanet::LMANET_VARIANT {

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

// The first of the largest values of a vector of pixels over the classes, by number.
struct Best {
  Vector<float> value = broadcast<float>(-kInfinity<float>);
  Types<float>::IntVector label{};

  LMANET_INLINE void meet(Vector<float> other, int64_t k) {
    const auto better = other > value;
    value = better ? other : value;
    label = better ? static_cast<int32_t>(k) - Types<float>::IntVector{} : label;
  }
};

// The first `count` labels of a vector of them.
inline void put_labels(Types<float>::IntVector labels, int64_t count, uint8_t* to) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes<float>), aligned(1), may_alias));
  const Bytes bytes = __builtin_convertvector(labels, Bytes);
  if (count >= kLanes<float>) {
    *reinterpret_cast<Bytes*>(to) = bytes;
  } else {
    std::memcpy(to, &bytes, count);
  }
}

inline bool steadied(const Pixels& p, const Map& logits, float* written, const Map& change, const Map& before,
                     const Map& flow, uint8_t* labels) {
  const int64_t channels = p.classes + 1;
  const int64_t size = p.classes * kStrip + channels * 4 * kStripPatches + 2 * kStrip;
  Buffer<float> works(p.threads * size);
  if (!works.data) return false;
  fill_zeros(works.data, p.threads * size);
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float *pixels = works.data + thread * size, *around = pixels + p.classes * kStrip;
    float *mixed = around + channels * 3 * kStripPatches, *leading = mixed + channels * kStripPatches;
    alignas(64) int32_t carried[kStrip];
    const Stretch stretch;
    take_change(p, change, strip, around);
    for (int64_t row = 0; row < strip.rows; ++row) {
      take_row(flow, strip, row, 2, leading);
      carry(p, before, leading, strip, row, carried);
      mix_rows(around, channels, row, mixed);
      take_row(logits, strip, row, p.classes, pixels);
      uint8_t* line = labels + (strip.sample * p.height + strip.row + row) * p.width + strip.column;
      for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
        const float* patches = mixed + x / kPatch;
        const auto preferred = *reinterpret_cast<const Types<float>::IntVector*>(carried + x);
        const Vector<float> kept = stretch(patches + p.classes * kStripPatches);
        const Vector<float> share = soften_pixels(pixels + x, p.classes);
        Best best;
        for (int64_t k = 0; k < p.classes; ++k) {
          float* pixel = pixels + k * kStrip + x;
          Vector<float> said = load<float>(pixel) * share + stretch(patches + k * kStripPatches);
          said += preferred == static_cast<int32_t>(k) ? kept : Vector<float>{};
          const Vector<float> logit = log2(larger<float>(said, broadcast<float>(1e-30f))) * float(kLn2);
          store<float>(pixel, logit);
          best.meet(logit, k);
        }
        put_labels(best.label, strip.columns - x, line + x);
      }
      put_row(pixels, logits, written, strip, row, p.classes);
    }
  });
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
