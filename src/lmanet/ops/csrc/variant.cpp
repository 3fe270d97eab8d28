// The kernel for one instruction set. Compiled several times, with LMANET_VARIANT as its namespace and its name.

#if defined(__AMX_BF16__)
#include "tile_reader.hpp"
#else
#include "backward.hpp"
#include "followed.hpp"
#include "gated.hpp"
#include "steadied.hpp"
#include "vector_reader.hpp"
#endif

namespace lmanet {

#if defined(__AMX_BF16__)

namespace avx512 {
extern const Variant variant;
}

namespace LMANET_VARIANT {

bool forward_any(const Problem& p, const Map& query, const Map& keys, const Map& values, const Output& output,
                 void* log_sum) {
  if (p.type == Type::kBFloat16) return forward<TileReader>(p, query, keys, values, output, log_sum);
  return avx512::variant.forward(p, query, keys, values, output, log_sum);
}

bool backward_any(const Problem& p, const Map& gradient, const Map& query, const Map& keys, const Map& values,
                  const Map& output, const void* log_sum, const Output& query_gradient, const Output& key_gradient,
                  const Output& value_gradient) {
  return avx512::variant.backward(p, gradient, query, keys, values, output, log_sum, query_gradient, key_gradient,
                                  value_gradient);
}

bool patch_probabilities(const Pixels& p, const Map& logits, float* means) {
  return avx512::variant.patch_probabilities(p, logits, means);
}

bool patch_means(const Pixels& p, const Map& maps, bool bytes, float* means) {
  return avx512::variant.patch_means(p, maps, bytes, means);
}

bool steadied(const Pixels& p, const Map& logits, float* written, const Map& change, const Map& before,
              const Map& flow, uint8_t* labels) {
  return avx512::variant.steadied(p, logits, written, change, before, flow, labels);
}

bool gated(const Pixels& p, const Answers& answers, const Map& cues, const Gate& gate, float* mixture, float* past) {
  return avx512::variant.gated(p, answers, cues, gate, mixture, past);
}

bool followed(const Pixels& p, const Found& found, const Following& how, float* cues) {
  return avx512::variant.followed(p, found, how, cues);
}

#else

namespace LMANET_VARIANT {

bool forward_any(const Problem& p, const Map& query, const Map& keys, const Map& values, const Output& output,
                 void* log_sum) {
  switch (p.type) {
    case Type::kFloat32:
      return forward<VectorReader<float, float>>(p, query, keys, values, output, log_sum);
    case Type::kFloat64:
      return forward<VectorReader<double, double>>(p, query, keys, values, output, log_sum);
    case Type::kBFloat16:
      return forward<VectorReader<float, BFloat16>>(p, query, keys, values, output, log_sum);
  }
  return false;
}

bool backward_any(const Problem& p, const Map& gradient, const Map& query, const Map& keys, const Map& values,
                  const Map& output, const void* log_sum, const Output& query_gradient, const Output& key_gradient,
                  const Output& value_gradient) {
  const auto run = [&](auto compute, auto stored) {
    return backward<decltype(compute), decltype(stored)>(p, gradient, query, keys, values, output, log_sum,
                                                         query_gradient, key_gradient, value_gradient);
  };
  switch (p.type) {
    case Type::kFloat32:
      return run(float{}, float{});
    case Type::kFloat64:
      return run(double{}, double{});
    case Type::kBFloat16:
      return run(float{}, BFloat16{});
  }
  return false;
}

#endif

#define LMANET_TEXT_OF(name) #name
#define LMANET_TEXT(name) LMANET_TEXT_OF(name)

extern const Variant variant;
const Variant variant{LMANET_TEXT(LMANET_VARIANT), forward_any, backward_any, patch_probabilities, patch_means, steadied,
                      gated, followed};

}  // namespace LMANET_VARIANT
}  // namespace lmanet
