// Vectors of the instruction set that this file is compiled for, by GCC's and Clang's vector extensions.
//
// Everything a variant uses lies in its own namespace and nothing comes from the C++ library: an inline function of
// one name, compiled for AVX-512 in one file and for any CPU in another, would be merged by the linker into either.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LMANET_INLINE inline __attribute__((always_inline))

namespace lmanet::LMANET_VARIANT {

// kBlock: cells worked on together, so many that their sums of two vectors each just fill the registers.
#if defined(__AMX_BF16__)
constexpr int kVectorBytes = 64;
constexpr int kBlock = 8;  // two below each other fill a tile
#elif defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kBlock = 12;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kBlock = 6;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kBlock = 12;
#else
constexpr int kVectorBytes = 16;
constexpr int kBlock = 6;
#endif

template <class T>
struct Types;

template <>
struct Types<float> {
  using Int = int32_t;
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t IntVector __attribute__((vector_size(kVectorBytes)));
};

template <>
struct Types<double> {
  using Int = int64_t;
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t IntVector __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename Types<T>::Vector;

template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
constexpr T kInfinity = static_cast<T>(__builtin_inff());

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename Types<T>::Unaligned*>(from);
}

template <class T>
inline void store(T* to, Vector<T> vector) {
  *reinterpret_cast<typename Types<T>::Unaligned*>(to) = vector;
}

template <class T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // not +, which would turn −0 into 0 and so cost an addition
}

// The smaller of both, or `limit` where `value` is NaN: what is outside the window becomes −∞ whatever it was.
template <class T>
inline Vector<T> limited(Vector<T> value, Vector<T> limit) {
  return value < limit ? value : limit;
}

// The larger of both, `value` where either is NaN.
template <class T>
inline Vector<T> larger(Vector<T> value, Vector<T> other) {
  return other > value ? other : value;
}

template <class T>
inline T largest_lane(Vector<T> vector) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_reduce_max_ps((__m512)vector);
#endif
  T largest = vector[0];
  for (int i = 1; i < kLanes<T>; ++i) largest = vector[i] > largest ? vector[i] : largest;
  return largest;
}

template <class T>
inline T sum_lanes(Vector<T> vector) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_reduce_add_ps((__m512)vector);
#endif
  T sum = vector[0];
  for (int i = 1; i < kLanes<T>; ++i) sum += vector[i];
  return sum;
}

// 2^x for x ≤ 0 within 2e-7 (float) or 4e-16 (double), relatively. Below 2^kSmallest it is 0: weights too small to
// count, which as denormal numbers would slow everything after them.
template <class T>
struct Exp2;

template <>
struct Exp2<float> {
  static constexpr float kSmallest = -100.0f;
  static constexpr float kShift = 12582912.0f + 127.0f;  // 1.5 · 2²³ rounds to whole numbers; 127 is 2⁰'s exponent
  static constexpr int kMantissa = 23;
  static constexpr int kDegree = 5;
  // Chebyshev interpolation of 2^x on [−½, ½].
  static constexpr float kCoefficients[] = {1.0f, 0.69314719f, 0.24022107f, 0.055503571f, 0.0096760319f, 0.0013390863f};
};

template <>
struct Exp2<double> {
  static constexpr double kSmallest = -1000.0;
  static constexpr double kShift = 6755399441055744.0 + 1023.0;
  static constexpr int kMantissa = 52;
  static constexpr int kDegree = 13;
  // Taylor's: (ln 2)^k / k!.
  static constexpr double kCoefficients[] = {1.0,
                                             0.6931471805599453,
                                             0.24022650695910072,
                                             0.05550410866482158,
                                             0.009618129107628477,
                                             0.0013333558146428443,
                                             0.0001540353039338161,
                                             1.525273380405984e-05,
                                             1.3215486790144307e-06,
                                             1.0178086009239699e-07,
                                             7.054911620801121e-09,
                                             4.445538271870812e-10,
                                             2.5678435993488202e-11,
                                             1.3691488853904128e-12};
};

template <class T>
inline Vector<T> exp2(Vector<T> x) {
  using E = Exp2<T>;
  using Bits = typename Types<T>::IntVector;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vector<T> whole = (Vector<T>)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vector<T> part = x - whole;
    Vector<T> power = broadcast<T>(E::kCoefficients[E::kDegree]);
#pragma GCC unroll 16
    for (int k = E::kDegree - 1; k >= 0; --k) power = power * part + E::kCoefficients[k];
    const __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(E::kSmallest), _CMP_NLT_UQ);
    return (Vector<T>)_mm512_maskz_scalef_ps(counts, (__m512)power, (__m512)whole);
  }
#endif
  const Vector<T> shifted = x + E::kShift;
  const Vector<T> part = x - (shifted - E::kShift);
  Vector<T> power = broadcast<T>(E::kCoefficients[E::kDegree]);
#pragma GCC unroll 16
  for (int k = E::kDegree - 1; k >= 0; --k) power = power * part + E::kCoefficients[k];
  const Bits exponent = reinterpret_cast<Bits>(shifted) << E::kMantissa;
  power *= reinterpret_cast<Vector<T>>(exponent);
  return x < E::kSmallest ? Vector<T>{} : power;
}

// Logarithm in base 2 of normal numbers above 0, within 4e-7, relatively: near 1 too, where it is small.
inline Vector<float> log2(Vector<float> x) {
  using Bits = typename Types<float>::IntVector;
  constexpr int32_t kRootOfHalf = 0x3f3504f3;  // what is left of x lies between √½ and √2
  // Chebyshev interpolation of log2(1 + t) / t on [√½ − 1, √2 − 1].
  constexpr float kCoefficients[] = {1.44269502f,   -0.721352935f, 0.480916709f, -0.360225171f,
                                     0.287288874f, -0.249271825f, 0.232652575f, -0.14275974f};
  const Bits exponent = (reinterpret_cast<Bits>(x) - kRootOfHalf) >> 23;
  const Vector<float> part = reinterpret_cast<Vector<float>>(reinterpret_cast<Bits>(x) - (exponent << 23)) - 1.0f;
  Vector<float> ratio = broadcast<float>(kCoefficients[7]);
#pragma GCC unroll 8
  for (int k = 6; k >= 0; --k) ratio = ratio * part + kCoefficients[k];
  return ratio * part + __builtin_convertvector(exponent, Vector<float>);
}

// 0, 1, 2, …
LMANET_INLINE Types<float>::IntVector lane_numbers() {
  Types<float>::IntVector numbers{};
  for (int i = 0; i < kLanes<float>; ++i) numbers[i] = i;
  return numbers;
}

// The lanes of two vectors, counted through both, that are asked for.
LMANET_INLINE Vector<float> lanes(Vector<float> a, Vector<float> b, Types<float>::IntVector numbers) {
#if defined(__clang__)
  constexpr int L = kLanes<float>;
  Vector<float> chosen{};
  for (int i = 0; i < L; ++i) chosen[i] = numbers[i] < L ? a[numbers[i]] : b[numbers[i] - L];
  return chosen;
#else
  return __builtin_shuffle(a, b, numbers);
#endif
}

// Lane j of vector i becomes lane i of vector j.
LMANET_INLINE void transpose(Vector<float>* rows) {
  constexpr int L = kLanes<float>;
#pragma GCC unroll 4
  for (int step = 1; step < L; step *= 2) {
    Types<float>::IntVector upper{}, lower{};
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) {
      upper[j] = j & step ? L + j - step : j;
      lower[j] = j & step ? L + j : j + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & step) continue;
      const Vector<float> a = rows[i], b = rows[i + step];
      rows[i] = lanes(a, b, upper);
      rows[i + step] = lanes(a, b, lower);
    }
  }
}

// The first `count` lanes, 1 to all; nothing beyond them is read, or written.
LMANET_INLINE Vector<float> load_part(const float* from, int64_t count) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_maskload_ps(from, (__m256i)(lane_numbers() < static_cast<int32_t>(count)));
#else
  Vector<float> part{};
  for (int i = 0; i < count; ++i) part[i] = from[i];
  return part;
#endif
}

LMANET_INLINE void store_part(float* to, Vector<float> vector, int64_t count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)vector);
#else
  if (count == kLanes<float>) return store<float>(to, vector);
#pragma GCC unroll 8
  for (int i = 0; i < kLanes<float> - 1; ++i) {
    if (i < count) to[i] = vector[i];
  }
#endif
}

}  // namespace lmanet::LMANET_VARIANT
