// Python module lmanet.ops._native: chooses the variant, checks what it is given, and calls it without the GIL.
//
// lmanet/ops/native.py is the only caller.

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "cpu.hpp"

namespace nb = nanobind;

namespace lmanet {

#define LMANET_DECLARE(name)    \
  namespace name {              \
  extern const Variant variant; \
  }
LMANET_DECLARE(portable)
LMANET_DECLARE(avx2)
LMANET_DECLARE(avx512)
LMANET_DECLARE(amx)

namespace {

// Those that this build has and this CPU can run, the fastest first.
const std::vector<const Variant*>& runnable_variants() {
  static const std::vector<const Variant*> variants = [] {
    std::vector<const Variant*> found;
#if defined(LMANET_HAVE_AMX)
    if (cpu_has_avx512() && cpu_has_amx()) found.push_back(&amx::variant);
#endif
#if defined(LMANET_HAVE_AVX512)
    if (cpu_has_avx512()) found.push_back(&avx512::variant);
#endif
#if defined(LMANET_HAVE_AVX2)
    if (cpu_has_avx2()) found.push_back(&avx2::variant);
#endif
    found.push_back(&portable::variant);
    return found;
  }();
  return variants;
}

const Variant& find_variant(const std::string& name) {
  for (const Variant* variant : runnable_variants()) {
    if (name == variant->name) return *variant;
  }
  throw nb::value_error(("variant '" + name + "' is not among those that run here").c_str());
}

Problem problem_of(const Tensor& query, const Tensor& keys, const Tensor& values, int64_t window, bool zero_border,
                   double scale, int threads) {
  require(query.ndim() == 4 && keys.ndim() == 5 && values.ndim() == 5,
          "query must be (B, Ck, h, w), keys and values 5D");
  Problem p;
  p.type = type_of(query);
  p.batch = query.shape(0), p.key_channels = query.shape(1), p.height = query.shape(2), p.width = query.shape(3);
  p.frames = keys.shape(1), p.value_channels = values.shape(2);
  require_shape(keys, {p.batch, p.frames, p.key_channels, p.height, p.width}, "keys must be (B, S, Ck, h, w)");
  require_shape(values, {p.batch, p.frames, p.value_channels, p.height, p.width}, "values must be (B, S, Cv, h, w)");
  require(type_of(keys) == p.type && type_of(values) == p.type, "query, keys and values must have one dtype");
  require(p.batch * p.frames * p.key_channels * p.value_channels * p.height * p.width > 0, "tensors must not be empty");
  require(window >= 1 && window % 2 == 1, "window must be odd");
  require(threads >= 1, "threads must be at least 1");
  // A window beyond the map on all sides is as good as a larger one, but for positions counted outside.
  p.radius = window / 2;
  p.zero_border = zero_border;
  p.scale = scale;
  p.threads = threads;
  return p;
}

void forward(const Tensor& query, const Tensor& keys, const Tensor& values, const WritableTensor& output,
             const WritableTensor& log_sum, int64_t window, bool zero_border, double scale, int threads,
             const std::string& variant) {
  const Problem p = problem_of(query, keys, values, window, zero_border, scale, threads);
  const Type precise = p.type == Type::kFloat64 ? Type::kFloat64 : Type::kFloat32;
  const Output to = output_of(output, {p.batch, p.height, p.width, p.value_channels}, p.type,
                              "output must be (B, h, w, Cv), contiguous, of the query's dtype");
  const Output sums = output_of(log_sum, {p.batch, p.height, p.width}, precise,
                                "log_sum must be (B, h, w), contiguous, float32 (float64 for float64)");
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.forward(p, map_of(query), map_of(keys), map_of(values), to, sums.data)) throw std::bad_alloc();
}

void backward(const Tensor& gradient, const Tensor& query, const Tensor& keys, const Tensor& values,
              const Tensor& output, const Tensor& log_sum, const WritableTensor& query_gradient,
              const WritableTensor& key_gradient, const WritableTensor& value_gradient, int64_t window, double scale,
              int threads, const std::string& variant) {
  const Problem p = problem_of(query, keys, values, window, false, scale, threads);
  const Type precise = p.type == Type::kFloat64 ? Type::kFloat64 : Type::kFloat32;
  for (const Tensor* tensor : {&gradient, &output}) {
    require_shape(*tensor, {p.batch, p.value_channels, p.height, p.width}, "gradient and output must be (B, Cv, h, w)");
    require(type_of(*tensor) == p.type, "gradient and output must have the query's dtype");
  }
  output_of(WritableTensor(log_sum), {p.batch, p.height, p.width}, precise,
            "log_sum must be (B, h, w), contiguous, float32 (float64 for float64)");
  const Output to_query = output_of(query_gradient, {p.batch, p.height, p.width, p.key_channels}, p.type,
                                    "query_gradient must be (B, h, w, Ck), contiguous, of the query's dtype");
  const Output to_keys = output_of(key_gradient, {p.batch, p.frames, p.height, p.width, p.key_channels}, p.type,
                                   "key_gradient must be (B, S, h, w, Ck), contiguous, of the query's dtype");
  const Output to_values = output_of(value_gradient, {p.batch, p.frames, p.height, p.width, p.value_channels}, p.type,
                                     "value_gradient must be (B, S, h, w, Cv), contiguous, of the query's dtype");
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.backward(p, map_of(gradient), map_of(query), map_of(keys), map_of(values), map_of(output), log_sum.data(),
                       to_query, to_keys, to_values)) {
    throw std::bad_alloc();
  }
}

void patch_probabilities(const Tensor& logits, const WritableTensor& means, int threads, const std::string& variant) {
  const Pixels p = logits_of(logits, threads);
  float* to = patches_to(means, p, "means must be (B, K, h', w'), contiguous, float32");
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.patch_probabilities(p, map_of(logits), to)) throw std::bad_alloc();
}

void patch_means(const Tensor& maps, const WritableTensor& means, int threads, const std::string& variant) {
  const bool bytes = maps.dtype() == nb::dtype<uint8_t>();
  const Pixels p = bytes ? pixels_of(maps, threads) : logits_of(maps, threads);
  float* to = patches_to(means, p, "means must be (B, C, h', w'), contiguous, float32");
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.patch_means(p, map_of(maps), bytes, to)) throw std::bad_alloc();
}

void steadied(const WritableTensor& logits, const Tensor& change, const Tensor& before, const Tensor& flow,
              const WritableTensor& labels, int threads, const std::string& variant) {
  const Pixels p = logits_of(Tensor(logits), threads);
  require_shape(change, {p.batch, p.classes + 1, patches_of(p.height), patches_of(p.width)},
                "change must be (B, K + 1, h', w')");
  require_shape(flow, {p.batch, 2, p.height, p.width}, "flow must be (B, 2, H, W)");
  require_shape(before, {p.batch, p.height, p.width}, "labels before must be (B, H, W)");
  require(type_of(change) == Type::kFloat32 && type_of(flow) == Type::kFloat32, "change and flow must be float32");
  require(before.dtype() == nb::dtype<uint8_t>(), "labels before must be uint8");
  uint8_t* to = labels_of(labels, p);
  const Map bytes{before.data(), before.stride(0), 0, 0, before.stride(1), before.stride(2)};
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.steadied(p, map_of(Tensor(logits)), static_cast<float*>(logits.data()), map_of(change), bytes,
                       map_of(flow), to)) {
    throw std::bad_alloc();
  }
}

void gated(const std::vector<Tensor>& answers, const Tensor& cues, const std::vector<Tensor>& weights,
           const WritableTensor& mixture, const WritableTensor& past, int threads, const std::string& variant) {
  require(answers.size() == 3 && weights.size() == 6, "there must be three answers, and three layers' weights");
  const Pixels p = logits_of(answers[0], threads);
  for (const Tensor& answer : answers) {
    require_shape(answer, {p.batch, p.classes, p.height, p.width}, "answers must be (B, K, h, w)");
    require(type_of(answer) == Type::kFloat32, "answers must be float32");
  }
  const Gate gate{layer_of(weights[0], weights[1], 3), layer_of(weights[2], weights[3], 1),
                  layer_of(weights[4], weights[5], 1)};
  const int64_t hidden = gate.around.outputs;
  require(gate.mixed.inputs == hidden && gate.mixed.outputs == hidden && gate.out.inputs == hidden &&
              gate.out.outputs == 3,
          "the hidden layers must be as wide as each other, and the last layer give three weights");
  require_shape(cues, {p.batch, gate.around.inputs / 9 - 10, p.height, p.width},
                "cues must be (B, C, h, w), of 10 channels fewer than the first layer takes");
  require(type_of(cues) == Type::kFloat32, "cues must be float32");
  const auto written = [&](const WritableTensor& tensor, int64_t channels) {
    return static_cast<float*>(output_of(tensor, {p.batch, channels, p.height, p.width}, Type::kFloat32,
                                         "mixture and past must be (B, K, h, w) and (B, 1, h, w), contiguous, float32")
                                   .data);
  };
  float *to_mixture = written(mixture, p.classes), *to_past = written(past, 1);
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.gated(p, {map_of(answers[0]), map_of(answers[1]), map_of(answers[2])}, map_of(cues), gate, to_mixture,
                    to_past)) {
    throw std::bad_alloc();
  }
}

void followed(const Tensor& flow, const Tensor& inside, const Tensor& colours, const Tensor& read,
              const std::vector<int64_t>& sides, float area, float round_trip, const WritableTensor& cues, int threads,
              const std::string& variant) {
  const Pixels p = logits_of(colours, threads);
  const auto planes = [&](const Tensor& tensor, int64_t channels) {
    require_shape(tensor, {p.batch, channels, p.height, p.width},
                  "flow, inside and read must be (B, 2, h, w), (B, 1, h, w) and (B, C + 2, h, w), of C colours");
    require_contiguous(tensor, "maps must be contiguous");
    require(type_of(tensor) == Type::kFloat32, "maps must be float32");
    return static_cast<const float*>(tensor.data());
  };
  const Found found{planes(flow, 2), planes(inside, 1), planes(colours, p.classes), planes(read, p.classes + 2)};
  require(sides.size() == 2 && sides[0] > 0 && sides[1] > 0, "there must be two sides, at least 1");
  float* to = static_cast<float*>(output_of(cues, {p.batch, 6, p.height, p.width}, Type::kFloat32,
                                            "cues must be (B, 6, h, w), contiguous, float32")
                                      .data);
  const Variant& chosen = find_variant(variant);
  nb::gil_scoped_release release;
  if (!chosen.followed(p, found, {sides[0], sides[1], area, round_trip}, to)) throw std::bad_alloc();
}

std::vector<std::string> variants() {
  std::vector<std::string> names;
  for (const Variant* variant : runnable_variants()) names.emplace_back(variant->name);
  return names;
}

}  // namespace
}  // namespace lmanet

NB_MODULE(_native, m) {
  m.doc() = "The CPU kernels of local attention and of patches of pixels; called by lmanet.ops.native.";
  m.def("variants", &lmanet::variants, "Names of the variants that run on this CPU, the fastest first.");
  m.def("forward", &lmanet::forward);
  m.def("backward", &lmanet::backward);
  m.def("patch_probabilities", &lmanet::patch_probabilities);
  m.def("patch_means", &lmanet::patch_means);
  m.def("steadied", &lmanet::steadied);
  m.def("gated", &lmanet::gated);
  m.def("followed", &lmanet::followed);
}
