#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/base/histogram.h"

namespace varscope::testing {

// Expects that `h` is the histogram of these values, by where they lie when they are sorted.
inline void expect_histogram_of(const Histogram& h, std::vector<double> values) {
  std::ranges::sort(values);
  const auto zero = std::ranges::lower_bound(values, 0.0);  // -0 is no less
  std::int64_t in_buckets = 0;
  double before = -INFINITY;
  for (const Histogram::Bucket& b : h.buckets()) {
    EXPECT_LE(before, b.left);
    EXPECT_LT(b.left, b.right);
    before = b.right;
    const std::int64_t n =
        b.left < 0
            ? std::upper_bound(values.begin(), zero, b.right) - std::upper_bound(values.begin(), zero, b.left)
            : std::lower_bound(zero, values.end(), b.right) - std::lower_bound(zero, values.end(), b.left);
    EXPECT_EQ(b.count, n) << b.left << " " << b.right;
    in_buckets += b.count;
  }
  EXPECT_EQ(in_buckets, std::ssize(values));
  EXPECT_EQ(h.count(), std::ssize(values));
  if (values.empty()) return;
  EXPECT_EQ(h.min(), *std::ranges::min_element(values));
  EXPECT_EQ(h.max(), *std::ranges::max_element(values));
  const double n = static_cast<double>(values.size());
  const double squares = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
  EXPECT_NEAR(h.sum(), std::accumulate(values.begin(), values.end(), 0.0),
              1e-12 * std::sqrt(n * squares) + 1e-300);
  EXPECT_NEAR(h.sum_of_squares(), squares, 1e-12 * squares);
}

}  // namespace varscope::testing
