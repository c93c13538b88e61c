#include "worker/graph/session.h"

#include <gtest/gtest.h>

#include "worker/ops/ops.h"

namespace varscope {
namespace {

constexpr std::int64_t kAny = Shape::kUnknown;

struct Line {  // y = x * w + b
  VariableStore store;
  Graph graph;
  const Variable* w;
  const Variable* b;
  NodeId x, y, out, loss;
  Line() {
    VariableOptions constant;
    constant.initializer = Initializer::constant(2);
    w = &store.get_variable("w", {1, 1}, constant);
    b = &store.get_variable("b", {1}, constant);
    x = graph.placeholder("x", DType::float32, {kAny, 1});
    y = graph.placeholder("y", DType::float32, {kAny, 1});
    out = ops::dense(graph, x, graph.variable(*w), graph.variable(*b), Activation::linear);
    loss = ops::mean_squared_error(graph, out, y);
  }
};

TEST(Session, RunsAnyBatchSize) {
  const Line line;
  Session session(line.graph, 1);
  for (const std::int64_t n : {3, 1, 0, 7}) {
    const Tensor x(DType::float32, {n, 1});
    for (float& v : x.as<float>()) v = 10;
    const auto results = session.run({line.out, line.x}, {{line.x, x.view()}});
    ASSERT_EQ(results[0].shape(), (Shape{n, 1}));
    for (const float v : results[0].as<float>()) EXPECT_EQ(v, 22);
    EXPECT_EQ(results[1].shape(), (Shape{n, 1}));
  }
  EXPECT_TRUE(session.run({}, {}).empty());
}

TEST(Session, InitialisesByNameAndSeed) {
  VariableStore store;
  Graph g;
  const Variable& v = store.get_variable("scope_free", {40, 30});
  g.variable(v);
  Session a(g, 5);
  Session b(g, 5);
  Session c(g, 6);
  Tensor expected(DType::float32, {40, 30});
  v.spec().initializer.fill(expected.view(), 5, "scope_free", 0);
  const auto text = [](const TensorView& t) {
    return std::vector<float>(t.as<float>().begin(), t.as<float>().end());
  };
  EXPECT_EQ(text(a.value(v)), text(expected.view()));
  EXPECT_EQ(text(a.value(v)), text(b.value(v)));
  EXPECT_NE(text(a.value(v)), text(c.value(v)));
}

TEST(Session, GradientsDescendToTheSolution) {
  const Line line;
  Session session(line.graph, 1);
  const Tensor x = Tensor::of<float>({4, 1}, {-1, 0, 1, 2});
  const Tensor y = Tensor::of<float>({4, 1}, {-4, -1, 2, 5});  // 3 x - 1
  for (int step = 0; step < 300; ++step) {
    const auto gradients = session.gradients(line.loss, {{line.x, x.view()}, {line.y, y.view()}});
    for (const Variable* v : {line.w, line.b})
      session.value(*v).as<float>()[0] -= 0.05F * gradients.at(v->name()).as<float>()[0];
  }
  EXPECT_NEAR(session.value(*line.w).as<float>()[0], 3, 1e-4);
  EXPECT_NEAR(session.value(*line.b).as<float>()[0], -1, 1e-4);
}

TEST(Session, AssignsAndChecks) {
  const Line line;
  Session session(line.graph, 1);
  session.assign(*line.b, Tensor::of<float>({1}, {7}).view());
  EXPECT_EQ(session.value(*line.b).as<float>()[0], 7);
  EXPECT_THROW(session.assign(*line.b, Tensor::of<float>({2}, {7, 8}).view()), Error);
  EXPECT_THROW(session.assign(*line.b, Tensor::of<double>({1}, {7}).view()), Error);
  VariableStore other;
  EXPECT_THROW(session.value(other.get_variable("w", {1})), Error);
}

TEST(Session, FeedsMustAgreeOnTheBatch) {
  const Line line;
  Session session(line.graph, 1);
  const Tensor two(DType::float32, {2, 1});
  const Tensor three(DType::float32, {3, 1});
  try {
    session.run({line.loss}, {{line.x, two.view()}, {line.y, three.view()}});
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "placeholder \"x\" was fed 2 rows, \"y\" 3");
  }
  EXPECT_THROW(session.run({line.loss}, {{line.x, two.view()}}), Error) << "y is not fed";
}

TEST(Session, TwoSessionsOfOneGraphDoNotShareValues) {
  const Line line;
  Session a(line.graph, 1);
  Session b(line.graph, 1);
  a.assign(*line.b, Tensor::of<float>({1}, {9}).view());
  EXPECT_EQ(b.value(*line.b).as<float>()[0], 2);
}

}  // namespace
}  // namespace varscope
