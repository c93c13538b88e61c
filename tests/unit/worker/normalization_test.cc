#include "worker/ops/normalization.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ops::BatchNormMode;
using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;
constexpr double kEpsilon = 1e-3;

// Variables of one batch_norm over x. The moving ones are not trained, so that their statistics stay out of
// the comparison with finite differences.
struct BatchNormInputs {
  NodeId x, gamma, beta, mean, variance;
  BatchNormInputs(GradientCheck& g, const Shape& shape) {
    const std::int64_t c = shape[shape.rank() - 1];
    x = g.variable("x", shape);
    gamma = g.variable("gamma", {c});
    beta = g.variable("beta", {c});
    mean = moving(g, "mean", c, Initializer::uniform(-1, 1));
    variance = moving(g, "variance", c, Initializer::uniform(0.5, 2));
  }
  static NodeId moving(GradientCheck& g, const char* name, std::int64_t c, const Initializer& initializer) {
    VariableOptions options;
    options.dtype = DType::float64;
    options.initializer = initializer;
    options.trainable = false;
    return g.graph.variable(g.store.get_variable(name, {c}, options));
  }
  NodeId add(GradientCheck& g, BatchNormMode mode) const {
    return ops::batch_norm(g.graph, x, gamma, beta, mean, variance, kEpsilon, mode);
  }
};

// The mean and biased variance of every stride-th element of x from `begin` on.
std::pair<double, double> moments_of(std::span<const double> x, std::size_t begin, std::size_t stride,
                                     std::size_t n) {
  double mean = 0, variance = 0;
  for (std::size_t i = 0; i < n; ++i) mean += x[begin + i * stride];
  mean /= static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) variance += std::pow(x[begin + i * stride] - mean, 2);
  return {mean, variance / static_cast<double>(n)};
}

class NormalizedShapes : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(Normalization, NormalizedShapes,
                         ::testing::Values(Shape{2, 1}, Shape{5, 3}, Shape{17, 9}, Shape{2, 3, 2, 5},
                                           Shape{3, 2, 33}, Shape{4, 16}));

TEST_P(NormalizedShapes, BatchNormInTrainingIsTheNaiveFormula) {
  GradientCheck g;
  const BatchNormInputs in(g, GetParam());
  const NodeId y = in.add(g, BatchNormMode::train);
  Session session(g.graph, 3);
  const auto got = session.run({y}, {});
  const auto value = [&](NodeId id) { return session.value(*g.graph.node(id).variable).as<double>(); };
  const auto x = value(in.x);
  const std::size_t c = value(in.gamma).size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto [mean, variance] = moments_of(x, i % c, c, x.size() / c);
    const double want =
        (x[i] - mean) / std::sqrt(variance + kEpsilon) * value(in.gamma)[i % c] + value(in.beta)[i % c];
    EXPECT_NEAR(got[0].as<double>()[i], want, 1e-12) << i;
  }
}

TEST_P(NormalizedShapes, BatchNormInInferenceReadsTheMovingValues) {
  GradientCheck g;
  const BatchNormInputs in(g, GetParam());
  const NodeId y = in.add(g, BatchNormMode::inference);
  Session session(g.graph, 3);
  const auto got = session.run({y}, {});
  const auto value = [&](NodeId id) { return session.value(*g.graph.node(id).variable).as<double>(); };
  const std::size_t c = value(in.gamma).size();
  for (std::size_t i = 0; i < value(in.x).size(); ++i) {
    const double want = (value(in.x)[i] - value(in.mean)[i % c]) /
                            std::sqrt(value(in.variance)[i % c] + kEpsilon) * value(in.gamma)[i % c] +
                        value(in.beta)[i % c];
    EXPECT_NEAR(got[0].as<double>()[i], want, 1e-12) << i;
  }
}

TEST_P(NormalizedShapes, BatchNormHasTheGradientOfFiniteDifferences) {
  for (const auto mode : {BatchNormMode::train, BatchNormMode::inference}) {
    GradientCheck g;
    const BatchNormInputs in(g, GetParam());
    g.check(g.scalar(in.add(g, mode)));
  }
}

TEST_P(NormalizedShapes, BatchNormAddsToTheGradientsThatAreThere) {
  for (const auto mode : {BatchNormMode::train, BatchNormMode::inference}) {
    GradientCheck g;
    const BatchNormInputs in(g, GetParam());
    const NodeId once = in.add(g, mode);
    const NodeId twice =
        ops::batch_norm(g.graph, once, in.gamma, in.gamma, in.mean, in.variance, kEpsilon, mode);
    g.check(g.scalar(ops::add(g.graph, ops::multiply(g.graph, twice, in.x), once)));
  }
}

TEST_P(NormalizedShapes, LayerNormIsTheNaiveFormula) {
  GradientCheck g;
  const BatchNormInputs in(g, GetParam());
  const NodeId y = ops::layer_norm(g.graph, in.x, in.gamma, in.beta, kEpsilon);
  Session session(g.graph, 3);
  const auto got = session.run({y}, {});
  const auto value = [&](NodeId id) { return session.value(*g.graph.node(id).variable).as<double>(); };
  const auto x = value(in.x);
  const std::size_t c = value(in.gamma).size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto [mean, variance] = moments_of(x, i / c * c, 1, c);
    const double want =
        (x[i] - mean) / std::sqrt(variance + kEpsilon) * value(in.gamma)[i % c] + value(in.beta)[i % c];
    EXPECT_NEAR(got[0].as<double>()[i], want, 1e-12) << i;
  }
}

TEST_P(NormalizedShapes, LayerNormHasTheGradientOfFiniteDifferences) {
  GradientCheck g;
  const BatchNormInputs in(g, GetParam());
  const NodeId once = ops::layer_norm(g.graph, in.x, in.gamma, in.beta, kEpsilon);
  g.check(g.scalar(once));
  GradientCheck again;
  const BatchNormInputs other(again, GetParam());
  const NodeId a = ops::layer_norm(again.graph, other.x, other.gamma, other.beta, kEpsilon);
  const NodeId b = ops::layer_norm(again.graph, a, other.gamma, other.gamma, kEpsilon);
  again.check(again.scalar(ops::add(again.graph, ops::multiply(again.graph, b, other.x), a)));
}

TEST(LayerNorm, OneVectorCanBeAllInputs) {
  GradientCheck g;
  const NodeId v = g.variable("v", {7});
  g.check(g.scalar(ops::layer_norm(g.graph, v, v, v, kEpsilon)));
}

// float32 inputs far from zero: what a sum of squares in float32 would lose.
TEST(BatchNorm, BearsAMeanThatIsLargeBesideTheDeviation) {
  Graph g;
  VariableStore store;
  VariableOptions ones;
  ones.initializer = Initializer::constant(1);
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2});
  const NodeId gamma = g.variable(store.get_variable("gamma", {2}, ones));
  const NodeId beta = g.variable(store.get_variable("beta", {2}));
  const NodeId y = ops::batch_norm(g, x, gamma, beta, beta, gamma, 1e-9, BatchNormMode::train);
  const NodeId z = ops::layer_norm(g, x, gamma, beta, 1e-9);
  Session session(g, 1);
  session.assign(*g.node(beta).variable, Tensor(DType::float32, {2}).view());
  constexpr std::int64_t kRows = 1000;
  Tensor rows(DType::float32, {kRows, 2});
  for (std::size_t i = 0; i < rows.as<float>().size(); ++i)
    rows.as<float>()[i] = 10000.0F + (i / 2 % 2 == i % 2 ? 0.125F : -0.125F);
  for (const Tensor& t : session.run({y, z}, {{x, rows.view()}})) {
    for (std::size_t i = 0; i < t.as<float>().size(); ++i)
      ASSERT_NEAR(t.as<float>()[i], i / 2 % 2 == i % 2 ? 1 : -1, 1e-6) << i;
  }
}

// Runs batch_norm in training over x [rows, 2] with the statistics bound, twice if asked for.
struct Statistics {
  double mean, variance;
};
Statistics statistics_of(std::vector<double> column, double weight, int times, double moving_mean = 0,
                         double moving_variance = 0) {
  Graph g;
  VariableStore store;
  VariableOptions options;
  options.dtype = DType::float64;
  options.initializer = Initializer::constant(1);
  const NodeId x = g.placeholder("x", DType::float64, {kAny, 1});
  std::map<std::string, Tensor> gradients;
  std::vector<Tensor> values;
  const auto variable = [&](const char* name) { return g.variable(store.get_variable(name, {1}, options)); };
  const NodeId gamma = variable("gamma"), beta = variable("beta"), mean = variable("mean"),
               variance = variable("variance");
  NodeId loss;
  for (int i = 0; i < times; ++i) {
    const NodeId y = ops::batch_norm(g, x, gamma, beta, mean, variance, kEpsilon, BatchNormMode::train);
    EXPECT_TRUE(g.node(y).op->is_statistic(3) && g.node(y).op->is_statistic(4));
    EXPECT_FALSE(g.node(y).op->is_statistic(0) || g.node(y).op->is_statistic(2));
    const NodeId sum = ops::reduce_sum(g, y);
    loss = i == 0 ? sum : ops::add(g, loss, sum);
  }
  Executor executor(g, loss, 8);
  for (const Variable* v : g.variables()) {
    values.push_back(Tensor::of<double>({1}, {v->name() == "mean"       ? moving_mean
                                              : v->name() == "variance" ? moving_variance
                                                                        : 0}));
    gradients.emplace(v->name(), Tensor::of<double>({1}, {12345}));  // rubbish, to be overwritten
    executor.bind(*v, values.back().view(), gradients.at(v->name()).view());
  }
  const auto n = static_cast<std::int64_t>(column.size());
  executor.set_batch(n);
  executor.set_run({.weight = weight});
  column.resize(column.size() + 1);  // memory for no rows, too
  executor.feed(x, TensorView(DType::float64, {n, 1}, reinterpret_cast<std::byte*>(column.data())));
  for (const auto& step : executor.forward_steps()) executor.forward(step);
  executor.start_backward(1);
  for (const auto& step : executor.backward_steps()) executor.backward(step);
  for (const char* name : {"gamma", "beta"}) EXPECT_TRUE(std::isfinite(gradients.at(name).as<double>()[0]));
  return {gradients.at("mean").as<double>()[0], gradients.at("variance").as<double>()[0]};
}

TEST(BatchNormStatistics, AreWeightedMeanAndUnbiasedVariance) {
  const Statistics whole = statistics_of({1, 2, 6}, 1, 1);
  EXPECT_DOUBLE_EQ(whole.mean, 3);
  EXPECT_DOUBLE_EQ(whole.variance, 7);  // 14 / 2
  const Statistics part = statistics_of({1, 2, 6}, 0.25, 1);
  EXPECT_DOUBLE_EQ(part.mean, 0.75);
  EXPECT_DOUBLE_EQ(part.variance, 1.75);
}

TEST(BatchNormStatistics, OfASecondReaderAreAdded) {
  const Statistics both = statistics_of({1, 2, 6}, 0.5, 2);
  EXPECT_DOUBLE_EQ(both.mean, 3);
  EXPECT_DOUBLE_EQ(both.variance, 7);
}

// One row has no variance: the moving values stand in for its own, and are what it brings as statistics.
TEST(BatchNormStatistics, OfOneRowAreTheMovingValues) {
  const Statistics one = statistics_of({4}, 0.25, 1, 3, 5);
  EXPECT_DOUBLE_EQ(one.mean, 0.75);
  EXPECT_DOUBLE_EQ(one.variance, 1.25);

  GradientCheck g;
  const BatchNormInputs in(g, {1, 3});
  const NodeId y = in.add(g, BatchNormMode::train), z = in.add(g, BatchNormMode::inference);
  Session session(g.graph, 3);
  const auto got = session.run({y, z}, {});
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(got[0].as<double>()[i], got[1].as<double>()[i]);
  g.check(g.scalar(y));
  // One image has as many rows as pixels.
  GradientCheck image;
  const BatchNormInputs of_image(image, {1, 2, 3, 2});
  Session pixels(image.graph, 3);
  const NodeId w = of_image.add(image, BatchNormMode::train);
  const auto normal = Session(image.graph, 3).run({w}, {});
  const auto value = [&](NodeId id) { return pixels.value(*image.graph.node(id).variable).as<double>(); };
  const auto [mean, variance] = moments_of(value(of_image.x), 0, 2, 6);
  EXPECT_NEAR(normal[0].as<double>()[0],
              (value(of_image.x)[0] - mean) / std::sqrt(variance + kEpsilon) * value(of_image.gamma)[0] +
                  value(of_image.beta)[0],
              1e-12);
}

TEST(BatchNormStatistics, OfNoRowsAreFinite) {
  const Statistics none = statistics_of({}, 0, 1);
  EXPECT_EQ(none.mean, 0);
  EXPECT_EQ(none.variance, 0);
}

TEST(BatchNormStatistics, AreNotWrittenInInference) {
  GradientCheck g;
  const BatchNormInputs in(g, {3, 2});
  const Op& op = *g.graph.node(in.add(g, BatchNormMode::inference)).op;
  for (const std::size_t input : {3U, 4U}) {
    EXPECT_FALSE(op.is_statistic(input));
    EXPECT_FALSE(op.differentiable(input));
  }
  EXPECT_TRUE(op.differentiable(0) && op.differentiable(1) && op.differentiable(2));
}

TEST(NormalizationErrors, NameTheNodeAndBothShapes) {
  Graph g;
  VariableStore store;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 8, 3});
  const NodeId open = g.placeholder("open", DType::float32, {kAny, kAny});
  const NodeId vector = g.placeholder("vector", DType::float32, {3});
  const NodeId three = g.variable(store.get_variable("three", {3}));
  const NodeId four = g.variable(store.get_variable("four", {4}));
  const auto batch = [&](NodeId of, NodeId gamma, NodeId moving, double epsilon) {
    return thrown([&] {
      ops::batch_norm(g, of, gamma, three, three, moving, epsilon, BatchNormMode::train, {"bn", ""});
    });
  };
  EXPECT_EQ(batch(x, four, three, 1e-3),
            "argument: node \"bn\" (batch_norm): shapes [?, 8, 3] of \"x\" and [4] of \"four\" do not fit: 3 "
            "elements are needed");
  EXPECT_EQ(batch(x, three, four, 1e-3),
            "argument: node \"bn\" (batch_norm): shapes [?, 8, 3] of \"x\" and [4] of \"four\" do not fit: 3 "
            "elements are needed");
  EXPECT_EQ(batch(x, three, three, 0),
            "argument: node \"bn\" (batch_norm): has epsilon 0; it must be more than 0");
  EXPECT_EQ(batch(open, three, three, 1e-3),
            "argument: node \"bn\" (batch_norm): needs a known last extent of at least 1 in \"open\", which "
            "has shape [?, ?]");
  EXPECT_EQ(batch(vector, three, three, 1e-3),
            "argument: node \"bn\" (batch_norm): needs rank 2 or more for \"vector\", which has shape [3]");
  EXPECT_EQ(thrown([&] {
              ops::layer_norm(g, x, three, four, 1e-3, {"ln", ""});
            }),
            "argument: node \"ln\" (layer_norm): shapes [?, 8, 3] of \"x\" and [4] of \"four\" do not fit: 3 "
            "elements are needed");
}

}  // namespace
}  // namespace varscope
