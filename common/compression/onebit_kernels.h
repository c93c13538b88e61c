#pragma once

#include <cstdint>

namespace varscope::compression {

// The loops of onebit; codec.h has its form. h = g + r throughout. No span of one call overlaps another. Any
// thread.

// The two means of h, 0 for a side that has no element; and the largest magnitude_bits() of h: when that is
// not finite, the means are nothing. Sums are of doubles, in an order that the length alone decides.
struct SideMeans {
  float not_negative = 0;
  float negative = 0;
  std::int32_t largest = 0;
};
SideMeans side_means(const float* g, const float* r, std::int64_t n);

// Writes the signs of h, ceil(n / 32) words, and leaves h - mean of its side in r.
void to_signs(std::uint32_t* words, const float* g, float* r, const SideMeans& means, std::int64_t n);
void from_signs(float* to, const std::uint32_t* words, const SideMeans& means, std::int64_t n);
void add_signs(float* into, const std::uint32_t* words, const SideMeans& means, std::int64_t n);

}  // namespace varscope::compression
