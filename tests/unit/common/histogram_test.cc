#include "common/base/histogram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "common/base/serialize.h"
#include "tests/support/references/naive_histogram.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::expect_histogram_of;
using testing::thrown;

template <class T>
Histogram histogram_of(const std::vector<T>& values) {
  Histogram h;
  h.add(sizeof(T) == 4 ? DType::float32 : DType::float64, reinterpret_cast<const std::byte*>(values.data()),
        std::ssize(values));
  return h;
}

template <class T>
std::vector<T> random_values(std::uint64_t seed, std::size_t n) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, 1);
  std::uniform_real_distribution<double> exponent(-30, 30);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(normal(random) * std::exp2(exponent(random)));
  return values;
}

TEST(Histogram, IsThatOfTheDefinition) {
  const std::vector<float> floats = random_values<float>(1, 5000);
  expect_histogram_of(histogram_of(floats), {floats.begin(), floats.end()});
  const std::vector<double> doubles = random_values<double>(2, 5000);
  expect_histogram_of(histogram_of(doubles), doubles);
  for (const std::size_t n : {0, 1, 2, 3, 5}) {
    const std::vector<float> few = random_values<float>(3, n);
    expect_histogram_of(histogram_of(few), {few.begin(), few.end()});
  }
}

TEST(Histogram, HasABucketForEverything) {
  using Limits = std::numeric_limits<float>;
  const std::vector<float> values = {0,
                                     -0.0F,
                                     1,
                                     -1,
                                     1.125F,
                                     -1.125F,
                                     std::nextafter(1.125F, 0.F),
                                     Limits::max(),
                                     -Limits::max(),
                                     Limits::min(),
                                     -Limits::min(),
                                     Limits::denorm_min()};
  expect_histogram_of(histogram_of(values), {values.begin(), values.end()});
  const auto buckets = histogram_of(std::vector<float>{1, 1.0625F}).buckets();
  ASSERT_EQ(buckets.size(), 1U);
  EXPECT_EQ(buckets[0].left, 1);
  EXPECT_EQ(buckets[0].right, 1.125);
  const auto last = histogram_of(std::vector<double>{1e300, -1e300}).buckets();
  ASSERT_EQ(last.size(), 2U) << "what no float32 can be is in the outermost ones";
  EXPECT_EQ(last[1].right, std::ldexp(1.0, 128));
  EXPECT_EQ(last[0].left, -std::ldexp(1.0, 128));
}

TEST(Histogram, CountsApartWhatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const Histogram h = histogram_of(std::vector<float>{1, nan, -2, inf, -inf, -nan, 3});
  EXPECT_EQ(h.not_finite(), 4);
  expect_histogram_of(h, {1, -2, 3});
  const Histogram none = histogram_of(std::vector<double>{std::nan(""), HUGE_VAL});
  EXPECT_EQ(none.not_finite(), 2);
  expect_histogram_of(none, {});
}

TEST(Histogram, OfPartsAddsUpToThatOfTheWhole) {
  const std::vector<float> a = random_values<float>(4, 700), b = random_values<float>(5, 11);
  std::vector<float> both = a;
  both.insert(both.end(), b.begin(), b.end());
  Histogram sum = histogram_of(a);
  sum += Histogram();
  sum += histogram_of(b);
  expect_histogram_of(sum, {both.begin(), both.end()});
  Histogram other;
  other += histogram_of(b);
  other += histogram_of(a);
  expect_histogram_of(other, {both.begin(), both.end()});
}

TEST(Histogram, TravelsAndRefusesLies) {
  const std::vector<float> values = random_values<float>(6, 300);
  const std::string bytes = to_binary(histogram_of(values));
  const auto back = from_binary<Histogram>(bytes, "a histogram");
  EXPECT_TRUE(back.is_sound());
  expect_histogram_of(back, {values.begin(), values.end()});
  int n_sound = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(~damaged[i]);
    const std::string what = thrown([&] {
      const auto h = from_binary<Histogram>(damaged, "a histogram");
      n_sound += h.is_sound() ? 1 : 0;
    });
    EXPECT_TRUE(what == "no error" || what.find("a histogram") != std::string::npos) << what;
  }
  EXPECT_LT(n_sound, std::ssize(bytes) / 2) << "counts and places are checked";
}

TEST(Histogram, RefusesOtherTypes) {
  Histogram h;
  EXPECT_EQ(thrown([&] { h.add(DType::int32, nullptr, 0); }),
            "argument: a histogram of int32 is not possible, only of float32 and float64");
}

}  // namespace
}  // namespace varscope
