#include "common/base/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/base/finite.h"

namespace varscope {

std::string figure(double value) {
  const double size = std::abs(value);
  const bool has_usual_size = size == 0 || (size >= 0.01 && size < 1e5);
  return has_usual_size ? fmt::format("{:.4f}", value == 0 ? 0.0 : value) : short_number(value);
}

std::string short_number(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}g}", value, digits) : not_finite_text(value);
}

int percent(std::int64_t part, std::int64_t all) {
  if (all <= 0) return 0;
  const double share = 100.0 * static_cast<double>(part) / static_cast<double>(all);
  return static_cast<int>(std::lround(std::clamp(share, 0.0, 100.0)));
}

}  // namespace varscope
