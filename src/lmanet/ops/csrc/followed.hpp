// How well the places of a map are found in the map before: see lmanet/ops/followed.py.
//
// A row of places is one thread's, so that results do not depend on their number.
#pragma once

#include <omp.h>

#include "blocks.hpp"

namespace lmanet::LMANET_VARIANT {

// Means over squares around each place, as far as they lie on the map (height, width).
struct Around {
  const Pixels& p;
  int64_t reach, margin = rounded_up(reach, kLanes<float>) + kLanes<float>;

  int64_t size() const { return rounded_up(p.width, kLanes<float>) + 2 * margin; }

  // Of a row. `line` are `size()` zeros at first.
  void operator()(const float* map, int64_t row, float* line, float* to) const {
    constexpr int64_t L = kLanes<float>;
    const int64_t first = larger_of(row - reach, 0), last = smaller_of(row + reach, p.height - 1);
    for (int64_t x = 0; x < p.width; x += L) {
      Vector<float> sum{};
      for (int64_t y = first; y <= last; ++y) sum += load_part(map + y * p.width + x, smaller_of(L, p.width - x));
      store<float>(line + margin + x, sum);
    }
    const Vector<float> numbers = __builtin_convertvector(lane_numbers(), Vector<float>);
    for (int64_t x = 0; x < p.width; x += L) {
      Vector<float> sum{};
      for (int64_t i = -reach; i <= reach; ++i) sum += load<float>(line + margin + x + i);
      const Vector<float> place = numbers + static_cast<float>(x);
      const Vector<float> columns =
          limited<float>(place + static_cast<float>(reach + 1), broadcast(static_cast<float>(p.width))) -
          larger<float>(place - static_cast<float>(reach), Vector<float>{});
      store<float>(to + x, sum / (columns * static_cast<float>(last - first + 1)));
    }
  }
};

inline bool followed(const Pixels& p, const Found& found, const Following& how, float* cues) {
  constexpr int64_t L = kLanes<float>;
  const int64_t plane = p.height * p.width, colours = p.classes, wide = rounded_up(p.width, L);
  const Around near{p, how.contrast / 2}, far{p, how.surroundings / 2};
  const int64_t lines = near.size() + far.size(), work = lines + (2 * colours + 1) * wide;
  Buffer<float> works(p.threads * work), maps(3 * plane);  // of round trips, and of contrasts before their means
  if (!works.data || !maps.data) return false;
  fill_zeros(works.data, p.threads * work);
  float *trips = maps.data, *changes = trips + plane, *textures = changes + plane;
#pragma omp parallel num_threads(p.threads)
  {
    float *line = works.data + omp_get_thread_num() * work, *far_line = line + near.size(), *means = line + lines;
    for (int64_t sample = 0; sample < p.batch; ++sample) {
      const float *flow = found.flow + sample * 2 * plane, *inside = found.inside + sample * plane;
      const float *now = found.colours + sample * colours * plane, *read = found.read + sample * (2 + colours) * plane;
      float* to = cues + sample * 6 * plane;
#pragma omp for schedule(static)
      for (int64_t row = 0; row < p.height; ++row) {
        for (int64_t c = 0; c < colours; ++c) {
          near(now + c * plane, row, line, means + 2 * c * wide);
          near(read + (2 + c) * plane, row, line, means + (2 * c + 1) * wide);
        }
        for (int64_t x = 0; x < p.width; x += L) {
          const int64_t at = row * p.width + x, count = smaller_of(L, p.width - x);
          const auto take = [&](const float* map) { return load_part(map + at, count); };
          Vector<float> error{}, squares{}, apart{}, change{}, texture{};
          for (int64_t i = 0; i < 2; ++i) {
            const Vector<float> there = take(flow + i * plane), back = take(read + i * plane);
            error += (there + back) * (there + back);
            squares += there * there + back * back;
          }
          error *= how.area;
          squares *= how.area;
          for (int64_t c = 0; c < colours; ++c) {
            const Vector<float> a = take(now + c * plane), b = take(read + (2 + c) * plane);
            const Vector<float> own = a - load<float>(means + 2 * c * wide + x);
            const Vector<float> other = b - load<float>(means + (2 * c + 1) * wide + x);
            apart += a > b ? a - b : b - a;
            change += (own - other) * (own - other);
            texture += own * own + other * other;
          }
          const Vector<float> misses = error / (how.round_trip + squares * 0.01f);
          store_part(trips + at, exp2<float>(misses * float(-kLog2E)) * take(inside), count);
          store_part(changes + at, change / static_cast<float>(colours), count);
          store_part(textures + at, texture / static_cast<float>(colours), count);
          store_part(to + at, error, count);
          store_part(to + plane + at, squares, count);
          store_part(to + 2 * plane + at, apart / static_cast<float>(colours), count);
        }
      }
#pragma omp for schedule(static)
      for (int64_t row = 0; row < p.height; ++row) {
        const float* from[] = {trips, changes, textures};
        for (int i = 0; i < 3; ++i) {
          (i == 0 ? far : near)(from[i], row, i == 0 ? far_line : line, means);
          std::memcpy(to + (3 + i) * plane + row * p.width, means, p.width * sizeof(float));
        }
      }
    }
  }
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
