#include "common/base/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

namespace varscope {
namespace {

using Words = std::array<std::uint32_t, 4>;
using Key = std::array<std::uint32_t, 2>;

// kat_vectors of the Random123 distribution.
TEST(Philox, KnownAnswers) {
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32(Words{0, 0, 0, 0}, Key{0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32(Words{kOnes, kOnes, kOnes, kOnes}, Key{kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32(Words{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, Key{0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, IsAPureFunction) {
  const RandomStream a(1, RandomPurpose::test, 5), b(1, RandomPurpose::test, 5);
  const auto late = a.words(1000);
  for (std::uint64_t i : {0ULL, 1ULL, 999ULL, 1ULL << 40}) EXPECT_EQ(a.words(i), b.words(i));
  EXPECT_EQ(a.words(1000), late);
}

TEST(RandomStream, ManyWordsAtOnceAreTheSameWords) {
  const RandomStream stream(9, RandomPurpose::test, 4);
  for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{0xfffffffd}}) {
    for (const std::size_t n : {0U, 1U, 3U, 4U, 131U}) {
      std::vector<std::uint32_t> words(n + 1, 7);
      stream.words(first, std::span(words).first(n));
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(words[i], stream.words(first + i / 4)[i % 4]) << first << " " << i;
      EXPECT_EQ(words[n], 7U) << "beyond the span";
    }
  }
}

TEST(RandomStream, ManyDrawsAtOnceAreTheSameDraws) {
  const RandomStream stream(9, RandomPurpose::test, 4);
  for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{0xfffffffd}, ~std::uint64_t{0} - 20}) {
    for (const std::size_t n : {0U, 1U, 15U, 16U, 17U, 50U}) {
      std::vector<double> uniform(n + 1, 7), normal(n + 1, 7);
      stream.uniform(first, std::span(uniform).first(n));
      stream.normal(first, std::span(normal).first(n));
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_EQ(uniform[i], stream.uniform(first + i)) << first << " " << i;
        ASSERT_EQ(normal[i], stream.normal(first + i)) << first << " " << i;
      }
      EXPECT_EQ(uniform[n], 7) << "beyond the span";
      EXPECT_EQ(normal[n], 7) << "beyond the span";
    }
  }
}

TEST(RandomStream, SeedPurposeStreamAndElementAllCount) {
  std::set<Words> seen;
  int n = 0;
  for (std::uint64_t seed : {0, 1, 2}) {
    for (RandomPurpose purpose : {RandomPurpose::initializer, RandomPurpose::shuffle, RandomPurpose::test}) {
      for (std::uint64_t stream : {0, 1, 2}) {
        for (std::uint64_t element : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32}) {
          seen.insert(RandomStream(seed, purpose, stream).words(element));
          ++n;
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), static_cast<std::size_t>(n));
}

TEST(RandomStream, UniformHasTheMomentsOfUniform) {
  const RandomStream stream(3, RandomPurpose::test, 0);
  constexpr int kN = 100'000;
  double sum = 0, squares = 0, product = 0, previous = 0.5;
  for (int i = 0; i < kN; ++i) {
    const double u = stream.uniform(static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
    product += (u - 0.5) * (previous - 0.5);
    previous = u;
  }
  const double mean = sum / kN;
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1.0 / 12 / kN));
  EXPECT_NEAR(squares / kN - mean * mean, 1.0 / 12, 0.002);
  EXPECT_NEAR(product / kN, 0.0, 5.0 / 12 / std::sqrt(kN));  // neighbours do not correlate
}

TEST(RandomStream, NormalHasTheMomentsOfNormal) {
  const RandomStream stream(4, RandomPurpose::test, 0);
  constexpr int kN = 100'000;
  double moments[5] = {};
  int beyond2 = 0;
  for (int i = 0; i < kN; ++i) {
    const double x = stream.normal(static_cast<std::uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    for (int k = 1; k <= 4; ++k) moments[k] += std::pow(x, k) / kN;
    beyond2 += std::abs(x) > 2 ? 1 : 0;
  }
  EXPECT_NEAR(moments[1], 0, 0.02);
  EXPECT_NEAR(moments[2], 1, 0.03);
  EXPECT_NEAR(moments[3], 0, 0.06);
  EXPECT_NEAR(moments[4], 3, 0.2);
  EXPECT_NEAR(static_cast<double>(beyond2) / kN, 0.0455, 0.004);
}

TEST(RandomStream, BelowReachesEveryValueAlike) {
  const RandomStream stream(5, RandomPurpose::test, 0);
  constexpr std::uint64_t kBound = 10;
  constexpr int kN = 50'000;
  std::vector<int> counts(kBound, 0);
  for (int i = 0; i < kN; ++i) {
    const std::uint64_t x = stream.below(static_cast<std::uint64_t>(i), kBound);
    ASSERT_LT(x, kBound);
    ++counts[x];
  }
  double chi2 = 0;
  for (int c : counts) chi2 += std::pow(c - kN / 10.0, 2) / (kN / 10.0);
  EXPECT_LT(chi2, 27.9);  // 9 degrees of freedom, one in a thousand
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(stream.below(i, 1), 0U);
}

}  // namespace
}  // namespace varscope
