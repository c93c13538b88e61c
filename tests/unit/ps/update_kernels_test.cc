#include "ps/update/update_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/base/philox.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

template <class T>
std::vector<T> random_values(std::int64_t n) {
  std::vector<T> out;
  const RandomStream stream(3, RandomPurpose::test, 1);
  for (std::int64_t i = 0; i < n; ++i)
    out.push_back(static_cast<T>(stream.normal(static_cast<std::uint64_t>(i))));
  return out;
}

template <class T>
void expect_naive(std::int64_t n) {
  const std::vector<T> before = random_values<T>(n);
  std::vector<T> clamped = before, positive = before, averaged = before, scaled = before;
  kernels::clamp(clamped.data(), T(0.5), n);
  kernels::non_negative(positive.data(), n);
  kernels::average(averaged.data(), clamped.data(), T(0.75), T(0.25), n);
  kernels::scale(scaled.data(), T(3), n);
  double squares = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(clamped[i], std::min(T(0.5), std::max(T(-0.5), before[i])));
    EXPECT_EQ(positive[i], std::max(T(0), before[i]));
    EXPECT_NEAR(averaged[i], 0.75 * before[i] + 0.25 * clamped[i], 1e-6);
    EXPECT_EQ(scaled[i], before[i] * T(3));
    squares += static_cast<double>(before[i]) * static_cast<double>(before[i]);
  }
  EXPECT_NEAR(kernels::sum_of_squares(before.data(), n), squares, 1e-12 * (1 + squares)) << n;
}

TEST(UpdateKernels, FollowTheNaiveLoop) {
  for (std::int64_t n : {0, 1, 7, 8, 9, 64, 1001}) {
    expect_naive<float>(n);
    expect_naive<double>(n);
  }
}

TEST(UpdateKernels, ColumnsAreTheLastAxis) {
  std::vector<float> v = {1, 2, 3, 4, 5, 6};
  std::vector<double> sums = {100, 0, 0};
  kernels::add_column_squares(sums.data(), v.data(), 3, 6);
  EXPECT_EQ(sums, (std::vector<double>{117, 29, 45}));
  const std::vector<double> scales = {2, 1, 0.5};
  kernels::scale_columns(v.data(), scales.data(), 3, 6);
  EXPECT_EQ(v, (std::vector<float>{2, 2, 1.5, 8, 5, 3}));
}

TEST(UpdateKernels, NaNIsNotHidden) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> v = {nan, -1}, w = v;
  kernels::clamp(v.data(), 0.5F, 2);
  kernels::non_negative(w.data(), 2);
  EXPECT_TRUE(std::isnan(v[0]) && std::isnan(w[0]));
  EXPECT_TRUE(std::isnan(kernels::sum_of_squares(v.data(), 2)));
}

TEST(UpdateKernels, AreForRealNumbersOnly) {
  EXPECT_EQ(thrown([] { with_real(DType::int32, [](auto) {}); }),
            "argument: servers cannot update a variable of dtype int32");
}

}  // namespace
}  // namespace varscope
