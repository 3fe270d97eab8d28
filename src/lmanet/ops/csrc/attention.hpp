// What the Python module and the variants of the kernel know of each other.
#pragma once

#include <cstdint>

namespace lmanet {

enum class Type { kFloat32, kFloat64, kBFloat16 };

// A tensor (B, S, C, h, w) of the problem's type with its strides in elements; a query has one frame.
struct Map {
  const void* data;
  int64_t batch, frame, channel, row, column;
};

// A tensor to write: its elements are (B, S, h, w, C), contiguous.
struct Output {
  void* data;
};

struct Problem {
  Type type;
  int64_t batch, frames, key_channels, value_channels, height, width;
  int64_t radius;    // window / 2
  bool zero_border;  // positions outside the map: score 0 and value 0 instead of none
  double scale;      // of the scores
  int threads;
};

// Returns false if there was no memory for the working buffers. log_sum is (B, h, w), contiguous, float for all types
// but float64.
using Forward = bool (*)(const Problem&, const Map& query, const Map& keys, const Map& values, const Output& output,
                         void* log_sum);

using Backward = bool (*)(const Problem&, const Map& gradient, const Map& query, const Map& keys, const Map& values,
                          const Map& output, const void* log_sum, const Output& query_gradient,
                          const Output& key_gradient, const Output& value_gradient);

// Maps of pixels.
struct Pixels {
  int64_t batch, classes, height, width;
  int threads;
};

// They too return false if there was no memory for the working buffers. Logits are (B, K, H, W) float, the means
// (B, K, h', w') float, contiguous.
using PatchProbabilities = bool (*)(const Pixels&, const Map& logits, float* means);

// The same of maps as they are, float or bytes; `classes` are their channels.
using PatchMeans = bool (*)(const Pixels&, const Map& maps, bool bytes, float* means);

// `written` are the logits' own elements; change is (B, K + 1, h', w') float, before (B, H, W) uint8 without a channel,
// flow (B, 2, H, W) float; labels (B, H, W) uint8, contiguous.
using Steadied = bool (*)(const Pixels&, const Map& logits, float* written, const Map& change, const Map& before,
                          const Map& flow, uint8_t* labels);

// Three answers (B, K, h, w) float to which class a place shows.
struct Answers {
  Map present, carried, cells;
};

// A convolution: weights (outputs, inputs) and bias (outputs,) float, contiguous. A 3×3 one has nine inputs a channel.
struct Layer {
  const float *weights, *bias;
  int64_t inputs, outputs;
};

// 3×3, 1×1 and 1×1. The hidden layers are as wide as each other.
struct Gate {
  Layer around, mixed, out;
};

// Cues (B, C, h, w) float; mixture (B, K, h, w) and past (B, 1, h, w) float, contiguous.
using Gated = bool (*)(const Pixels&, const Answers&, const Map& cues, const Gate&, float* mixture, float* past);

// Of patches (B, C, h, w) float, contiguous: flow there (2), whether inside (1), colours, and where it leads the flow
// back and the colours before (2 and as many).
struct Found {
  const float *flow, *inside, *colours, *read;
};

// Sides of the squares that means are of; squared pixels of a patch, and those of a round trip that still returns.
struct Following {
  int64_t surroundings, contrast;
  float area, round_trip;
};

// Cues (B, 6, h, w) float, contiguous. `classes` are the colours.
using Followed = bool (*)(const Pixels&, const Found&, const Following&, float* cues);

struct Variant {
  const char* name;
  Forward forward;
  Backward backward;
  PatchProbabilities patch_probabilities;
  PatchMeans patch_means;
  Steadied steadied;
  Gated gated;
  Followed followed;
};

}  // namespace lmanet
