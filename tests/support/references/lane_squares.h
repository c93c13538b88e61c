#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/base/types.h"
#include "common/variables/constraint.h"

// Norms by definition, for tests.
namespace varscope::testing {

template <class T>
void scale_as(std::byte* values, std::int64_t n, double scale) {
  for (std::int64_t i = 0; i < n; ++i) {
    T x;
    std::memcpy(&x, values + static_cast<std::size_t>(i) * sizeof(T), sizeof x);
    x = static_cast<T>(static_cast<double>(x) * scale);
    std::memcpy(values + static_cast<std::size_t>(i) * sizeof(T), &x, sizeof x);
  }
}

inline double value_at(DType dtype, const std::byte* values, std::int64_t i) {
  if (dtype == DType::float64) {
    double x;
    std::memcpy(&x, values + static_cast<std::size_t>(i) * sizeof x, sizeof x);
    return x;
  }
  float x;
  std::memcpy(&x, values + static_cast<std::size_t>(i) * sizeof x, sizeof x);
  return x;
}

// Sums of squares as servers add them: element i to lane i mod 8, then the lanes in order.
inline double lane_squares(DType dtype, const std::byte* values, std::int64_t n) {
  double sum = 0;
  for (std::int64_t lane = 0; lane < 8; ++lane) {
    double of_lane = 0;
    for (std::int64_t i = lane; i < n; i += 8) {
      const double x = value_at(dtype, values, i);
      of_lane += x * x;
    }
    sum += of_lane;
  }
  return sum;
}

// What a norm constraint, or clipping, multiplies by; 1 where the norm is not finite.
inline double reference_scale(const Constraint& rule, double squares) {
  const double norm = std::sqrt(squares);
  if (!std::isfinite(norm) || norm == 0) return 1;
  if (rule.kind == Constraint::Kind::row_unit_norm || rule.kind == Constraint::Kind::unit_norm)
    return 1 / norm;
  return norm > rule.limit ? rule.limit / norm : 1;
}

// In double.
inline void scale_values(DType dtype, std::byte* values, std::int64_t n, double scale) {
  dtype == DType::float64 ? scale_as<double>(values, n, scale) : scale_as<float>(values, n, scale);
}

}  // namespace varscope::testing
