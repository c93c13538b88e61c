#include "common/initializer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

Tensor filled(const Initializer& init, DType dtype, std::int64_t n, std::int64_t begin = 0,
              std::uint64_t seed = 1, const std::string& name = "layer/weights") {
  Tensor t(dtype, Shape{n});
  init.fill(t.view(), seed, name, begin);
  return t;
}

bool same_bits(const Tensor& a, const std::byte* b) {
  return std::memcmp(a.view().bytes(), b, a.n_bytes()) == 0;
}

const Initializer kAll[] = {Initializer::constant(0.3), Initializer::uniform(-2, 3),
                            Initializer::normal(1, 0.5)};

TEST(Initializer, AnyPartitioningGivesTheSameBits) {
  constexpr std::int64_t kN = 1000;
  std::mt19937 random(5);
  for (const Initializer& init : kAll) {
    for (DType dtype : {DType::float32, DType::float64}) {
      const Tensor whole = filled(init, dtype, kN);
      for (int round = 0; round < 20; ++round) {
        for (std::int64_t begin = 0; begin < kN;) {
          const std::int64_t n =
              std::min<std::int64_t>(kN - begin, 1 + static_cast<std::int64_t>(random() % 300));
          const std::byte* expected = whole.view().bytes() + static_cast<std::size_t>(begin) * size_of(dtype);
          ASSERT_TRUE(same_bits(filled(init, dtype, n, begin), expected)) << init.str() << " at " << begin;
          begin += n;
        }
      }
    }
  }
}

TEST(Initializer, SeedAndNameMakeOtherValues) {
  for (const Initializer& init : {kAll[1], kAll[2]}) {
    const Tensor a = filled(init, DType::float64, 50);
    EXPECT_TRUE(same_bits(filled(init, DType::float64, 50), a.view().bytes()));
    EXPECT_FALSE(same_bits(filled(init, DType::float64, 50, 0, 2), a.view().bytes()));
    EXPECT_FALSE(same_bits(filled(init, DType::float64, 50, 0, 1, "layer/other"), a.view().bytes()));
  }
}

TEST(Initializer, UniformStaysInsideAndHasItsMoments) {
  constexpr int kN = 100'000;
  const Tensor t = filled(Initializer::uniform(-2, 3), DType::float64, kN);
  double mean = 0, variance = 0;
  for (double x : t.as<double>()) {
    ASSERT_GE(x, -2.0);
    ASSERT_LT(x, 3.0);
    mean += x / kN;
  }
  for (double x : t.as<double>()) variance += (x - mean) * (x - mean) / kN;
  EXPECT_NEAR(mean, 0.5, 0.025);
  EXPECT_NEAR(variance, 25.0 / 12, 0.04);
}

TEST(Initializer, NormalHasItsMoments) {
  constexpr int kN = 100'000;
  const Tensor t = filled(Initializer::normal(1, 0.5), DType::float64, kN);
  double mean = 0, variance = 0;
  for (double x : t.as<double>()) mean += x / kN;
  for (double x : t.as<double>()) variance += (x - mean) * (x - mean) / kN;
  EXPECT_NEAR(mean, 1.0, 0.01);
  EXPECT_NEAR(variance, 0.25, 0.01);
}

TEST(Initializer, ConstantsFillEveryDType) {
  EXPECT_EQ(filled(Initializer::constant(3), DType::int32, 4).as<std::int32_t>()[3], 3);
  EXPECT_EQ(filled(Initializer::constant(-3), DType::int64, 4).as<std::int64_t>()[0], -3);
  EXPECT_EQ(filled(Initializer::constant(0.3), DType::float32, 1).as<float>()[0], 0.3F);
  EXPECT_EQ(filled(Initializer::constant(0.3), DType::float64, 1).as<double>()[0], 0.3);
}

TEST(Initializer, RandomIntegersAreRefused) {
  EXPECT_EQ(thrown([] { filled(Initializer::uniform(-1, 1), DType::int32, 4); }),
            "argument: variable \"layer/weights\" of dtype int32 cannot be initialized with uniform(-1, 1)");
  EXPECT_NE(thrown([] { filled(Initializer::normal(0, 1), DType::int64, 4); }), "no error");
}

TEST(Initializer, NothingToFill) {
  EXPECT_EQ(thrown([] { filled(Initializer::normal(0, 1), DType::float32, 0); }), "no error");
}

struct FanCase {
  Shape shape;
  double in, out;
};

// Row 31 of the table of variable scopes.
TEST(Fans, FollowTheShape) {
  for (const auto& [shape, in, out] :
       {FanCase{Shape{}, 1, 1}, FanCase{Shape{7}, 7, 7}, FanCase{Shape{784, 256}, 784, 256},
        FanCase{Shape{3, 3, 16, 32}, 144, 288}, FanCase{Shape{5, 2, 4}, 10, 20}}) {
    EXPECT_EQ(fans_of(shape).in, in) << shape.str();
    EXPECT_EQ(fans_of(shape).out, out) << shape.str();
    const double limit = std::sqrt(6 / (in + out));
    EXPECT_EQ(Initializer::glorot_uniform(shape), Initializer::uniform(-limit, limit)) << shape.str();
  }
}

TEST(Initializer, VariancesOfTheNamedKinds) {
  const Shape shape{784, 256};
  EXPECT_DOUBLE_EQ(Initializer::glorot_normal(shape).b, std::sqrt(2.0 / (784 + 256)));
  EXPECT_DOUBLE_EQ(Initializer::he_normal(shape).b, std::sqrt(2.0 / 784));
  EXPECT_DOUBLE_EQ(Initializer::he_uniform(shape).b, std::sqrt(6.0 / 784));
  EXPECT_DOUBLE_EQ(Initializer::fan_in_uniform(784).b, 1.0 / 28);
  EXPECT_DOUBLE_EQ(Initializer::fan_in_uniform(784).a, -1.0 / 28);
}

TEST(Initializer, AnEmptyShapeHasAFiniteLimit) {
  EXPECT_TRUE(std::isfinite(Initializer::glorot_uniform(Shape{0, 0}).b));
  EXPECT_TRUE(std::isfinite(Initializer::he_normal(Shape{0}).b));
}

TEST(Initializer, Writes) {
  EXPECT_EQ(Initializer::constant(0.5).str(), "constant(0.5)");
  EXPECT_EQ(Initializer::uniform(-1, 2).str(), "uniform(-1, 2)");
  EXPECT_EQ(Initializer::normal(0, 0.1).str(), "normal(0, 0.1)");
}

}  // namespace
}  // namespace varscope
