#include "common/variables/regularizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/serialize.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

TEST(Regularizer, LossIsTheSumOfBothTerms) {
  const Tensor w = Tensor::of<double>({2, 2}, {1, -2, 0, 3});
  EXPECT_DOUBLE_EQ(Regularizer::l1(0.5).loss(w.view()), 3.0);
  EXPECT_DOUBLE_EQ(Regularizer::l2(0.5).loss(w.view()), 7.0);
  EXPECT_DOUBLE_EQ(Regularizer::l1_l2(2, 1).loss(w.view()), 12.0 + 14.0);
  EXPECT_EQ(Regularizer::none().loss(w.view()), 0.0);
  EXPECT_EQ(Regularizer::l2(1).loss(Tensor(DType::float32, {0, 3}).view()), 0.0);
}

TEST(Regularizer, GradientIsThatOfTheLoss) {
  constexpr double kStep = 1e-6, kScale = 0.7;
  const Regularizer r = Regularizer::l1_l2(0.3, 0.2);
  const Tensor w = Tensor::of<double>({4}, {1.5, -2, 0.25, -0.125});
  Tensor g = Tensor::of<double>({4}, {1, 1, 1, 1});
  r.add_gradient(w.view(), g.view(), kScale);
  for (std::size_t i = 0; i < 4; ++i) {
    const Tensor up = w.clone(), down = w.clone();
    up.as<double>()[i] += kStep;
    down.as<double>()[i] -= kStep;
    const double slope = (r.loss(up.view()) - r.loss(down.view())) / (2 * kStep);
    EXPECT_NEAR(g.as<double>()[i], 1 + kScale * slope, 1e-8);
  }
}

TEST(Regularizer, TheSignOfZeroIsZero) {
  const Tensor w = Tensor::of<float>({2}, {0.0F, -0.0F});
  Tensor g = Tensor::of<float>({2}, {0.5F, 0.25F});
  Regularizer::l1(3).add_gradient(w.view(), g.view(), 1);
  EXPECT_EQ(g.as<float>()[0], 0.5F);
  EXPECT_EQ(g.as<float>()[1], 0.25F);
}

TEST(Regularizer, SumsInDouble) {
  Tensor w(DType::float32, {1 << 20});
  for (float& x : w.as<float>()) x = 0.1F;
  EXPECT_NEAR(Regularizer::l1(1).loss(w.view()), static_cast<double>(0.1F) * (1 << 20), 1e-4);
}

TEST(Regularizer, RefusesIntegersAndMismatches) {
  const Tensor ints(DType::int32, {2}), floats(DType::float32, {2}), three(DType::float32, {3});
  EXPECT_EQ(thrown([&] { Regularizer::l2(1).loss(ints.view()); }),
            "argument: regularizer l2(1) is for float32 and float64, not for int32");
  EXPECT_EQ(thrown([&] { Regularizer::l2(1).add_gradient(floats.view(), three.view(), 1); }),
            "argument: the gradient of float32 [2] cannot be added to float32 [3]");
}

TEST(Regularizer, WritesAndArchives) {
  EXPECT_EQ(Regularizer::none().str(), "none");
  EXPECT_FALSE(Regularizer::none().exists());
  EXPECT_EQ(Regularizer::l1(0.5).str(), "l1(0.5)");
  EXPECT_EQ(Regularizer::l2(0.001).str(), "l2(0.001)");
  EXPECT_EQ(Regularizer::l1_l2(0.1, 0.2).str(), "l1_l2(0.1, 0.2)");
  EXPECT_EQ(from_text<Regularizer>(to_text(Regularizer::l1_l2(0.1, 0.2)), "x"), Regularizer::l1_l2(0.1, 0.2));
}

}  // namespace
}  // namespace varscope
