// What is not finite is found, and no number is printed as "-nan".
#include "common/base/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/base/figures.h"

namespace varscope {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

template <class T>
class FiniteTest : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(FiniteTest, Reals);

TYPED_TEST(FiniteTest, FindsOneAtAnyPlaceOfAnyLength) {
  for (const std::size_t n : {std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{67}}) {
    for (std::size_t at = 0; at < n; ++at) {
      for (const double bad : {kInf, -kInf, kNan, -kNan}) {
        std::vector<TypeParam> v(n, std::numeric_limits<TypeParam>::lowest());
        EXPECT_TRUE(all_finite(v.data(), static_cast<std::int64_t>(n)));
        v[at] = static_cast<TypeParam>(bad);
        EXPECT_FALSE(all_finite(v.data(), static_cast<std::int64_t>(n)));
        const auto bytes = std::as_bytes(std::span(v));
        EXPECT_EQ(count_not_finite(dtype_of<TypeParam>(), bytes), 1);
        const auto found = find_not_finite(dtype_of<TypeParam>(), bytes);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->element, static_cast<std::int64_t>(at));
        EXPECT_STREQ(found->what, std::isnan(bad) ? "nan" : bad > 0 ? "inf" : "-inf");
      }
    }
  }
  EXPECT_TRUE(all_finite(static_cast<const TypeParam*>(nullptr), 0));
}

TYPED_TEST(FiniteTest, ReadsBytesThatAreNotAligned) {
  const std::vector<TypeParam> v{1, static_cast<TypeParam>(kNan), static_cast<TypeParam>(kInf)};
  std::vector<std::byte> bytes(v.size() * sizeof(TypeParam) + 1);
  std::memcpy(bytes.data() + 1, v.data(), v.size() * sizeof(TypeParam));
  EXPECT_EQ(count_not_finite(dtype_of<TypeParam>(), std::span(bytes).subspan(1)), 2);
}

TEST(Finite, HalfPrecisionAndIntegers) {
  const std::vector<std::uint16_t> bfloat16{0x3f80, 0x7f80, 0x7fc0, 0xff80,
                                            0x7f7f};  // 1, inf, nan, -inf, the largest
  EXPECT_EQ(count_not_finite(DType::bfloat16, std::as_bytes(std::span(bfloat16))), 3);
  const std::vector<std::int32_t> all_bits{-1, 0x7f800000, 0x7fffffff};
  EXPECT_EQ(count_not_finite(DType::int32, std::as_bytes(std::span(all_bits))), 0);
}

TEST(Figures, ShowWhatCountsAndNoMinusNan) {
  EXPECT_EQ(figure(0.327), "0.3270");
  EXPECT_EQ(figure(2.302585), "2.3026");
  EXPECT_EQ(figure(0), "0.0000");
  EXPECT_EQ(figure(-0.0), "0.0000");
  EXPECT_EQ(figure(0.000123456789), "0.000123457");
  EXPECT_EQ(figure(99999.5), "99999.5000");
  EXPECT_EQ(figure(123456), "123456");
  EXPECT_EQ(figure(1.5e72), "1.5e+72");
  EXPECT_EQ(figure(-1.5e72), "-1.5e+72");
  for (const double nan : {kNan, -kNan, std::copysign(kNan, -1.0)}) {
    EXPECT_EQ(figure(nan), "nan");
    EXPECT_EQ(short_number(nan), "nan");
  }
  EXPECT_EQ(figure(kInf), "inf");
  EXPECT_EQ(figure(-kInf), "-inf");
  EXPECT_EQ(short_number(0.12345678, 3), "0.123");
}

TEST(Figures, SharesAreFrom0To100) {
  EXPECT_EQ(percent(1, 3), 33);
  EXPECT_EQ(percent(3, 3), 100);
  EXPECT_EQ(percent(-5, 100), 0);
  EXPECT_EQ(percent(500, 100), 100);
  EXPECT_EQ(percent(0, 0), 0);
  EXPECT_EQ(percent(1, -1), 0);
}

}  // namespace
}  // namespace varscope
