#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace varscope {

// The median, of an even number of values the lower one. REQUIRES some.
inline double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace varscope
