#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/base/tensor.h"

namespace varscope {

// Looks for NaN and infinities. Integers are always finite. Any thread.

// One element that is none, by its place in row-major order.
struct NotFinite {
  std::int64_t element = 0;
  const char* what = "";  // "nan", "inf", "-inf"
};

// The bits of a number without its sign, as an integer: they rise with its size, and those of infinities
// and NaN are the largest. A loop may so look at what it makes by a maximum of integers, which vectorizes.
inline std::int32_t magnitude_bits(float x) { return std::bit_cast<std::int32_t>(x) & 0x7fffffff; }
inline std::int64_t magnitude_bits(double x) { return std::bit_cast<std::int64_t>(x) & 0x7fffffffffffffff; }
inline bool is_finite_magnitude(std::int32_t bits) { return bits < 0x7f800000; }
inline bool is_finite_magnitude(std::int64_t bits) { return bits < 0x7ff0000000000000; }

// Whether all of them are finite; reads memory about as fast as it comes, with the same answer at every
// vector width.
bool all_finite(const float* values, std::int64_t n);
bool all_finite(const double* values, std::int64_t n);

// How many elements are NaN or infinite. REQUIRES: bytes of whole elements, which need not be aligned.
std::int64_t count_not_finite(DType dtype, std::span<const std::byte> bytes);
// The first of them.
std::optional<NotFinite> find_not_finite(DType dtype, std::span<const std::byte> bytes);
std::optional<NotFinite> find_not_finite(const TensorView& view);

// "nan", "inf" or "-inf" of a number that is not finite: never "-nan".
const char* not_finite_text(double value);

}  // namespace varscope
