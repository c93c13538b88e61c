#include "checkpoint/tools/element_difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint/format/elements.h"

namespace varscope {
namespace {

template <class T>
double absolute_difference(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<double>(ulp_distance(a, b));
  } else {
    const double x = as_double(a), y = as_double(b);
    const double d = x == y ? 0.0 : std::abs(x - y);  // equal infinities have no difference
    return std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
}

template <class T>
void compare(const std::byte* a, const std::byte* b, std::size_t n, TensorDifference& d) {
  for (std::size_t i = 0; i < n; ++i) {
    if (std::memcmp(a + i * sizeof(T), b + i * sizeof(T), sizeof(T)) == 0) continue;
    const T x = element<T>(a, i), y = element<T>(b, i);
    const double difference = absolute_difference(x, y);
    const double size = std::max(std::abs(as_double(x)), std::abs(as_double(y)));
    const double relative = difference == 0 || std::isinf(difference) ? difference : difference / size;
    ++d.n_different;
    d.max_abs = std::max(d.max_abs, difference);
    d.max_relative = std::max(d.max_relative, relative);
    d.max_ulp = std::max(d.max_ulp, ulp_distance(x, y));
  }
}

}  // namespace

void compare_elements(DType dtype, const std::byte* a, const std::byte* b, std::size_t n,
                      TensorDifference& difference) {
  with_element_type(dtype, [&](auto type) { compare<decltype(type)>(a, b, n, difference); });
}

}  // namespace varscope
