#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "common/base/error.h"
#include "common/base/tensor.h"

namespace varscope {

// The upper half of a float32; stored only, computed with as a double.
struct BFloat16 {
  std::uint16_t bits = 0;
};

template <class T>
double as_double(T x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16));
  } else {
    return static_cast<double>(x);
  }
}

// Calls f(T{}) with the C++ type of the dtype's elements; each is as large as size_of(dtype).
template <class F>
decltype(auto) with_element_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32:
      return f(float{});
    case DType::float64:
      return f(double{});
    case DType::int32:
      return f(std::int32_t{});
    case DType::int64:
      return f(std::int64_t{});
    case DType::uint8:
      return f(std::uint8_t{});
    case DType::bfloat16:
      return f(BFloat16{});
  }
  fail(ErrorKind::argument, "dtype {} is not one of ours", static_cast<int>(dtype));
}

// Element `i` of row-major memory.
template <class T>
T element(const std::byte* memory, std::size_t i) {
  T x;
  std::memcpy(&x, memory + i * sizeof(T), sizeof(T));
  return x;
}

namespace detail {
// Floating-point numbers in their order as integers in theirs; both zeros are 0.
template <class Int>
std::int64_t ordered(Int bits) {
  return bits >= 0 ? std::int64_t{bits} : std::int64_t{std::numeric_limits<Int>::min()} - std::int64_t{bits};
}
}  // namespace detail

// How many representable values lie between the two, plus one when they differ; for integers the distance.
// Of NaNs it says how far their bits are apart.
template <class T>
std::uint64_t ulp_distance(T a, T b) {
  std::int64_t x, y;
  if constexpr (std::is_same_v<T, BFloat16>) {
    x = detail::ordered(static_cast<std::int16_t>(a.bits));
    y = detail::ordered(static_cast<std::int16_t>(b.bits));
  } else if constexpr (std::is_floating_point_v<T>) {
    using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    x = detail::ordered(std::bit_cast<Int>(a));
    y = detail::ordered(std::bit_cast<Int>(b));
  } else {
    x = a;
    y = b;
  }
  const auto ux = static_cast<std::uint64_t>(x), uy = static_cast<std::uint64_t>(y);
  return x > y ? ux - uy : uy - ux;  // modulo 2^64, where it always fits
}

}  // namespace varscope
