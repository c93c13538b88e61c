#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "worker/kernels/kernels.h"

// Scalar functions that the compiler can vectorise inside a loop: no branches, no calls (but for the
// float64 gelu), only IEEE operations, so that every lane of every instruction set gives the same bits.
#define VARSCOPE_INLINE __attribute__((always_inline)) inline

namespace varscope::vector_math {

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  using Int = std::int32_t;
  static constexpr float kLow = -87.3F, kHigh = 88.3F, kRound = 12582912.0F;  // 1.5 * 2^23
  static constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  static constexpr int kMantissa = 23;
  static constexpr Int kBias = 127;
};
template <>
struct ExpConstants<double> {
  using Int = std::int64_t;
  static constexpr double kLow = -708.0, kHigh = 709.0, kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  static constexpr int kMantissa = 52;
  static constexpr Int kBias = 1023;
};

// exp(x) - 1 = scale * q + (scale - 1), with x = n ln 2 + r, scale = 2^n, q = exp(r) - 1 by its Taylor
// series, and |r| <= ln(2) / 2: the reduction of Cody and Waite (1980). Saturates outside [kLow, kHigh].
template <class T>
struct ExpParts {
  T scale, q;
};

template <class T>
VARSCOPE_INLINE ExpParts<T> exp_parts(T x) {
  using C = ExpConstants<T>;
  x = x < C::kLow ? C::kLow : x;
  x = x > C::kHigh ? C::kHigh : x;
  const T rounded = x * T(1.44269504088896340736) + C::kRound;
  const T n = rounded - C::kRound;
  const T r = (x - n * C::kLn2High) - n * C::kLn2Low;
  using Unsigned = std::make_unsigned_t<typename C::Int>;
  const auto exponent =
      std::bit_cast<Unsigned>(rounded) - std::bit_cast<Unsigned>(C::kRound) + Unsigned(C::kBias);
  const T scale = std::bit_cast<T>(static_cast<Unsigned>(exponent << C::kMantissa));
  T p;
  if constexpr (sizeof(T) == 4) {
    p = T(1) / 5040;
  } else {
    p = T(1) / 6227020800;
    p = p * r + T(1) / 479001600;
    p = p * r + T(1) / 39916800;
    p = p * r + T(1) / 3628800;
    p = p * r + T(1) / 362880;
    p = p * r + T(1) / 40320;
    p = p * r + T(1) / 5040;
  }
  p = p * r + T(1) / 720;
  p = p * r + T(1) / 120;
  p = p * r + T(1) / 24;
  p = p * r + T(1) / 6;
  p = p * r + T(1) / 2;
  return {scale, r + r * r * p};
}

template <class T>
VARSCOPE_INLINE T exp(T x) {
  const auto e = exp_parts(x);
  return e.scale * e.q + e.scale;
}

template <class T>
VARSCOPE_INLINE T expm1(T x) {
  const auto e = exp_parts(x);
  return e.scale * e.q + (e.scale - T(1));
}

template <class T>
VARSCOPE_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + vector_math::exp(-x));
}

template <class T>
VARSCOPE_INLINE T tanh(T x) {
  const T magnitude = x < T(0) ? -x : x;
  const T e = vector_math::expm1(T(-2) * magnitude);  // in (-1, 0]
  const T t = -e / (T(2) + e);
  return x < T(0) ? -t : t;
}

// The normal distribution function.
VARSCOPE_INLINE double normal_cdf(double x) { return 0.5 * std::erfc(-x * 0.70710678118654752440); }
VARSCOPE_INLINE float normal_cdf(float x) {
  const float u = (x < 0 ? -x : x) * 0.70710678F;
  const float t = 1.0F / (1.0F + 0.3275911F * u);
  const float series =
      ((((1.061405429F * t - 1.453152027F) * t + 1.421413741F) * t - 0.284496736F) * t + 0.254829592F) * t;
  const float tail = 0.5F * series * vector_math::exp(-u * u);
  return x < 0 ? tail : 1.0F - tail;
}

template <class T>
VARSCOPE_INLINE T normal_density(T x) {
  return T(0.39894228040143267794) * vector_math::exp(T(-0.5) * x * x);
}

// log(1 + e) for e in [0, 1], as 2 atanh(s) by its Taylor series, with s = e / (2 + e) <= 1/3.
template <class T>
VARSCOPE_INLINE T log1p_of_unit(T e) {
  constexpr int kTerms = sizeof(T) == 4 ? 8 : 17;
  const T s = e / (T(2) + e);
  const T z = s * s;
  T sum = T(1) / T(2 * kTerms - 1);
  for (int k = kTerms - 2; k >= 0; --k) sum = sum * z + T(1) / T(2 * k + 1);
  return T(2) * s * sum;
}

// log(1 + exp(x)) without overflow.
template <class T>
VARSCOPE_INLINE T softplus(T x) {
  return (x > T(0) ? x : T(0)) + log1p_of_unit(vector_math::exp(x > T(0) ? -x : x));
}

// Far below zero, where the sigmoid saturates at the smallest number that exp yields, z stops too: their
// product goes to 0.
template <class T>
VARSCOPE_INLINE T swish(T z) {
  z = z < ExpConstants<T>::kLow ? ExpConstants<T>::kLow : z;
  return z * vector_math::sigmoid(z);
}

template <class T>
VARSCOPE_INLINE T swish_derivative(T z) {
  z = z < ExpConstants<T>::kLow ? ExpConstants<T>::kLow : z;
  const T s = vector_math::sigmoid(z);
  return s + z * s * (T(1) - s);
}

template <Activation F, class T>
VARSCOPE_INLINE T activate(T z) {
  if constexpr (F == Activation::relu) return z < T(0) ? T(0) : z;  // NaN stays NaN
  if constexpr (F == Activation::leaky_relu) return z < T(0) ? z * T(kLeakyReluSlope) : z;
  if constexpr (F == Activation::sigmoid) return vector_math::sigmoid(z);
  if constexpr (F == Activation::tanh) return vector_math::tanh(z);
  if constexpr (F == Activation::gelu) return z * normal_cdf(z);
  if constexpr (F == Activation::softplus) return vector_math::softplus(z);
  if constexpr (F == Activation::elu) return z > T(0) ? z : vector_math::expm1(z);
  if constexpr (F == Activation::selu) {
    return z > T(0) ? T(kSeluScale) * z : T(kSeluScale * kSeluAlpha) * vector_math::expm1(z);
  }
  if constexpr (F == Activation::swish) return vector_math::swish(z);
  if constexpr (F == Activation::linear) return z;
}

// The derivative at the output y; z is the pre-activation, rubbish unless needs_preactivation(F).
template <Activation F, class T>
VARSCOPE_INLINE T derivative(T y, T z) {
  if constexpr (F == Activation::relu) return y > T(0) ? T(1) : T(0);
  if constexpr (F == Activation::leaky_relu) return y > T(0) ? T(1) : T(kLeakyReluSlope);
  if constexpr (F == Activation::sigmoid) return y * (T(1) - y);
  if constexpr (F == Activation::tanh) return T(1) - y * y;
  if constexpr (F == Activation::gelu) return normal_cdf(z) + z * normal_density(z);
  if constexpr (F == Activation::softplus) return -vector_math::expm1(-y);
  if constexpr (F == Activation::elu) return y > T(0) ? T(1) : y + T(1);
  if constexpr (F == Activation::selu) return y > T(0) ? T(kSeluScale) : y + T(kSeluScale * kSeluAlpha);
  if constexpr (F == Activation::swish) return vector_math::swish_derivative(z);
  if constexpr (F == Activation::linear) return T(1);
  (void)y, (void)z;
}

}  // namespace varscope::vector_math
