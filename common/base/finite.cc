#include "common/base/finite.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/base/vector_clones.h"

namespace varscope {
namespace {

VARSCOPE_VECTOR_CLONES std::int32_t largest_bits(const float* v, std::int64_t n) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, magnitude_bits(v[i]));
  return largest;
}

VARSCOPE_VECTOR_CLONES std::int64_t largest_bits(const double* v, std::int64_t n) {
  std::int64_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, magnitude_bits(v[i]));
  return largest;
}

// Calls f(index, value) for each element that is not finite, until it says false.
template <class Bits, class ToDouble, class F>
void for_each_bad(std::span<const std::byte> bytes, const ToDouble& to_double, const F& f) {
  const std::size_t n = bytes.size() / sizeof(Bits);
  for (std::size_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + i * sizeof bits, sizeof bits);
    const double value = to_double(bits);
    if (!std::isfinite(value) && !f(static_cast<std::int64_t>(i), value)) return;
  }
}

double of_float32(std::uint32_t bits) { return static_cast<double>(std::bit_cast<float>(bits)); }
double of_float64(std::uint64_t bits) { return std::bit_cast<double>(bits); }
double of_bfloat16(std::uint16_t bits) { return of_float32(std::uint32_t{bits} << 16); }

template <class F>
void for_each_bad(DType dtype, std::span<const std::byte> bytes, const F& f) {
  if (dtype == DType::float32) return for_each_bad<std::uint32_t>(bytes, of_float32, f);
  if (dtype == DType::float64) return for_each_bad<std::uint64_t>(bytes, of_float64, f);
  if (dtype == DType::bfloat16) return for_each_bad<std::uint16_t>(bytes, of_bfloat16, f);
}

// True only where there is nothing to find: most often, and then it is quick.
bool is_clean(DType dtype, std::span<const std::byte> bytes) {
  if (!is_floating(dtype)) return true;
  const auto n = static_cast<std::int64_t>(bytes.size() / size_of(dtype));
  const bool is_aligned = std::bit_cast<std::uintptr_t>(bytes.data()) % size_of(dtype) == 0;
  if (dtype == DType::float32 && is_aligned)
    return all_finite(reinterpret_cast<const float*>(bytes.data()), n);
  if (dtype == DType::float64 && is_aligned)
    return all_finite(reinterpret_cast<const double*>(bytes.data()), n);
  return false;
}

}  // namespace

bool all_finite(const float* values, std::int64_t n) { return is_finite_magnitude(largest_bits(values, n)); }
bool all_finite(const double* values, std::int64_t n) { return is_finite_magnitude(largest_bits(values, n)); }

std::int64_t count_not_finite(DType dtype, std::span<const std::byte> bytes) {
  std::int64_t count = 0;
  if (is_clean(dtype, bytes)) return count;
  for_each_bad(dtype, bytes, [&](std::int64_t, double) { return ++count > 0; });
  return count;
}

std::optional<NotFinite> find_not_finite(DType dtype, std::span<const std::byte> bytes) {
  std::optional<NotFinite> found;
  if (is_clean(dtype, bytes)) return found;
  for_each_bad(dtype, bytes, [&](std::int64_t i, double value) {
    found = NotFinite{i, not_finite_text(value)};
    return false;
  });
  return found;
}

std::optional<NotFinite> find_not_finite(const TensorView& view) {
  if (view.empty()) return std::nullopt;
  return find_not_finite(view.dtype(), std::span<const std::byte>(view.bytes(), view.n_bytes()));
}

const char* not_finite_text(double value) { return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"; }

}  // namespace varscope
