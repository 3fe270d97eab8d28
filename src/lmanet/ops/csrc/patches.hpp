// Passes over the pixels of a frame, and what they leave of each patch of kPatch × kPatch pixels.
//
// A patch is one thread's, so that results do not depend on their number.
#pragma once

#include "blocks.hpp"
#include "strips.hpp"

namespace lmanet::LMANET_VARIANT {

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

// Sums over a strip's rows to means of its patches. The sums lie `channel` and `column` apart.
inline void put_means(const Pixels& p, const Strip& strip, const float* sums, int64_t channel, int64_t column,
                      float* means) {
  const int64_t rows = patches(p.height), columns = patches(p.width);
  for (int64_t k = 0; k < p.classes; ++k) {
    float* to = means + ((strip.sample * p.classes + k) * rows + strip.row / kPatch) * columns + strip.column / kPatch;
    for (int64_t x = 0; x < strip.columns; x += kPatch) {
      const int64_t wide = smaller_of(kPatch, strip.columns - x);
      float sum = 0;
      for (int64_t i = 0; i < wide; ++i) sum += sums[k * channel + (x + i) * column];
      to[x / kPatch] = sum / (strip.rows * wide);
    }
  }
}

inline bool patch_probabilities(const Pixels& p, const Map& logits, float* means) {
  const int64_t size = p.classes * kStrip;
  Buffer<float> works(p.threads * 2 * size);
  if (!works.data) return false;
  fill_zeros(works.data, p.threads * 2 * size);
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float *pixels = works.data + thread * 2 * size, *sums = pixels + size;
    fill_zeros(sums, size);
    for (int64_t row = 0; row < strip.rows; ++row) {
      take_row(logits, strip, row, p.classes, pixels);
      for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
        const Vector<float> share = soften_pixels(pixels + x, p.classes);
        for (int64_t j = x; j < size; j += kStrip) {
          store<float>(sums + j, load<float>(sums + j) + load<float>(pixels + j) * share);
        }
      }
    }
    put_means(p, strip, sums, kStrip, 1, means);
  });
  return true;
}

template <class S>
bool patch_means(const Pixels& p, const Map& maps, float* means) {
  // Pixels whose channels are all there is between them are summed up as they lie.
  const bool together = maps.channel == 1 && maps.column == p.classes;
  const int64_t lines = together ? 1 : p.classes, step = together ? 1 : maps.column, size = p.classes * kStrip;
  Buffer<float> works(p.threads * size);
  if (!works.data) return false;
  for_each_strip(p, [&](const Strip& strip, int thread) {
    float* sums = works.data + thread * size;
    fill_zeros(sums, size);
    const int64_t length = together ? strip.columns * p.classes : strip.columns;
    for (int64_t row = 0; row < strip.rows; ++row) {
      const S* from = at<S>(maps, strip.sample, 0, strip.row + row, strip.column);
      for (float* line = sums; line < sums + lines * kStrip; line += kStrip, from += maps.channel) {
        if (step == 1) {
          for (int64_t i = 0; i < length; ++i) line[i] += from[i];
        } else {
          for (int64_t i = 0; i < length; ++i) line[i] += from[i * step];
        }
      }
    }
    put_means(p, strip, sums, together ? 1 : kStrip, together ? p.classes : 1, means);
  });
  return true;
}

inline bool patch_means(const Pixels& p, const Map& maps, bool bytes, float* means) {
  return bytes ? patch_means<uint8_t>(p, maps, means) : patch_means<float>(p, maps, means);
}

}  // namespace lmanet::LMANET_VARIANT
