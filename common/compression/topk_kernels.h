#pragma once

#include <cstdint>

namespace varscope::compression {

// The loops of topk; codec.h has its form. No span of one call overlaps another. Any thread.

// The largest magnitude_bits() of g + r.
std::int32_t largest_sum(const float* g, const float* r, std::int64_t n);

// Which elements are sent: those whose magnitude_bits() are above `bits`, and the first `n_equal` of those
// that have just these.
struct TopkFloor {
  std::int32_t bits = 0;
  std::int64_t n_equal = 0;
};
// Makes r into g + r, and finds the floor of its k largest. REQUIRES: 0 < k <= n < 2^32, finite sums.
TopkFloor find_floor(const float* g, float* r, std::int64_t k, std::int64_t n);

// Moves the k elements of the floor from h, where they become 0, to indices and values.
void take_largest(std::uint32_t* indices, float* values, float* h, TopkFloor floor, std::int64_t n);

// The place of the first of k indices that is not above the one before it, or not below n; k: none.
std::int64_t first_wrong(const std::uint32_t* indices, std::int64_t k, std::int64_t n);

}  // namespace varscope::compression
