#pragma once

#include <cstdint>

namespace varscope::compression {

// The loops of bf16 and fp16; codec.h has their forms. No span of one call overlaps another. Any thread.

// Rounds g to bfloat16. Returns the largest magnitude_bits() of g; when it is not finite, `to` means nothing.
std::int32_t to_bfloat16(std::uint16_t* to, const float* g, std::int64_t n);
void from_bfloat16(float* to, const std::uint16_t* from, std::int64_t n);
void add_bfloat16(float* into, const std::uint16_t* from, std::int64_t n);

// How a slice is scaled for binary16: element = half * unit, scale = 1 / unit.
struct HalfScale {
  float unit = 1;
  float scale = 1;
  std::uint32_t largest = 0;  // bits of the largest half whose product with `unit` is finite
};
// The scale that brings an element with these magnitude_bits(), the largest of a slice, to 2^14 or just below
// 2^15: the 28 binades below keep all 11 bits, and nothing overflows. REQUIRES: bits of a finite number.
HalfScale half_scale(std::int32_t largest_magnitude);
bool is_half_unit(float unit);  // whether half_scale() makes it

// REQUIRES: n finite g, `by` made from the largest of them.
void to_half(std::uint16_t* to, const float* g, const HalfScale& by, std::int64_t n);
void from_half(float* to, const std::uint16_t* from, float unit, std::int64_t n);
void add_half(float* into, const std::uint16_t* from, float unit, std::int64_t n);

// The largest magnitude_bits() of g.
std::int32_t largest_magnitude(const float* g, std::int64_t n);

}  // namespace varscope::compression
