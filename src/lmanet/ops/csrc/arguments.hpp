// What the Python module is given, checked. This keeps a wrong call from touching memory that is not the tensors'.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>

#include "attention.hpp"

namespace lmanet {
namespace {

namespace nb = nanobind;

using Tensor = nb::ndarray<nb::ro, nb::device::cpu>;
using WritableTensor = nb::ndarray<nb::device::cpu>;

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
template <class AnyTensor>
void require_contiguous(const AnyTensor& tensor, const char* what) {
  int64_t expected = 1;
  for (size_t i = tensor.ndim(); i-- > 0; expected *= tensor.shape(i)) {
    require(tensor.shape(i) == 1 || tensor.stride(i) == expected, what);
  }
}

Output output_of(const WritableTensor& tensor, std::initializer_list<int64_t> shape, Type type, const char* what) {
  require_shape(tensor, shape, what);
  require_contiguous(tensor, what);
  require(type_of(tensor) == type, what);
  return {tensor.data()};
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
  require_shape(tensor, {p.batch, p.height, p.width}, "labels must be (B, H, W)");
  require_contiguous(tensor, "labels must be contiguous");
  return static_cast<uint8_t*>(tensor.data());
}

Layer layer_of(const Tensor& weights, const Tensor& bias, int64_t side) {
  require(weights.ndim() == 4 && bias.ndim() == 1 && weights.shape(0) == bias.shape(0) && weights.shape(0) > 0 &&
              static_cast<int64_t>(weights.shape(2)) == side && static_cast<int64_t>(weights.shape(3)) == side,
          "a layer's weights must be (outputs, inputs, 3, 3) or (outputs, inputs, 1, 1), its bias (outputs,)");
  for (const Tensor* tensor : {&weights, &bias}) {
    require_contiguous(*tensor, "a layer's weights must be contiguous");
    require(type_of(*tensor) == Type::kFloat32, "a layer's weights must be float32");
  }
  const int64_t inputs = weights.shape(1) * side * side, outputs = weights.shape(0);
  return {static_cast<const float*>(weights.data()), static_cast<const float*>(bias.data()), inputs, outputs};
}

}  // namespace
}  // namespace lmanet
