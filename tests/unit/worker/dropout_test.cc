#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"
#include "worker/ops/normalization.h"

namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr RunInfo kRun{.seed = 5, .step = 7, .logical_worker = 2, .weight = 1};

// One dropout over a variable of ones, and the gradient of the sum of its outputs.
struct Passes {
  std::vector<float> y, dx;
};
Passes run_dropout(std::int64_t n, double rate, std::uint64_t key, const RunInfo& run) {
  VariableStore store;
  Graph graph;
  const Variable& v = store.get_variable("x", {n});
  const NodeId y = ops::dropout(graph, graph.variable(v), rate, key);
  const NodeId loss = ops::reduce_sum(graph, y);
  Tensor x(DType::float32, {n}), dx(DType::float32, {n});
  for (float& value : x.as<float>()) value = 1;
  Executor executor(graph, loss, 1, {.also = {y}});
  executor.bind(v, x.view(), dx.view());
  executor.set_run(run);
  for (const auto& step : executor.forward_steps()) executor.forward(step);
  const auto value = executor.value(y).as<float>();
  Passes result;
  result.y.assign(value.begin(), value.end());
  executor.start_backward(1);
  for (const auto& step : executor.backward_steps()) executor.backward(step);
  result.dx.assign(dx.as<float>().begin(), dx.as<float>().end());
  return result;
}

double share_that_differs(const std::vector<float>& a, const std::vector<float>& b) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += a[i] != b[i];
  return static_cast<double>(n) / static_cast<double>(a.size());
}

TEST(Dropout, OfRateZeroCopies) {
  const Passes p = run_dropout(1031, 0, 1, kRun);
  for (const auto& values : {p.y, p.dx}) {
    for (const float v : values) EXPECT_EQ(v, 1.0F);
  }
}

TEST(Dropout, DropsTheShareAndKeepsTheMean) {
  constexpr std::int64_t kN = 200'000;
  for (const double rate : {0.1, 0.5, 0.9}) {
    const Passes p = run_dropout(kN, rate, 1, kRun);
    std::size_t zeros = 0;
    for (const float v : p.y) {
      zeros += v == 0;
      ASSERT_TRUE(v == 0 || v == static_cast<float>(1 / (1 - rate))) << v;
    }
    const double deviation = std::sqrt(rate * (1 - rate) / kN);
    EXPECT_NEAR(static_cast<double>(zeros) / kN, rate, 5 * deviation);
    EXPECT_NEAR(std::accumulate(p.y.begin(), p.y.end(), 0.0) / kN, 1, 5 * deviation / (1 - rate));
  }
}

TEST(Dropout, IsAPureFunctionOfRunKeyAndElement) {
  const Passes p = run_dropout(5000, 0.5, 1, kRun);
  EXPECT_EQ(run_dropout(5000, 0.5, 1, kRun).y, p.y);
  RunInfo weighted = kRun;
  weighted.weight = 0.25;
  EXPECT_EQ(run_dropout(5000, 0.5, 1, weighted).y, p.y) << "the weight is no part of the draw";
  // The first elements do not depend on how many follow.
  for (const std::int64_t n : {1, 3, 1023, 1024, 1025, 4097}) {
    const auto fewer = run_dropout(n, 0.5, 1, kRun).y;
    EXPECT_EQ(fewer, std::vector<float>(p.y.begin(), p.y.begin() + n));
  }
}

TEST(Dropout, DiffersInEveryPartOfItsKey) {
  const Passes p = run_dropout(5000, 0.5, 1, kRun);
  const auto differs = [&](std::uint64_t key, const RunInfo& run) {
    return share_that_differs(run_dropout(5000, 0.5, key, run).y, p.y);
  };
  EXPECT_NEAR(differs(2, kRun), 0.5, 0.04);
  EXPECT_NEAR(differs(1, {.seed = 6, .step = 7, .logical_worker = 2}), 0.5, 0.04);
  EXPECT_NEAR(differs(1, {.seed = 5, .step = 8, .logical_worker = 2}), 0.5, 0.04);
  EXPECT_NEAR(differs(1, {.seed = 5, .step = 7, .logical_worker = 3}), 0.5, 0.04);
  EXPECT_NEAR(differs(1, {.seed = 5, .step = 2, .logical_worker = 7}), 0.5, 0.04);
}

TEST(Dropout, BackwardHasTheMaskOfForward) {
  for (const std::int64_t n : {1, 5, 3001}) {
    const Passes p = run_dropout(n, 0.3, 9, kRun);
    EXPECT_EQ(p.dx, p.y) << n;
  }
}

TEST(Dropout, HasTheGradientOfFiniteDifferences) {
  for (const double rate : {0.0, 0.4}) {
    GradientCheck g;
    const NodeId x = g.variable("x", {3, 7});
    g.check(g.scalar(ops::dropout(g.graph, x, rate, 3)));
    GradientCheck twice;
    const NodeId z = twice.variable("z", {3, 7});
    const NodeId a = ops::dropout(twice.graph, z, rate, 3);
    twice.check(twice.scalar(ops::multiply(twice.graph, a, ops::dropout(twice.graph, z, rate, 4))));
  }
}

TEST(Dropout, DropsNotANumberAndWorksOnNothing) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {Shape::kUnknown, 3});
  const NodeId y = ops::dropout(g, x, 0.5, 1);
  Session session(g, 1);
  const Tensor none(DType::float32, {0, 3});
  EXPECT_EQ(session.run({y}, {{x, none.view()}})[0].shape(), (Shape{0, 3}));
  Tensor bad(DType::float32, {100, 3});
  for (float& v : bad.as<float>()) v = std::nanf("");
  std::size_t zeros = 0;
  const auto dropped = session.run({y}, {{x, bad.view()}});
  for (const float v : dropped[0].as<float>()) zeros += v == 0;
  EXPECT_NEAR(static_cast<double>(zeros), 150, 50);
}

TEST(DropoutErrors, NameTheNodeAndTheRate) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {Shape::kUnknown, 3});
  for (const auto& [rate, words] :
       {std::pair(1.0, "1"), std::pair(-0.5, "-0.5"), std::pair(std::nan(""), "nan")}) {
    EXPECT_EQ(thrown([&, r = rate] {
                ops::dropout(g, x, r, 1, {"d", ""});
              }),
              fmt::format("argument: node \"d\" (dropout): has rate {}; a rate is at least 0 and less than 1",
                          words));
  }
}

}  // namespace
}  // namespace varscope
