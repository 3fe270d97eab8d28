// Python module lmanet.ops._native: chooses the variant, checks what it is given, and calls it without the GIL.
//
// lmanet/ops/native.py is the only caller. What is checked here keeps a wrong call from touching memory that is not
// the tensors'.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <new>
#include <string>
#include <vector>

#include "attention.hpp"
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

using Tensor = nb::ndarray<nb::ro, nb::device::cpu>;
using WritableTensor = nb::ndarray<nb::device::cpu>;

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

void require(bool holds, const char* what) {
  if (!holds) throw nb::value_error(what);
}

template <class AnyTensor>
void require_shape(const AnyTensor& tensor, std::initializer_list<int64_t> shape, const char* what) {
  require(tensor.ndim() == shape.size(), what);
  size_t i = 0;
  for (const int64_t length : shape) require(static_cast<int64_t>(tensor.shape(i++)) == length, what);
}

template <class AnyTensor>
Type type_of(const AnyTensor& tensor) {
  if (tensor.dtype() == nb::dtype<float>()) return Type::kFloat32;
  if (tensor.dtype() == nb::dtype<double>()) return Type::kFloat64;
  const nb::dlpack::dtype bfloat16{static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1};
  require(tensor.dtype() == bfloat16, "tensors must be float32, float64 or bfloat16");
  return Type::kBFloat16;
}

// (B, C, h, w) or (B, S, C, h, w).
Map map_of(const Tensor& tensor) {
  const bool frames = tensor.ndim() == 5;
  return {tensor.data(),
          tensor.stride(0),
          frames ? tensor.stride(1) : 0,
          tensor.stride(frames + 1),
          tensor.stride(frames + 2),
          tensor.stride(frames + 3)};
}

// Elements must lie one after the other.
void require_contiguous(const WritableTensor& tensor, std::initializer_list<int64_t> shape, const char* what) {
  require_shape(tensor, shape, what);
  int64_t expected = 1;
  for (size_t i = tensor.ndim(); i-- > 0; expected *= tensor.shape(i)) {
    require(tensor.shape(i) == 1 || tensor.stride(i) == expected, what);
  }
}

Output output_of(const WritableTensor& tensor, std::initializer_list<int64_t> shape, Type type, const char* what) {
  require_contiguous(tensor, shape, what);
  require(type_of(tensor) == type, what);
  return {tensor.data()};
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

// Maps (B, K, H, W), and how large others of their pixels are.
Pixels pixels_of(const Tensor& logits, int threads) {
  require(logits.ndim() == 4, "maps must be (B, K, H, W)");
  const Pixels p{static_cast<int64_t>(logits.shape(0)), static_cast<int64_t>(logits.shape(1)),
                 static_cast<int64_t>(logits.shape(2)), static_cast<int64_t>(logits.shape(3)), threads};
  require(p.batch * p.classes * p.height * p.width > 0, "maps must not be empty");
  require(p.classes <= 255, "there must be at most 255 classes, whose numbers are bytes");
  // Beyond it float32 no longer tells one pixel's place from the next one's.
  require(p.height <= 1 << 23 && p.width <= 1 << 23, "an image's sides must be at most 2^23 pixels");
  require(threads >= 1, "threads must be at least 1");
  return p;
}

Pixels logits_of(const Tensor& logits, int threads) {
  require(type_of(logits) == Type::kFloat32, "logits must be float32");
  return pixels_of(logits, threads);
}

int64_t patches_of(int64_t pixels) { return (pixels + 3) / 4; }

float* patches_to(const WritableTensor& tensor, const Pixels& p, const char* what) {
  const std::initializer_list<int64_t> shape{p.batch, p.classes, patches_of(p.height), patches_of(p.width)};
  return static_cast<float*>(output_of(tensor, shape, Type::kFloat32, what).data);
}

uint8_t* labels_of(const WritableTensor& tensor, const Pixels& p) {
  require(tensor.dtype() == nb::dtype<uint8_t>(), "labels must be uint8");
  require_contiguous(tensor, {p.batch, p.height, p.width}, "labels must be (B, H, W), contiguous");
  return static_cast<uint8_t*>(tensor.data());
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
}
