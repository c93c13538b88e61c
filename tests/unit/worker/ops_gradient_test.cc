#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/references/gradient_check.h"

// Every op against central finite differences in float64.
namespace varscope {
namespace {

using testing::GradientCheck;

constexpr std::int64_t kAny = Shape::kUnknown;

// Batches of 1, odd sizes, and more than a vector register.
class GradientsByBatch : public ::testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(OpsGradient, GradientsByBatch, ::testing::Values(1, 3, 17));

TEST_P(GradientsByBatch, Matmul) {
  GradientCheck b;
  b.check(b.scalar(ops::matmul(b.graph, b.variable("a", {GetParam(), 5}), b.variable("w", {5, 3}))));
}

TEST_P(GradientsByBatch, AddBias) {
  GradientCheck b;
  b.check(b.scalar(ops::add_bias(b.graph, b.variable("x", {GetParam(), 7}), b.variable("bias", {7}))));
}

TEST_P(GradientsByBatch, AddBiasOnHigherRank) {
  GradientCheck b;
  b.check(b.scalar(ops::add_bias(b.graph, b.variable("x", {GetParam(), 2, 3}), b.variable("bias", {3}))));
}

TEST_P(GradientsByBatch, Activations) {
  for (const Activation f : kActivations) {
    SCOPED_TRACE(to_string(f));
    GradientCheck b;
    b.check(b.scalar(ops::activation(b.graph, f, b.variable("x", {GetParam(), 9}))));
  }
}

TEST_P(GradientsByBatch, DenseWithEveryActivation) {
  for (const Activation f : kActivations) {
    SCOPED_TRACE(to_string(f));
    GradientCheck b;
    const NodeId w = b.variable("w", {4, 11});
    b.check(b.scalar(ops::dense(b.graph, b.variable("x", {GetParam(), 4}), w, b.variable("bias", {11}), f)));
  }
}

TEST_P(GradientsByBatch, DenseWithoutBias) {
  for (const Activation f :
       {Activation::linear, Activation::tanh, Activation::gelu, Activation::swish, Activation::selu}) {
    GradientCheck b;
    b.check(b.scalar(
        ops::dense(b.graph, b.variable("x", {GetParam(), 4}), b.variable("w", {4, 3}), std::nullopt, f)));
  }
}

TEST_P(GradientsByBatch, AddAndMultiply) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 3});
  const NodeId y = b.variable("y", {GetParam(), 3});
  b.check(b.scalar(ops::multiply(b.graph, ops::add(b.graph, x, y), y)));
}

TEST_P(GradientsByBatch, OneNodeAsBothInputs) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 3});
  b.check(b.scalar(ops::add(b.graph, ops::multiply(b.graph, x, x), ops::add(b.graph, x, x))));
  GradientCheck square;
  const NodeId w = square.variable("w", {3, 3});
  square.check(square.scalar(ops::matmul(square.graph, w, w)));
  GradientCheck fused;
  const NodeId v = fused.variable("v", {3, 3});
  fused.check(fused.scalar(ops::dense(fused.graph, v, v, std::nullopt, Activation::tanh)));
}

TEST_P(GradientsByBatch, ReshapeAndFlatten) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 2, 3});
  const NodeId rows = ops::flatten(b.graph, x);
  const NodeId again = ops::reshape(b.graph, ops::multiply(b.graph, rows, rows), {GetParam(), 3, 2});
  b.check(b.scalar(ops::multiply(b.graph, again, ops::reshape(b.graph, x, {GetParam(), 3, 2}))));
}

TEST_P(GradientsByBatch, Reductions) {
  for (const auto over : {ops::ReduceOver::all, ops::ReduceOver::last_axis}) {
    GradientCheck b;
    const NodeId x = b.variable("x", {GetParam(), 5});
    const NodeId squares = ops::multiply(b.graph, x, x);
    const NodeId sum = b.scalar(ops::reduce_sum(b.graph, squares, over));
    b.check(ops::add(b.graph, sum, b.scalar(ops::reduce_mean(b.graph, squares, over))));
  }
}

TEST_P(GradientsByBatch, Softmax) {
  GradientCheck b;
  b.check(b.scalar(ops::softmax(b.graph, b.variable("x", {GetParam(), 6}))));
}

TEST_P(GradientsByBatch, SoftmaxCrossEntropy) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 5});
  b.check(ops::softmax_cross_entropy(b.graph, x, b.feed_labels({GetParam()}, 5)));
}

TEST_P(GradientsByBatch, SigmoidCrossEntropy) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 1});
  b.check(ops::sigmoid_cross_entropy(b.graph, x, b.feed_labels({GetParam()}, 2)));
  GradientCheck many;
  const NodeId z = many.variable("z", {GetParam(), 4});
  many.check(ops::sigmoid_cross_entropy(many.graph, z, many.feed_random({GetParam(), 4})));
}

TEST_P(GradientsByBatch, MeanSquaredError) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 4});
  b.check(ops::mean_squared_error(b.graph, x, b.feed_random({GetParam(), 4})));
  GradientCheck one_hot;
  const NodeId z = one_hot.variable("z", {GetParam(), 3});
  one_hot.check(ops::mean_squared_error(one_hot.graph, z, one_hot.feed_labels({GetParam()}, 3)));
  GradientCheck number;
  const NodeId u = number.variable("u", {GetParam(), 1});
  number.check(ops::mean_squared_error(number.graph, u, number.feed_labels({GetParam()}, 9)));
}

TEST_P(GradientsByBatch, SecondContributionOfALossAdds) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 3});
  const NodeId labels = b.feed_labels({GetParam()}, 3);
  const NodeId a = ops::softmax_cross_entropy(b.graph, x, labels);
  const NodeId c = ops::mean_squared_error(b.graph, x, labels);
  b.check(ops::add(b.graph, ops::add(b.graph, a, c), ops::softmax_cross_entropy(b.graph, x, labels)));
}

TEST_P(GradientsByBatch, SharedVariablesAccumulate) {
  GradientCheck b;
  const NodeId x = b.feed_random({GetParam(), 4});
  const NodeId w = b.variable("w", {4, 4});
  const NodeId bias = b.variable("bias", {4});
  NodeId h = ops::dense(b.graph, x, w, bias, Activation::tanh);
  h = ops::dense(b.graph, h, w, bias, Activation::sigmoid);
  h = ops::add_bias(b.graph, ops::matmul(b.graph, h, w), bias);
  const NodeId penalty = ops::reduce_sum(b.graph, ops::multiply(b.graph, w, w));
  b.check(ops::add(b.graph, ops::softmax_cross_entropy(b.graph, h, b.feed_labels({GetParam()}, 4)), penalty));
}

TEST(OpsGradient, CastKeepsTheGradient) {
  VariableStore store;
  Graph g;
  const Variable& v = store.get_variable("v", {3});
  const NodeId wide = ops::cast(g, g.variable(v), DType::float64);
  const NodeId loss = ops::reduce_sum(g, ops::multiply(g, wide, wide));
  Session session(g, 1);
  session.assign(v, Tensor::of<float>({3}, {1, -2, 0.5}).view());
  const auto gradient = session.gradients(loss, {});
  EXPECT_EQ(gradient.at("v").as<float>()[0], 2.0F);
  EXPECT_EQ(gradient.at("v").as<float>()[1], -4.0F);
  EXPECT_EQ(gradient.at("v").as<float>()[2], 1.0F);
}

double loss_of_logit(double logit, std::int32_t label) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float64, {kAny, 1});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  const NodeId loss = ops::sigmoid_cross_entropy(g, x, y);
  Session session(g, 1);
  return session
      .run({loss}, {{x, Tensor::of<double>({1, 1}, {logit}).view()},
                    {y, Tensor::of<std::int32_t>({1}, {label}).view()}})[0]
      .as<double>()[0];
}

TEST(LossOps, AreStableFarOut) {
  EXPECT_DOUBLE_EQ(loss_of_logit(1000, 0), 1000);
  EXPECT_DOUBLE_EQ(loss_of_logit(1000, 1), 0);
  EXPECT_DOUBLE_EQ(loss_of_logit(-1000, 1), 1000);
  EXPECT_NEAR(loss_of_logit(0, 1), std::log(2.0), 1e-15);
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  const NodeId loss = ops::softmax_cross_entropy(g, x, y);
  Session session(g, 1);
  const Tensor logits = Tensor::of<float>({2, 3}, {1000, 0, -1000, 3, 3, 3});
  const Tensor labels = Tensor::of<std::int32_t>({2}, {1, 2});
  EXPECT_NEAR(session.run({loss}, {{x, logits.view()}, {y, labels.view()}})[0].as<double>()[0],
              1000 + std::log(3.0), 1e-6);
}

TEST(LossOps, RejectLabelsOutOfRange) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  const NodeId loss = ops::softmax_cross_entropy(g, x, y);
  Session session(g, 1);
  const Tensor logits(DType::float32, {2, 3});
  for (const std::int32_t bad : {-1, 3}) {
    const Tensor labels = Tensor::of<std::int32_t>({2}, {0, bad});
    try {
      session.run({loss}, {{x, logits.view()}, {y, labels.view()}});
      ADD_FAILURE() << "label " << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data);
      EXPECT_EQ(std::string(e.what()),
                fmt::format("row 1 of the batch has label {}; with 3 classes labels are 0 .. 2", bad));
    }
  }
}

TEST(CorrectCountOp, TakesTheFirstLargestAndThresholdsOneOutput) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId z = g.placeholder("z", DType::float32, {kAny, 1});
  const NodeId y = g.placeholder("y", DType::int32, {kAny});
  const NodeId many = ops::correct_count(g, x, y);
  const NodeId one = ops::correct_count(g, z, y);
  Session session(g, 1);
  const Tensor labels = Tensor::of<std::int32_t>({3}, {0, 1, 0});
  const Tensor logits = Tensor::of<float>({3, 3}, {2, 2, 1, 0, 5, 1, 0, 0, 9});
  const Tensor single = Tensor::of<float>({3, 1}, {0, 0.1F, 4});
  EXPECT_EQ(session.run({many}, {{x, logits.view()}, {y, labels.view()}})[0].as<std::int64_t>()[0], 2);
  EXPECT_EQ(session.run({one}, {{z, single.view()}, {y, labels.view()}})[0].as<std::int64_t>()[0], 2);
}

// Reference values of float32 kernels, and independence of position and length.
TEST(Kernels, MatchTheMathLibraryAtEveryPosition) {
  const std::size_t n = 1003;
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = (static_cast<float>(i) - 500) * 0.025F;
  for (const Activation f : kActivations) {
    SCOPED_TRACE(to_string(f));
    std::vector<float> y = x;
    std::vector<double> wide(x.begin(), x.end());
    kernels::bias_activate(f, y.data(), nullptr, std::vector<float>(n).data(), 1, n);
    kernels::bias_activate(f, wide.data(), nullptr, std::vector<double>(n).data(), 1, n);
    for (std::size_t i = 0; i < n; ++i) {
      float alone = x[i];
      float z = 0;
      kernels::bias_activate(f, &alone, nullptr, &z, 1, 1);
      EXPECT_EQ(alone, y[i]) << "position " << i;
      EXPECT_NEAR(y[i], wide[i], f == Activation::gelu ? 3e-6 : 4e-7 * std::max(1.0, std::abs(wide[i])))
          << x[i];
      const double v = static_cast<double>(x[i]);
      if (f == Activation::tanh) {
        EXPECT_NEAR(wide[i], std::tanh(v), 4e-16);
      }
      if (f == Activation::sigmoid) {
        EXPECT_NEAR(wide[i], 1 / (1 + std::exp(-v)), 4e-16);
      }
      if (f == Activation::softplus) {
        const double exact = std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v)));
        EXPECT_NEAR(wide[i], exact, 1e-15 * exact);
      }
      if (f == Activation::gelu) {
        EXPECT_NEAR(wide[i], v * 0.5 * std::erfc(-v / std::sqrt(2.0)), 1e-14);
      }
      if (f == Activation::elu) {
        EXPECT_NEAR(wide[i], v > 0 ? v : std::expm1(v), 4e-16);
      }
      if (f == Activation::selu) {
        EXPECT_NEAR(wide[i], 1.0507009873554805 * (v > 0 ? v : 1.6732632423543772 * std::expm1(v)),
                    1e-15 * std::max(1.0, v));
      }
      if (f == Activation::swish) {
        EXPECT_NEAR(wide[i], v / (1 + std::exp(-v)), 4e-15);
      }
    }
  }
}

TEST(Kernels, LogTermsAreThoseOfTheMathLibrary) {
  std::vector<double> x;
  for (double v = 1e-9; v < 800; v *= 1.37) x.insert(x.end(), {v, -v});
  x.push_back(0);
  std::vector<double> y(x.size());
  kernels::log_term(y.data(), x.data(), static_cast<std::int64_t>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::abs(x[i]) < 700 ? std::log1p(std::exp(-std::abs(x[i]))) : 0;
    EXPECT_NEAR(y[i], exact, 1e-15 * exact) << x[i];
  }
  const double no_number = std::nan("");
  kernels::log_term(y.data(), &no_number, 1);
  EXPECT_TRUE(std::isnan(y[0]));
}

template <class T>
T activated(Activation f, T x) {
  T z = 0;
  kernels::bias_activate(f, &x, nullptr, &z, 1, 1);
  return x;
}

TEST(Kernels, ActivationsReachTheirLimits) {
  for (const double far : {1e3, 1e30, static_cast<double>(HUGE_VALF)}) {
    SCOPED_TRACE(far);
    const float high = static_cast<float>(far);
    EXPECT_EQ(activated(Activation::elu, -far), -1);
    EXPECT_EQ(activated(Activation::elu, -high), -1);
    EXPECT_NEAR(activated(Activation::selu, -far), -1.7580993408473766, 1e-15);
    EXPECT_NEAR(activated(Activation::selu, -high), -1.7580993F, 1e-6);
    EXPECT_NEAR(activated(Activation::swish, -far), 0, 1e-300);
    EXPECT_NEAR(activated(Activation::swish, -high), 0, 1e-35);
    for (const Activation f : {Activation::elu, Activation::swish}) {
      EXPECT_EQ(activated(f, far), far);
      EXPECT_EQ(activated(f, high), high);
    }
  }
}

// Of a standard normal, by the midpoint rule: selu's constants keep mean 0 and variance 1.
TEST(Kernels, SeluKeepsMeanAndVariance) {
  double mean = 0, square = 0;
  constexpr double kStep = 1e-3;
  for (double x = -12 + kStep / 2; x < 12; x += kStep) {
    const double p = std::exp(-x * x / 2) / std::sqrt(2 * M_PI) * kStep;
    const double y = activated(Activation::selu, x);
    mean += p * y;
    square += p * y * y;
  }
  EXPECT_NEAR(mean, 0, 1e-6);
  EXPECT_NEAR(square, 1, 1e-6);
}

TEST(Kernels, KeepNotANumber) {
  for (const Activation f : kActivations) {
    float y = std::nanf("");
    float z = 0;
    kernels::bias_activate(f, &y, nullptr, &z, 1, 1);
    EXPECT_TRUE(std::isnan(y)) << to_string(f);
  }
}

}  // namespace
}  // namespace varscope
