#include "common/metrics/r2.h"

#include <limits>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kSize = static_cast<std::size_t>(kR2Sums);

}  // namespace

void merge_r2(std::span<double> to, std::span<const double> from) {
  if (to.size() != from.size() || to.size() % kSize != 0)
    fail(ErrorKind::argument, "{} sums of r2 and {} do not fit each other", to.size(), from.size());
  for (std::size_t at = 0; at < to.size(); at += kSize) {
    double* a = to.data() + at;
    const double* b = from.data() + at;
    const double n = a[0] + b[0];
    if (b[0] > 0) {
      const double distance = b[1] - a[1];
      a[2] += b[2] + distance * distance * (a[0] * b[0] / n);
      a[1] = a[0] > 0 ? a[1] + distance * (b[0] / n) : b[1];
    }
    a[0] = n;
    a[3] += b[3];
  }
}

double r2_of(std::span<const double> sums, std::optional<std::int64_t> samples) {
  double total = 0;
  for (std::size_t at = 0; at + kSize <= sums.size(); at += kSize) {
    const double n = samples ? static_cast<double>(*samples) : sums[at];
    if (!(n >= 2)) return std::numeric_limits<double>::quiet_NaN();
    const double distances = sums[at + 2], errors = sums[at + 3];
    total += distances > 0 ? 1 - errors / distances : errors == 0 ? 1 : 0;
  }
  const std::size_t n_elements = sums.size() / kSize;
  return total / static_cast<double>(n_elements);
}

}  // namespace varscope
