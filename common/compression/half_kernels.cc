#include "common/compression/half_kernels.h"

#include <algorithm>
#include <bit>

#include "common/base/finite.h"
#include "common/base/vector_clones.h"

#define VARSCOPE_LOOP _Pragma("GCC ivdep") for (std::int64_t i = 0; i < n; ++i)

namespace varscope::compression {
namespace {

constexpr std::uint32_t kLargestBfloat16 = 0x7f7f;
constexpr int kFloatBias = 127, kHalfBias = 15;
constexpr std::uint32_t kRebias = (kFloatBias - kHalfBias) << 23;

float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(kFloatBias + exponent) << 23);
}

// Half of the last place that is kept, less one where that place is even: added, it carries what is to be
// rounded up. A carry out of the fraction raises the exponent, as it should.
inline std::uint16_t bfloat16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = ((bits & 0x7fffffffU) + 0x7fffU + (bits >> 16 & 1U)) >> 16;
  return static_cast<std::uint16_t>(std::min(rounded, kLargestBfloat16) | (bits >> 16 & 0x8000U));
}

inline float bfloat16_value(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

// Of a number below 2^16. Below 2^-14 binary16 has a fixed last place of 2^-24, which is also that of float32
// from 0.5 to 1: the addition of 0.5 rounds to it.
inline std::uint16_t half_bits(float x, std::uint32_t largest) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t normal = (magnitude - kRebias + 0xfffU + (magnitude >> 13 & 1U)) >> 13;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) -
                                  std::bit_cast<std::uint32_t>(0.5F);
  const std::uint32_t rounded = magnitude < kRebias + (1U << 23) ? subnormal : normal;
  return static_cast<std::uint16_t>(std::min(rounded, largest) | (bits >> 16 & 0x8000U));
}

// Without a float32 that is subnormal on the way, for which some processors take a hundred cycles.
inline float half_value(std::uint16_t half, float unit) {
  const std::uint32_t bits = half, exponent = bits & 0x7c00U, fraction = bits & 0x3ffU;
  const std::uint32_t rebias = exponent == 0x7c00U ? 2 * kRebias : kRebias;
  const float normal = std::bit_cast<float>(((bits & 0x7fffU) << 13) + rebias);
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(fraction)) * 0x1p-24F;
  const float magnitude = exponent == 0 ? subnormal : normal;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | (bits & 0x8000U) << 16) * unit;
}

}  // namespace

VARSCOPE_VECTOR_CLONES std::int32_t to_bfloat16(std::uint16_t* to, const float* g, std::int64_t n) {
  std::int32_t largest = 0;
  VARSCOPE_LOOP {
    largest = std::max(largest, magnitude_bits(g[i]));
    to[i] = bfloat16_bits(g[i]);
  }
  return largest;
}

VARSCOPE_VECTOR_CLONES void from_bfloat16(float* to, const std::uint16_t* from, std::int64_t n) {
  VARSCOPE_LOOP to[i] = bfloat16_value(from[i]);
}

VARSCOPE_VECTOR_CLONES void add_bfloat16(float* into, const std::uint16_t* from, std::int64_t n) {
  VARSCOPE_LOOP into[i] += bfloat16_value(from[i]);
}

HalfScale half_scale(std::int32_t largest_magnitude) {
  if (largest_magnitude == 0) return {1, 1, 0};
  const int exponent = (largest_magnitude >> 23) - kFloatBias;
  // 2^126, whose inverse is a normal number, brings the least float32 to 2^-23, which binary16 still has.
  const int up = std::min(14 - exponent, kFloatBias - 1);
  // 2^15 * 2^113 would be infinite.
  const std::uint32_t largest = exponent == kFloatBias ? 0x77ffU : 0x7800U;
  return {power_of_two(-up), power_of_two(up), largest};
}

bool is_half_unit(float unit) {
  const auto bits = std::bit_cast<std::uint32_t>(unit);
  const std::uint32_t exponent = bits >> 23;  // with the sign above it
  return (bits & 0x7fffffU) == 0 && exponent >= 1 && exponent <= kFloatBias + 113;
}

VARSCOPE_VECTOR_CLONES void to_half(std::uint16_t* to, const float* g, const HalfScale& by, std::int64_t n) {
  const float scale = by.scale;
  const std::uint32_t largest = by.largest;
  VARSCOPE_LOOP to[i] = half_bits(g[i] * scale, largest);
}

VARSCOPE_VECTOR_CLONES void from_half(float* to, const std::uint16_t* from, float unit, std::int64_t n) {
  VARSCOPE_LOOP to[i] = half_value(from[i], unit);
}

VARSCOPE_VECTOR_CLONES void add_half(float* into, const std::uint16_t* from, float unit, std::int64_t n) {
  VARSCOPE_LOOP into[i] += half_value(from[i], unit);
}

VARSCOPE_VECTOR_CLONES std::int32_t largest_magnitude(const float* g, std::int64_t n) {
  std::int32_t largest = 0;
  VARSCOPE_LOOP largest = std::max(largest, magnitude_bits(g[i]));
  return largest;
}

}  // namespace varscope::compression
