#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"

// Products over higher ranks and small ops: values by hand or by naive loops, gradients by central
// differences.
namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;

std::vector<double> values_of(GradientCheck& b, NodeId node) {
  const auto result = Session(b.graph, 17).run({node}, b.feeds());
  const auto values = result[0].as<double>();
  return {values.begin(), values.end()};
}

// [n, T, ...] and a matrix: one, odd and more sequences than a vector register.
class Batch : public ::testing::TestWithParam<std::int64_t> {};
INSTANTIATE_TEST_SUITE_P(ArrayOps, Batch, ::testing::Values(1, 3, 17));

TEST_P(Batch, MatmulAndDenseOnHigherRank) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 2, 4});
  const NodeId w = b.variable("w", {4, 3});
  const NodeId y = ops::matmul(b.graph, x, w);
  EXPECT_EQ(b.graph.node(y).type.shape, (Shape{GetParam(), 2, 3}));
  EXPECT_EQ(b.graph.flops(y, 1), 2 * GetParam() * 2 * 4 * 3);
  for (const Activation f : {Activation::linear, Activation::tanh, Activation::gelu}) {
    const NodeId z = ops::dense(b.graph, x, w, b.variable("bias", {3}), f);
    b.check(ops::add(b.graph, b.scalar(y), b.scalar(ops::softmax(b.graph, z))));
  }
}

TEST_P(Batch, MatmulEqualsTheNaiveLoop) {
  GradientCheck b;
  const NodeId a = b.feed_random({GetParam(), 2, 4});
  const NodeId y = ops::matmul(b.graph, a, b.feed_random({4, 3}));
  const auto x = b.fed[0].second.as<double>(), w = b.fed[1].second.as<double>();
  const std::vector<double> found = values_of(b, y);
  for (std::size_t row = 0; row < static_cast<std::size_t>(GetParam() * 2); ++row) {
    for (std::size_t c = 0; c < 3; ++c) {
      double sum = 0;
      for (std::size_t k = 0; k < 4; ++k) sum += x[row * 4 + k] * w[k * 3 + c];
      EXPECT_NEAR(found[row * 3 + c], sum, 1e-15);
    }
  }
}

TEST_P(Batch, DenseWithATransposedWeight) {
  for (const Activation f : kActivations) {
    SCOPED_TRACE(to_string(f));
    GradientCheck b;
    const NodeId w = b.variable("w", {4, 3});  // encodes 4 to 3, decodes 3 to 4
    const NodeId code = ops::dense(b.graph, b.variable("x", {GetParam(), 2, 4}), w, b.variable("b1", {3}), f);
    const NodeId decoded = ops::dense(b.graph, code, w, Transpose::yes, b.variable("b2", {4}), f);
    EXPECT_EQ(b.graph.node(decoded).type.shape, (Shape{GetParam(), 2, 4}));
    b.check(b.scalar(decoded));
  }
}

TEST(Dense, TransposesTheWeight) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2});
  const NodeId w = g.placeholder("w", DType::float32, {3, 2});
  const NodeId y = ops::dense(g, x, w, Transpose::yes, std::nullopt, Activation::linear);
  const Tensor in = Tensor::of<float>({2, 2}, {1, 2, 3, 4});
  const Tensor weight = Tensor::of<float>({3, 2}, {1, 0, 0, 1, 1, 1});
  const auto out = Session(g, 1).run({y}, {{x, in.view()}, {w, weight.view()}});
  const std::vector<float> wanted{1, 2, 3, 3, 4, 7};
  EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), out[0].as<float>().begin(), out[0].as<float>().end()));
}

TEST(Dense, SaysWhatDoesNotFit) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 7, 2});
  const NodeId w = g.placeholder("w", DType::float32, {2, 5});
  const NodeId b = g.placeholder("b", DType::float32, {2});
  const NodeId v = g.placeholder("v", DType::float32, {5});
  EXPECT_EQ(
      thrown([&] { ops::dense(g, x, w, Transpose::yes, std::nullopt, Activation::relu); }),
      "argument: node \"dense\" (dense): shapes [?, 7, 2] of \"x\" and [2, 5] of \"w\" cannot be multiplied "
      "(the second transposed): the inner extents differ or are unknown");
  EXPECT_EQ(
      thrown([&] { ops::dense(g, x, w, b, Activation::relu); }),
      "argument: node \"dense\" (dense): shapes [2, 5] of \"w\" and [2] of \"b\" do not fit: a bias of 5 "
      "elements is needed");
  EXPECT_EQ(thrown([&] { ops::matmul(g, v, w); }),
            "argument: node \"matmul\" (matmul): needs rank 2 or more for \"v\", which has shape [5]");
  EXPECT_EQ(thrown([&] { ops::matmul(g, w, x); }),
            "argument: node \"matmul\" (matmul): needs rank 2 for \"x\", which has shape [?, 7, 2]");
}

TEST_P(Batch, Elementwise) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 3}), y = b.variable("y", {GetParam(), 3});
  const NodeId difference = ops::subtract(b.graph, x, ops::scale(b.graph, y, -0.5));
  const NodeId root = ops::sqrt(b.graph, ops::add(b.graph, ops::square(b.graph, x), ops::square(b.graph, y)));
  b.check(b.scalar(ops::exponential(b.graph, x)));
  const NodeId absolute = ops::absolute(b.graph, ops::negative(b.graph, x));
  const NodeId sum = ops::add_n(b.graph, {difference, root, absolute, y, y});
  const std::vector<double> found = values_of(b, sum);
  Session session(b.graph, 17);
  const auto u = session.value(*b.graph.node(x).variable).as<double>();
  const auto v = session.value(*b.graph.node(y).variable).as<double>();
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i],
                u[i] + 0.5 * v[i] + std::sqrt(u[i] * u[i] + v[i] * v[i]) + std::abs(u[i]) + 2 * v[i], 1e-14);
  }
  b.check(ops::add(b.graph, b.scalar(sum), b.scalar(ops::subtract(b.graph, x, x))));
}

TEST(Elementwise, AddsScalarsOfLossesAndHasNoSlopeAtZero) {
  GradientCheck b;
  const NodeId x = b.feed(Tensor::of<double>({}, {1.5}));
  EXPECT_EQ(values_of(b, ops::add_n(b.graph, {x})), std::vector<double>{1.5});
  EXPECT_EQ(values_of(b, ops::add_n(b.graph, {x, x, x})), std::vector<double>{4.5});
  EXPECT_EQ(thrown([&] { ops::add_n(b.graph, {}); }),
            "argument: node \"add_n_2\" (add_n): takes at least one input");
  const NodeId other = b.feed_random({2});
  EXPECT_EQ(
      thrown([&] {
        ops::add_n(b.graph, {x, x, other});
      }),
      "argument: node \"add_n_2\" (add_n): shapes [] of \"fed0\" and [2] of \"fed1\" differ; all must be the "
      "same");
  EXPECT_EQ(
      thrown([&] { ops::subtract(b.graph, x, other); }),
      "argument: node \"subtract\" (subtract): shapes [] of \"fed0\" and [2] of \"fed1\" differ; both must "
      "be the same");

  GradientCheck zero;
  const NodeId v = zero.variable("v", {3});
  Session session(zero.graph, 1);
  const NodeId loss = ops::reduce_sum(zero.graph, ops::absolute(zero.graph, v));
  Session at(zero.graph, 1);
  at.assign(*zero.graph.node(v).variable, Tensor::of<double>({3}, {-2, 0, 3}).view());
  const auto gradients = at.gradients(loss, {});
  const auto g = gradients.at("v").as<double>();
  EXPECT_EQ((std::vector<double>(g.begin(), g.end())), (std::vector<double>{-1, 0, 1}));
}

TEST_P(Batch, ConcatTakeAndDot) {
  GradientCheck b;
  const NodeId x = b.variable("x", {GetParam(), 2, 3}), y = b.variable("y", {GetParam(), 1, 3});
  const NodeId steps = ops::concat(b.graph, {x, y, x}, 1);
  EXPECT_EQ(b.graph.node(steps).type.shape, (Shape{GetParam(), 5, 3}));
  const NodeId last = ops::take(b.graph, steps, 4);
  EXPECT_EQ(b.graph.node(last).type.shape, (Shape{GetParam(), 3}));
  const NodeId third = ops::take(b.graph, steps, 2);
  const NodeId inner = ops::dot(b.graph, last, third);
  EXPECT_EQ(b.graph.node(inner).type.shape, (Shape{GetParam(), 1}));
  const NodeId wide = ops::concat(b.graph, {last, third, inner}, 1);
  b.check(ops::add(b.graph, b.scalar(wide), b.scalar(ops::dot(b.graph, last, last))));
}

TEST_P(Batch, DotOfOneRowWithSeveral) {
  for (const bool one_first : {true, false}) {
    GradientCheck b;
    const NodeId one = b.variable("one", {GetParam(), 1, 3}), rows = b.variable("rows", {GetParam(), 4, 3});
    const NodeId inner = one_first ? ops::dot(b.graph, one, rows) : ops::dot(b.graph, rows, one);
    EXPECT_EQ(b.graph.node(inner).type.shape, (Shape{GetParam(), 4, 1}));
    // Both get gradients of two readers, so that the second one adds.
    b.check(ops::add(b.graph, b.scalar(inner), b.scalar(ops::dot(b.graph, rows, one))));
  }
}

TEST(Dot, OfOneRowWithSeveral) {
  GradientCheck b;
  const NodeId one = b.feed(Tensor::of<double>({2, 1, 2}, {1, 2, 3, 4}));
  const NodeId rows = b.feed(Tensor::of<double>({2, 3, 2}, {1, 0, 0, 1, 1, 1, 1, 0, 0, 1, -1, 2}));
  const std::vector<double> products{1, 2, 3, 3, 4, 5};
  EXPECT_EQ(values_of(b, ops::dot(b.graph, one, rows)), products);
  EXPECT_EQ(values_of(b, ops::dot(b.graph, rows, one)), products);
  EXPECT_EQ(values_of(b, ops::dot(b.graph, one, one)), (std::vector<double>{5, 25}));
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2, 4});
  const NodeId y = g.placeholder("y", DType::float32, {kAny, 3, 4});
  EXPECT_EQ(
      thrown([&] { ops::dot(g, x, y); }),
      "argument: node \"dot\" (dot): shapes [?, 2, 4] of \"x\" and [?, 3, 4] of \"y\" differ; both must be "
      "the same, or one has a single row where the other one has several, as [?, 1, k] and [?, rows, k]");
  const NodeId z = g.placeholder("z", DType::float32, {kAny, 1, 5});
  EXPECT_THAT(thrown([&] { ops::dot(g, x, z); }),
              ::testing::HasSubstr("shapes [?, 2, 4] of \"x\" and [?, 1, 5]"));
}

TEST(Concat, PutsPartsBehindEachOther) {
  GradientCheck b;
  const NodeId x = b.feed(Tensor::of<double>({2, 2, 1}, {1, 2, 3, 4}));
  const NodeId y = b.feed(Tensor::of<double>({2, 1, 1}, {5, 6}));
  const NodeId z = ops::concat(b.graph, {x, y}, 1);
  EXPECT_EQ(values_of(b, z), (std::vector<double>{1, 2, 5, 3, 4, 6}));
  EXPECT_EQ(values_of(b, ops::concat(b.graph, {y, x, y}, 1)), (std::vector<double>{5, 1, 2, 5, 6, 3, 4, 6}));
  EXPECT_EQ(values_of(b, ops::concat(b.graph, {x, x}, 0)), (std::vector<double>{1, 2, 3, 4, 1, 2, 3, 4}));
  EXPECT_EQ(values_of(b, ops::take(b.graph, z, 1)), (std::vector<double>{2, 4}));
  EXPECT_EQ(values_of(b, ops::dot(b.graph, z, z)), (std::vector<double>{1, 4, 25, 9, 16, 36}));
  EXPECT_EQ(values_of(b, ops::concat(b.graph, {x}, 2)), (std::vector<double>{1, 2, 3, 4}));
}

TEST(Concat, SaysWhatDoesNotFit) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 4});
  const NodeId y = g.placeholder("y", DType::float32, {3, 4});
  const NodeId z = g.placeholder("z", DType::float64, {kAny, 4});
  const auto message = [&](const std::vector<NodeId>& inputs, std::size_t axis) {
    return thrown([&] { ops::concat(g, inputs, axis); });
  };
  EXPECT_EQ(message({}, 0), "argument: node \"concat\" (concat): takes at least one input");
  EXPECT_EQ(
      message({x, x}, 0),
      "argument: node \"concat\" (concat): along axis 0 of \"x\", which has shape [?, 4]: that extent must "
      "be known");
  EXPECT_EQ(
      message({x, y}, 1),
      "argument: node \"concat\" (concat): shapes [?, 4] of \"x\" and [3, 4] of \"y\" differ on an axis "
      "other than 1");
  EXPECT_EQ(message({x}, 2), "argument: node \"concat\" (concat): along axis 2; \"x\" has shape [?, 4]");
  EXPECT_EQ(
      message({x, z}, 1),
      "argument: node \"concat\" (concat): dtypes differ: float32 [?, 4] of \"x\" and float64 [?, 4] of "
      "\"z\"");
  for (const std::int64_t index : {-1, 4}) {
    EXPECT_EQ(
        thrown([&] { ops::take(g, x, index); }),
        fmt::format("argument: node \"take\" (take): index {} is not in axis 1 of \"x\", which has shape [?, "
                    "4]",
                    index));
  }
  EXPECT_EQ(
      thrown([&] { ops::dot(g, x, y); }),
      "argument: node \"dot\" (dot): shapes [?, 4] of \"x\" and [3, 4] of \"y\" differ; both must be the "
      "same");
}

TEST_P(Batch, MaximaAndMinima) {
  for (const auto over : {ops::ReduceOver::all, ops::ReduceOver::last_axis}) {
    GradientCheck b;
    const NodeId x = b.variable("x", {GetParam(), 2, 5});
    const NodeId most = ops::reduce_max(b.graph, x, over), least = ops::reduce_min(b.graph, x, over);
    b.check(ops::add_n(b.graph, {b.scalar(most), b.scalar(least), b.scalar(most)}));
  }
}

TEST(Extreme, GivesTheGradientToTheFirst) {
  GradientCheck b;
  const NodeId v = b.variable("v", {2, 3});
  const NodeId most = ops::reduce_max(b.graph, v, ops::ReduceOver::last_axis);
  const NodeId least = ops::reduce_min(b.graph, v);
  const NodeId empty = ops::reduce_max(b.graph, b.feed(Tensor(DType::float64, {0, 2})));
  const NodeId loss = ops::add(b.graph, ops::reduce_sum(b.graph, most), ops::scale(b.graph, least, 10));
  Session session(b.graph, 1);
  session.assign(*b.graph.node(v).variable, Tensor::of<double>({2, 3}, {1, 4, 4, 1, 2, 1}).view());
  EXPECT_EQ(session.run({loss}, {})[0].as<double>()[0], 4 + 2 + 10 * 1);
  const auto gradients = session.gradients(loss, {});
  const auto g = gradients.at("v").as<double>();
  EXPECT_EQ((std::vector<double>(g.begin(), g.end())), (std::vector<double>{10, 1, 0, 0, 1, 0}));
  EXPECT_EQ(session.run({empty}, b.feeds())[0].as<double>()[0], -std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace varscope
