#include "common/variables/initializer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "common/base/serialize.h"
#include "common/variables/variable_table.h"
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
                            Initializer::normal(1, 0.5), Initializer::truncated_normal(1, 0.5)};

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
  for (const Initializer& init : {kAll[1], kAll[2], kAll[3]}) {
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

TEST(Initializer, TruncatedNormalStaysWithinTwoStandardDeviations) {
  constexpr int kN = 100'000;
  const Tensor t = filled(Initializer::truncated_normal(1, 0.5), DType::float64, kN);
  double mean = 0, variance = 0;
  for (double x : t.as<double>()) {
    ASSERT_LE(std::abs(x - 1), 1.0);
    mean += x / kN;
  }
  for (double x : t.as<double>()) variance += (x - mean) * (x - mean) / kN;
  EXPECT_NEAR(mean, 1.0, 0.01);
  EXPECT_NEAR(variance, 0.25 * 0.774, 0.005);
}

// The first attempt is the plain normal's draw: only those outside are drawn again.
TEST(Initializer, TruncatedNormalKeepsTheDrawsInside) {
  const Tensor plain = filled(Initializer::normal(0, 1), DType::float64, 1000);
  const Tensor truncated = filled(Initializer::truncated_normal(0, 1), DType::float64, 1000);
  int redrawn = 0;
  for (std::size_t i = 0; i < 1000; ++i) {
    if (std::abs(plain.as<double>()[i]) > 2) {
      ++redrawn;
      EXPECT_NE(truncated.as<double>()[i], plain.as<double>()[i]);
    } else {
      EXPECT_EQ(truncated.as<double>()[i], plain.as<double>()[i]);
    }
  }
  EXPECT_GT(redrawn, 20);
}

// gain^2 on the diagonal of the shorter side's Gram matrix, 0 beside it.
TEST(Initializer, OrthogonalHasAnOrthonormalShorterSide) {
  for (const Shape& shape : {Shape{30, 7}, Shape{7, 30}, Shape{5, 5}, Shape{3, 4, 6}, Shape{1, 1}}) {
    Tensor t(DType::float64, shape);
    Initializer::orthogonal(1.5).fill(t.view(), 3, "w", 0);
    const std::int64_t cols = shape[shape.rank() - 1], rows = t.n_elements() / cols;
    const bool tall = rows >= cols;
    const auto at = [&](std::int64_t line, std::int64_t k) {
      return t.as<double>()[static_cast<std::size_t>(tall ? k * cols + line : line * cols + k)];
    };
    for (std::int64_t i = 0; i < std::min(rows, cols); ++i) {
      for (std::int64_t j = 0; j < std::min(rows, cols); ++j) {
        double dot = 0;
        for (std::int64_t k = 0; k < std::max(rows, cols); ++k) dot += at(i, k) * at(j, k);
        EXPECT_NEAR(dot, i == j ? 2.25 : 0, 1e-13) << shape.str();
      }
    }
  }
}

// The sign of R's diagonal is positive: the first column points as the draws do.
TEST(Initializer, OrthogonalKeepsTheSignOfTheDraws) {
  Tensor q(DType::float64, {6, 1}), draws(DType::float64, {6, 1});
  Initializer::orthogonal().fill(q.view(), 3, "w", 0);
  Initializer::normal(0, 1).fill(draws.view(), 3, "w", 0);
  double norm = 0;
  for (double x : draws.as<double>()) norm += x * x;
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_NEAR(q.as<double>()[i], draws.as<double>()[i] / std::sqrt(norm), 1e-15);
}

TEST(Initializer, IdentityHasTheGainOnItsDiagonal) {
  Tensor t(DType::int32, {2, 3});
  Initializer::identity(4).fill(t.view(), 1, "w", 0);
  EXPECT_TRUE(same_bits(t, Tensor::of<std::int32_t>({2, 3}, {4, 0, 0, 0, 4, 0}).view().bytes()));
}

TEST(Initializer, MatricesNeedTheirRank) {
  const auto error = [](const Initializer& init, const Shape& shape) {
    return thrown([&] { init.fill(Tensor(DType::float32, shape).view(), 1, "w", 0); });
  };
  EXPECT_EQ(error(Initializer::orthogonal(), {4}),
            "argument: variable \"w\" of shape [4] cannot be initialized with orthogonal(1): it needs rank 2 "
            "or more");
  EXPECT_EQ(error(Initializer::identity(), {4, 4, 4}),
            "argument: variable \"w\" of shape [4, 4, 4] cannot be initialized with identity(1): it needs "
            "rank 2");
  EXPECT_EQ(error(Initializer::orthogonal(), {0, 4}), "no error");
  EXPECT_EQ(error(Initializer::orthogonal(), {4, 0}), "no error");
}

TEST(Initializer, ValuesAreCopied) {
  const Tensor source = Tensor::of<std::int32_t>({2, 2}, {1, 2, 3, 4});
  const Initializer init = Initializer::values(source.view());
  Tensor t(DType::int32, {2});
  init.fill(t.view(), 1, "w", 1, {2, 2});
  EXPECT_EQ(t.as<std::int32_t>()[0], 2);
  EXPECT_EQ(t.as<std::int32_t>()[1], 3);
  EXPECT_NE(thrown([&] { init.fill(t.view(), 1, "w", 3, {2, 2}); }), "no error");
  EXPECT_NE(thrown([&] { init.fill(Tensor(DType::float32, {2}).view(), 1, "w", 0, {2, 2}); }), "no error");
}

// Every kind, every way to cut a matrix in two: each part, and each piece of it, has the whole's bits.
TEST(Initializer, PartsHaveTheBitsOfTheWhole) {
  Tensor source(DType::float32, {6, 5});
  Initializer::normal(0, 1).fill(source.view(), 8, "source", 0);
  VariableSpec whole;
  whole.name = "w";
  whole.shape = Shape{6, 5};
  for (const Initializer& init : {kAll[0], kAll[1], kAll[2], kAll[3], Initializer::orthogonal(2),
                                  Initializer::identity(3), Initializer::values(source.view())}) {
    whole.initializer = init;
    Tensor expected(DType::float32, whole.shape);
    whole.fill(expected.view(), 7, 0);
    for (std::size_t axis : {0U, 1U}) {
      VariableSpec part = whole;
      part.name = "w/part_1";
      part.shape = whole.shape.with_dim(axis, 2);
      part.part = {"w", whole.shape, Shape{0, 0}.with_dim(axis, 3), 1, 3};
      for (std::int64_t begin = 0; begin < part.shape.n_elements(); begin += 3) {
        const std::int64_t n = std::min<std::int64_t>(3, part.shape.n_elements() - begin);
        Tensor piece(DType::float32, {n});
        part.fill(piece.view(), 7, begin);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t row = (begin + i) / part.shape[1] + part.part.offset[0];
          const std::int64_t column = (begin + i) % part.shape[1] + part.part.offset[1];
          EXPECT_EQ(piece.as<float>()[static_cast<std::size_t>(i)],
                    expected.as<float>()[static_cast<std::size_t>(row * 5 + column)])
              << init.str() << " axis " << axis << " element " << begin + i;
        }
      }
    }
  }
}

TEST(Initializer, VarianceScalingOfTheTruncatedNormalKeepsTheVariance) {
  using I = Initializer;
  const I init = I::variance_scaling({300, 100}, 2, I::FanMode::fan_out, I::Distribution::truncated_normal);
  const Tensor t = filled(init, DType::float64, 100'000);
  double variance = 0;
  for (double x : t.as<double>()) variance += x * x / 100'000;
  EXPECT_NEAR(variance, 0.02, 0.0004);
  EXPECT_DOUBLE_EQ(I::lecun_normal({25, 3}).b, 0.2);
  EXPECT_DOUBLE_EQ(I::lecun_uniform({3, 7}).b, 1.0);
}

TEST(Initializer, ArchivesRoundTrip) {
  const Tensor source = Tensor::of<double>({1, 2}, {0.1, -7});
  for (const Initializer& init :
       {kAll[1], Initializer::orthogonal(0.5), Initializer::values(source.view())}) {
    EXPECT_EQ(from_text<Initializer>(to_text(init), "x"), init) << init.str();
    EXPECT_EQ(from_binary<Initializer>(to_binary(init), "x"), init) << init.str();
  }
}

// Written before class version 1.
TEST(Initializer, ReadsArchivesOfVersion0) {
  EXPECT_EQ(from_text<Initializer>("0 0 2 1.00000000000000000e+00 5.00000000000000000e-01\n", "x"),
            Initializer::normal(1, 0.5));
  const auto v = from_text<VariableSpec>(
      "0 1 3 a/w 1 a 1 2 0 2 3 0 0 1 -5.00000000000000000e-01 2.50000000000000000e-01 1 "
      "-1.00000000000000000e+00 0 0 0 0.00000000000000000e+00 0  0 0 0 0 0 1\n",
      "x");
  EXPECT_EQ(v.name, "a/w");
  EXPECT_EQ(v.initializer, Initializer::uniform(-0.5, 0.25));
}

TEST(Initializer, RefusesArchivesThatContradictThemselves) {
  Initializer bad = Initializer::values(Tensor::of<float>({2}, {1, 2}).view());
  bad.values_bytes.pop_back();
  EXPECT_EQ(thrown([&] { from_text<Initializer>(to_text(bad), "x"); }),
            "data: an initializer holds 7 bytes of values for shape [2] of float32");
  bad.kind = static_cast<Initializer::Kind>(99);
  EXPECT_EQ(thrown([&] { from_text<Initializer>(to_text(bad), "x"); }), "data: an initializer has kind 99");
}

TEST(Initializer, Writes) {
  EXPECT_EQ(Initializer::truncated_normal(0, 0.1).str(), "truncated_normal(0, 0.1)");
  EXPECT_EQ(Initializer::orthogonal(2).str(), "orthogonal(2)");
  EXPECT_EQ(Initializer::identity().str(), "identity(1)");
  EXPECT_EQ(Initializer::values(Tensor(DType::int32, {2, 3}).view()).str(), "values(int32 [2, 3])");
  EXPECT_EQ(Initializer::constant(0.5).str(), "constant(0.5)");
  EXPECT_EQ(Initializer::uniform(-1, 2).str(), "uniform(-1, 2)");
  EXPECT_EQ(Initializer::normal(0, 0.1).str(), "normal(0, 0.1)");
}

}  // namespace
}  // namespace varscope
