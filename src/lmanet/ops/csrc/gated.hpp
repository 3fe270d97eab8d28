// Which of three answers to believe: a small network that looks at places and those beside them, and the mixture of the
// answers by its weights.
//
// A place is one thread's, so that results do not depend on their number.
#pragma once

#include "patches.hpp"

namespace lmanet::LMANET_VARIANT {

constexpr int kComparisons = 10;
constexpr int kOutputs = 8;  // of a layer, worked on together
// And vectors of places: so many that the sums fit into the registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAbreast = 2;
#else
constexpr int kAbreast = 1;
#endif

// A layer's bias and weights by groups of outputs, (groups, 1 + inputs, kOutputs), zeros for those beyond.
inline int64_t packed_size(const Layer& layer) {
  return rounded_up(layer.outputs, kOutputs) * (1 + layer.inputs);
}

inline float* pack_layer(const Layer& layer, float* to) {
  for (int64_t first = 0; first < layer.outputs; first += kOutputs) {
    for (int64_t i = -1; i < layer.inputs; ++i) {
      for (int64_t o = first; o < first + kOutputs; ++o, ++to) {
        *to = o >= layer.outputs ? 0 : i < 0 ? layer.bias[o] : layer.weights[o * layer.inputs + i];
      }
    }
  }
  return to;
}

// A layer's outputs at a strip's places, (outputs, kStrip), those below 0 as 0 if asked for. Input i of a place lies
// inputs[i] from where `from` has the first place.
inline void apply_layer(const Layer& layer, const float* packed, const float* from, const int64_t* inputs,
                        int64_t columns, bool rectified, float* to) {
  constexpr int L = kLanes<float>;
  const Vector<float> least = broadcast(rectified ? 0.0f : -kInfinity<float>);
  for (int64_t first = 0; first < layer.outputs; first += kOutputs, packed += kOutputs * (1 + layer.inputs)) {
    for (int64_t x = 0; x < columns; x += kAbreast * L) {
      Vector<float> sums[kOutputs][kAbreast];
      for (int o = 0; o < kOutputs; ++o) {
        for (int a = 0; a < kAbreast; ++a) sums[o][a] = broadcast(packed[o]);
      }
      const float* weights = packed + kOutputs;
      for (int64_t i = 0; i < layer.inputs; ++i, weights += kOutputs) {
        Vector<float> values[kAbreast];
        for (int a = 0; a < kAbreast; ++a) values[a] = load<float>(from + inputs[i] + x + a * L);
#pragma GCC unroll 8
        for (int o = 0; o < kOutputs; ++o) {
          for (int a = 0; a < kAbreast; ++a) sums[o][a] += weights[o] * values[a];
        }
      }
      for (int o = 0; o < kOutputs; ++o) {
        for (int a = 0; a < kAbreast; ++a) {
          store<float>(to + (first + o) * kStrip + x + a * L, larger<float>(sums[o][a], least));
        }
      }
    }
  }
}

LMANET_INLINE Vector<float> distance(Vector<float> a, Vector<float> b) { return a > b ? a - b : b - a; }

// What the answers, (classes, kStrip) each, say of themselves and of each other at a vector of places, as half of the
// log-odds: `count` places, and `pitch` from comparison to comparison.
inline void compare(const float* present, const float* carried, const float* cells, int64_t classes, int64_t count,
                    float* to, int64_t pitch) {
  using V = Vector<float>;
  const V none = broadcast<float>(-kInfinity<float>);
  V sure = none, sure_before = none, sure_cells = none, carried_at_said{}, cells_at_said{}, present_at_before{},
    cells_at_before{}, apart[3]{};
  for (int64_t k = 0; k < classes; ++k) {
    const V p = load<float>(present + k * kStrip), q = load<float>(carried + k * kStrip);
    const V m = load<float>(cells + k * kStrip);
    const auto better = p > sure, better_before = q > sure_before;
    sure = better ? p : sure;
    carried_at_said = better ? q : carried_at_said;
    cells_at_said = better ? m : cells_at_said;
    sure_before = better_before ? q : sure_before;
    present_at_before = better_before ? p : present_at_before;
    cells_at_before = better_before ? m : cells_at_before;
    sure_cells = larger<float>(sure_cells, m);
    apart[0] += distance(p, q);
    apart[1] += distance(p, m);
    apart[2] += distance(q, m);
  }
  const V shares[kComparisons] = {sure,           sure_before,     sure_cells,        apart[0] / 2,  apart[1] / 2,
                                  apart[2] / 2,   carried_at_said, present_at_before, cells_at_said, cells_at_before};
  for (int i = 0; i < kComparisons; ++i) {
    const V share = larger<float>(limited<float>(shares[i], broadcast(0.99f)), broadcast(0.01f));
    store_part(to + i * pitch, log2(share / (1.0f - share)) * float(kLn2 / 2), count);
  }
}

// Both passes over a strip's rows: what is seen of a place, and the mixture by what is seen around it.
struct GatePass {
  const Pixels& p;
  const Gate& gate;
  int64_t channels = gate.around.inputs / 9, known = channels - kComparisons;
  int64_t pitch = rounded_up(p.width, kStrip) + 2 * kLanes<float>, line = channels * pitch;
  int64_t answer = p.classes * kStrip, hidden = rounded_up(gate.mixed.inputs, kOutputs) * kStrip;
  int64_t work = 3 * answer + larger_of(known * kStrip, 3 * hidden);

  Buffer<float> seen{p.batch * (p.height + 2) * line};  // (batch, height + 2, channels, pitch), zeros around the map
  Buffer<float> works{p.threads * work};
  Buffer<float> weights{packed_size(gate.around) + packed_size(gate.mixed) + packed_size(gate.out)};
  Buffer<int64_t> neighbours{gate.around.inputs}, below{gate.mixed.inputs};

  bool begin() {
    if (!seen.data || !works.data || !weights.data || !neighbours.data || !below.data) return false;
    fill_zeros(seen.data, p.batch * (p.height + 2) * line);
    fill_zeros(works.data, p.threads * work);
    pack_layer(gate.out, pack_layer(gate.mixed, pack_layer(gate.around, weights.data)));
    for (int64_t i = 0; i < gate.around.inputs; ++i) {  // of a channel three rows of three
      neighbours.data[i] = (i / 3 % 3 - 1) * line + i / 9 * pitch + i % 3 - 1;
    }
    for (int64_t i = 0; i < gate.mixed.inputs; ++i) below.data[i] = i * kStrip;
    return true;
  }

  // What is seen of the first place of a strip's row.
  float* place(const Strip& strip, int64_t row) const {
    return seen.data + (strip.sample * (p.height + 2) + strip.row + row + 1) * line + kLanes<float> + strip.column;
  }

  void take(const Answers& answers, const Strip& strip, int64_t row, float* to) const {
    take_row(answers.present, strip, row, p.classes, to);
    take_row(answers.carried, strip, row, p.classes, to + answer);
    take_row(answers.cells, strip, row, p.classes, to + 2 * answer);
  }

  void see(const Answers& answers, const Map& cues, const Strip& strip, int64_t row, int thread) const {
    float *taken = works.data + thread * work, *own = taken + 3 * answer, *to = place(strip, row);
    take(answers, strip, row, taken);
    take_row(cues, strip, row, known, own);
    for (int64_t c = 0; c < known; ++c) {
      std::memcpy(to + c * pitch, own + c * kStrip, strip.columns * sizeof(float));
    }
    for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
      const int64_t count = smaller_of(kLanes<float>, strip.columns - x);
      const float* present = taken + x;
      compare(present, present + answer, present + 2 * answer, p.classes, count, to + known * pitch + x, pitch);
    }
  }

  void mix(const Answers& answers, const Strip& strip, int64_t row, int thread, float* mixture, float* past) const {
    float *taken = works.data + thread * work, *first = taken + 3 * answer, *second = first + hidden;
    float* shares = second + hidden;
    const float* mixed = weights.data + packed_size(gate.around);
    apply_layer(gate.around, weights.data, place(strip, row), neighbours.data, strip.columns, true, first);
    apply_layer(gate.mixed, mixed, first, below.data, strip.columns, true, second);
    apply_layer(gate.out, mixed + packed_size(gate.mixed), second, below.data, strip.columns, false, shares);
    take(answers, strip, row, taken);
    const int64_t plane = p.height * p.width, from = (strip.row + row) * p.width + strip.column;
    for (int64_t x = 0; x < strip.columns; x += kLanes<float>) {
      const int64_t count = smaller_of(kLanes<float>, strip.columns - x);
      const Vector<float> share = soften_pixels(shares + x, 3);
      const Vector<float> a = load<float>(shares + x) * share, b = load<float>(shares + kStrip + x) * share;
      const Vector<float> c = load<float>(shares + 2 * kStrip + x) * share;
      store_part(past + strip.sample * plane + from + x, 1.0f - a, count);
      float* to = mixture + strip.sample * p.classes * plane + from + x;
      for (const float* k = taken + x; k < taken + answer; k += kStrip, to += plane) {
        store_part(to, a * load<float>(k) + b * load<float>(k + answer) + c * load<float>(k + 2 * answer), count);
      }
    }
  }
};

inline bool gated(const Pixels& p, const Answers& answers, const Map& cues, const Gate& gate, float* mixture,
                  float* past) {
  GatePass pass{p, gate};
  if (!pass.begin()) return false;
  for_each_strip(p, [&](const Strip& strip, int thread) {
    for (int64_t row = 0; row < strip.rows; ++row) pass.see(answers, cues, strip, row, thread);
  });
  for_each_strip(p, [&](const Strip& strip, int thread) {
    for (int64_t row = 0; row < strip.rows; ++row) pass.mix(answers, strip, row, thread, mixture, past);
  });
  return true;
}

}  // namespace lmanet::LMANET_VARIANT
