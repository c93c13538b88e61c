#include "worker/graph/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#include "common/base/philox.h"
#include "worker/kernels/blas.h"
#include "worker/ops/ops.h"

// Counts allocations, for Executor.DoesNotAllocateWhileItRuns.
static std::atomic<std::size_t> n_allocations = 0;
// Not inlined, or the compiler sees malloc paired with delete and warns.
__attribute__((noinline)) void* operator new(std::size_t n) {
  ++n_allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace varscope {
namespace {

constexpr std::int64_t kAny = Shape::kUnknown;
using Names = std::vector<std::string>;

Names names_of(const std::vector<const Variable*>& variables) {
  Names names;
  for (const Variable* v : variables) names.push_back(v->name());
  return names;
}

Tensor random_tensor(const Shape& shape, std::uint64_t stream) {
  Tensor t(DType::float32, shape);
  const RandomStream draws(5, RandomPurpose::test, stream);
  for (std::size_t i = 0; i < t.as<float>().size(); ++i)
    t.as<float>()[i] = static_cast<float>(2 * draws.uniform(i) - 1);
  return t;
}

// Values and gradients of every variable of a graph, bound to an executor.
struct Memory {
  std::map<std::string, Tensor> values, gradients;
  Memory(const Graph& graph, Executor& executor) {
    for (const Variable* v : graph.variables()) {
      Tensor value(v->dtype(), v->shape());
      v->spec().initializer.fill(value.view(), 9, v->name(), 0);
      Tensor gradient(v->dtype(), v->shape());
      if (is_floating(v->dtype()))
        std::fill_n(gradient.as<float>().data(), gradient.n_elements(), 77.0F);  // rubbish
      executor.bind(*v, value.view(), v->trainable() ? gradient.view() : TensorView());
      values.emplace(v->name(), std::move(value));
      gradients.emplace(v->name(), std::move(gradient));
    }
  }
};

void run(Executor& executor, double seed = 1) {
  for (const auto& step : executor.forward_steps()) executor.forward(step);
  executor.start_backward(seed);
  for (const auto& step : executor.backward_steps()) executor.backward(step);
}

std::vector<float> values_of(const TensorView& view) {
  const auto s = view.as<float>();
  return {s.begin(), s.end()};
}

// x -> dense relu -> dense -> softmax cross entropy.
struct Mlp {
  VariableStore store;
  Graph graph;
  NodeId x, y, hidden, logits, loss, correct;
  explicit Mlp(bool fused = true) {
    x = graph.placeholder("x", DType::float32, {kAny, 13});
    y = graph.placeholder("y", DType::int32, {kAny});
    hidden = layer("h1", x, 13, 37, Activation::relu, fused);
    hidden = layer("h2", hidden, 37, 19, Activation::gelu, fused);
    logits = layer("out", hidden, 19, 5, Activation::linear, fused);
    loss = ops::softmax_cross_entropy(graph, logits, y);
    correct = ops::correct_count(graph, logits, y);
  }
  NodeId layer(const char* name, NodeId in, std::int64_t n_in, std::int64_t n_out, Activation f, bool fused) {
    const auto scope = store.scope(name);
    const NodeId w = graph.variable(store.get_variable("weights", {n_in, n_out}));
    const NodeId b = graph.variable(store.get_variable("bias", {n_out}));
    const NodeOptions options{fmt::format("{}/dense", name), ""};
    if (fused) return ops::dense(graph, in, w, b, f, options);
    return ops::activation(graph, f, ops::add_bias(graph, ops::matmul(graph, in, w), b));
  }
};

Tensor labels_for(std::int64_t n) {
  Tensor t(DType::int32, {n});
  for (std::size_t i = 0; i < t.as<std::int32_t>().size(); ++i)
    t.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 5);
  return t;
}

TEST(Executor, StepsSayWhatIsReadAndWhatIsFinished) {
  const Mlp m;
  const Executor e(m.graph, m.loss, 4);
  ASSERT_EQ(e.forward_steps().size(), 4U);
  EXPECT_EQ(names_of(e.forward_steps()[0].reads), (Names{"h1/weights", "h1/bias"}));
  EXPECT_EQ(names_of(e.forward_steps()[2].reads), (Names{"out/weights", "out/bias"}));
  EXPECT_TRUE(e.forward_steps()[3].reads.empty());
  ASSERT_EQ(e.backward_steps().size(), 4U);
  EXPECT_EQ(e.backward_steps()[0].node, m.loss);
  EXPECT_TRUE(e.backward_steps()[0].finished.empty());
  EXPECT_EQ(names_of(e.backward_steps()[1].finished), (Names{"out/weights", "out/bias"}));
  EXPECT_EQ(names_of(e.backward_steps()[3].finished), (Names{"h1/weights", "h1/bias"}));
}

TEST(Executor, FusedDenseHasTheBitsOfTheSeparateOps) {
  set_blas_threads(1);
  const Mlp fused(true);
  const Mlp separate(false);
  Executor a(fused.graph, fused.loss, 8);
  Executor b(separate.graph, separate.loss, 8);
  const Memory ma(fused.graph, a);
  const Memory mb(separate.graph, b);
  for (const std::int64_t n : {8, 1, 3, 0, 8}) {
    const Tensor x = random_tensor({n, 13}, 1);
    const Tensor y = labels_for(n);
    for (auto* pair : {&a, &b}) {
      const Mlp& m = pair == &a ? fused : separate;
      pair->set_batch(n);
      pair->feed(m.x, x.view());
      pair->feed(m.y, y.view());
      run(*pair, 0.125);
    }
    EXPECT_EQ(values_of(a.value(fused.logits)), values_of(b.value(separate.logits)));
    for (const auto& [name, gradient] : ma.gradients) {
      EXPECT_EQ(values_of(gradient.view()), values_of(mb.gradients.at(name).view()))
          << name << " batch " << n;
      const auto g = values_of(gradient.view());
      const bool all_zero = std::all_of(g.begin(), g.end(), [](float v) { return v == 0; });
      EXPECT_EQ(all_zero, n == 0) << name << " batch " << n;
    }
  }
}

TEST(Executor, SharedVariableIsFinishedAfterItsLastUse) {
  VariableStore store;
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId w = g.variable(store.get_variable("w", {3, 3}));
  const NodeId u = g.variable(store.get_variable("u", {3, 3}));
  const NodeId h1 = ops::matmul(g, x, w);
  const NodeId h2 = ops::matmul(g, h1, u);
  const NodeId h3 = ops::matmul(g, h2, w);
  const NodeId loss = ops::reduce_sum(g, h3);
  Executor e(g, loss, 2);
  const auto steps = e.backward_steps();
  ASSERT_EQ(steps.size(), 4U);
  EXPECT_TRUE(steps[1].finished.empty());
  EXPECT_EQ(names_of(steps[2].finished), Names{"u"});
  EXPECT_EQ(names_of(steps[3].finished), Names{"w"});
  EXPECT_EQ(steps[3].node, h1);
}

TEST(Executor, VariableIsNotFinishedWhileAnAliasIsRead) {
  VariableStore store;
  Graph g;
  const NodeId v = g.variable(store.get_variable("v", {2, 3}));
  const NodeId w = g.variable(store.get_variable("w", {6}));
  const NodeId alias = ops::reshape(g, v, {6});
  const NodeId early = ops::multiply(g, alias, w);
  const NodeId loss = ops::reduce_sum(g, ops::multiply(g, early, early));
  const Executor e(g, loss, 1);
  const auto steps = e.backward_steps();
  EXPECT_EQ(names_of(steps.back().finished), Names{"v"});
  EXPECT_EQ(steps.back().node, alias);
  EXPECT_EQ(names_of(e.forward_steps()[1].reads), (Names{"v", "w"}));
}

TEST(Executor, AVariableThatTheLossDoesNotReadHasAGradientOfZero) {
  VariableStore store;
  Graph g;
  const NodeId used = g.variable(store.get_variable("used", {2}));
  g.variable(store.get_variable("unused", {2}));
  const NodeId loss = ops::reduce_sum(g, used);
  Executor e(g, loss, 1);
  EXPECT_EQ(names_of(e.backward_steps()[0].finished), (Names{"used", "unused"}));
  const Memory memory(g, e);
  run(e, 3);
  EXPECT_EQ(values_of(memory.gradients.at("used").view()), (std::vector<float>{3, 3}));
  EXPECT_EQ(values_of(memory.gradients.at("unused").view()), (std::vector<float>{0, 0}));
}

TEST(Executor, ALossWithoutVariablesStillFinishesAll) {
  VariableStore store;
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny});
  g.variable(store.get_variable("unused", {2}));
  const NodeId loss = ops::reduce_sum(g, x);
  Executor e(g, loss, 1);
  ASSERT_EQ(e.backward_steps().size(), 1U);
  EXPECT_EQ(names_of(e.backward_steps()[0].finished), Names{"unused"});
  const Memory memory(g, e);
  const Tensor input = Tensor::of<float>({1}, {4});
  e.feed(x, input.view());
  run(e);
  EXPECT_EQ(values_of(memory.gradients.at("unused").view()), (std::vector<float>{0, 0}));
}

TEST(Executor, SkipsWhatNeedsNoGradient) {
  VariableStore store;
  Graph g;
  VariableOptions frozen;
  frozen.trainable = false;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId fixed = g.variable(store.get_variable("fixed", {3, 3}, frozen));
  const NodeId w = g.variable(store.get_variable("w", {3, 2}));
  const NodeId h = ops::matmul(g, ops::activation(g, Activation::tanh, x), fixed);
  const NodeId loss = ops::reduce_sum(g, ops::matmul(g, h, w));
  Executor e(g, loss, 2);
  EXPECT_EQ(e.backward_steps().size(), 2U);
  const Memory memory(g, e);
  const Tensor input = random_tensor({2, 3}, 2);
  e.feed(x, input.view());
  run(e);
  EXPECT_EQ(values_of(memory.gradients.at("fixed").view()), std::vector<float>(9, 77.0F)) << "not written";
}

TEST(Executor, RebindingMovesValuesAndGradients) {
  VariableStore store;
  Graph g;
  const Variable& v = store.get_variable("v", {2});
  const NodeId node = g.variable(v);
  const NodeId loss = ops::reduce_sum(g, ops::multiply(g, node, node));
  Executor e(g, loss, 1);
  const Tensor first = Tensor::of<float>({2}, {1, 2});
  const Tensor second = Tensor::of<float>({2}, {5, 6});
  const Tensor g1(DType::float32, {2});
  const Tensor g2(DType::float32, {2});
  e.bind(v, first.view(), g1.view());
  run(e);
  e.bind(v, second.view(), g2.view());
  run(e);
  EXPECT_EQ(values_of(g1.view()), (std::vector<float>{2, 4}));
  EXPECT_EQ(values_of(g2.view()), (std::vector<float>{10, 12}));
  EXPECT_EQ(values_of(e.value(loss)), std::vector<float>{61});
}

TEST(Executor, ForwardOnlyComputesSeveralTargets) {
  const Mlp m;
  Executor e(m.graph, m.loss, 8, {.also = {m.correct}, .forward_only = true});
  EXPECT_TRUE(e.backward_steps().empty());
  const Memory memory(m.graph, e);
  const Tensor x = random_tensor({5, 13}, 1);
  const Tensor y = labels_for(5);
  e.set_batch(5);
  e.feed(m.x, x.view());
  e.feed(m.y, y.view());
  for (const auto& step : e.forward_steps()) e.forward(step);
  EXPECT_LE(e.value(m.correct).as<std::int64_t>()[0], 5);
  EXPECT_EQ(e.value(m.logits).shape(), (Shape{5, 5}));
  EXPECT_GT(e.value(m.loss).as<double>()[0], 0);
}

TEST(Executor, DoesNotAllocateWhileItRuns) {
  const Mlp m;
  Executor e(m.graph, m.loss, 8);
  const Memory memory(m.graph, e);
  const Tensor x = random_tensor({8, 13}, 1);
  const Tensor y = labels_for(8);
  const auto variables = m.graph.variables();
  const auto step = [&] {
    e.set_batch(8);
    e.feed(m.x, x.view());
    e.feed(m.y, y.view());
    for (const Variable* v : variables) {
      e.bind(*v, memory.values.at(v->name()).view(), memory.gradients.at(v->name()).view());
    }
    run(e, 0.125);
  };
  step();
  const std::size_t before = n_allocations;
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(n_allocations, before);
}

template <class Body>
void expect_error(Body&& body, std::initializer_list<const char*> words) {
  try {
    body();
    ADD_FAILURE() << "no error; expected " << *words.begin();
  } catch (const Error& e) {
    for (const char* word : words) EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
  }
}

TEST(Executor, ProfileTakesTheTimeOfEachNode) {
  const Mlp m;
  Executor e(m.graph, m.loss, 8);
  const Memory memory(m.graph, e);
  const Tensor x = random_tensor({8, 13}, 1), y = labels_for(8);
  e.feed(m.x, x.view());
  e.feed(m.y, y.view());
  run(e);
  EXPECT_TRUE(e.times().empty());
  e.profile();
  run(e);
  run(e);
  for (const auto& step : e.forward_steps()) {
    const NodeTimes& t = e.times()[step.node];
    EXPECT_EQ(t.runs, 2);
    EXPECT_GT(t.forward_ns, 0);
    EXPECT_LE(t.blas_ns, t.forward_ns + t.backward_ns);
  }
  EXPECT_GT(e.times()[m.logits].blas_ns, 0);
  EXPECT_EQ(e.times()[m.loss].blas_ns, 0);
  const std::string text = profile_text(m.graph, e.times());
  EXPECT_NE(text.find("h1/dense"), std::string::npos) << text;
  EXPECT_NE(text.find("2 runs of"), std::string::npos) << text;
}

TEST(Executor, CheckNumericsNamesTheFirstOpThatMadeANan) {
  const Mlp m;
  Executor e(m.graph, m.loss, 8);
  Memory memory(m.graph, e);
  Tensor x = random_tensor({8, 13}, 1);
  const Tensor y = labels_for(8);
  e.feed(m.x, x.view());
  e.feed(m.y, y.view());
  e.check_numerics();
  e.set_run({1, 120, 0, 1});
  run(e);
  const auto thrown = [&] {
    try {
      run(e);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::not_finite);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  memory.values.at("h2/weights").as<float>()[7] = INFINITY;
  EXPECT_NE(thrown().find("step 120: node \"h2/dense\" (dense)"), std::string::npos) << thrown();
  EXPECT_NE(thrown().find("its input node \"h2/weights\" (variable"), std::string::npos) << thrown();
  EXPECT_NE(thrown().find("has inf at element 7 already"), std::string::npos) << thrown();
  memory.values.at("h2/weights").as<float>()[7] = 0;
  for (float& v : x.as<float>()) v = 3e38F;
  EXPECT_NE(thrown().find("its inputs are finite"), std::string::npos) << thrown();
}

TEST(Executor, SaysWhatIsWrong) {
  const Mlp m;
  expect_error([&] { Executor(m.graph, m.loss, 0); }, {"0 rows"});
  expect_error([&] { Executor(m.graph, m.logits, 1); }, {"out/dense", "scalar"});
  expect_error([&] { Executor(m.graph, m.correct, 1); }, {"correct_count", "floating scalar"});
  expect_error([&] { Executor(m.graph, NodeId(999), 1); }, {"999"});
  Executor e(m.graph, m.loss, 4);
  const Tensor x = random_tensor({4, 13}, 1);
  expect_error([&] { e.set_batch(5); }, {"5 rows", "at most 4"});
  expect_error([&] { e.set_batch(-1); }, {"-1 rows"});
  expect_error([&] { e.feed(m.x, random_tensor({3, 13}, 1).view()); }, {"\"x\"", "4 rows", "[3, 13]"});
  expect_error([&] { e.feed(m.y, x.view()); }, {"\"y\"", "int32", "float32"});
  expect_error([&] { e.feed(m.loss, x.view()); }, {"not a placeholder"});
  expect_error([&] { e.forward(e.forward_steps()[0]); }, {"placeholder \"x\"", "feed it first"});
  e.feed(m.x, x.view());
  expect_error([&] { e.forward(e.forward_steps()[0]); }, {"variable \"h1/weights\"", "bind it first"});
  const Variable& w = *m.store.find("h1/weights");
  const Tensor value(DType::float32, {13, 37});
  expect_error([&] { e.bind(w, value.view()); }, {"h1/weights", "trainable", "gradient"});
  expect_error([&] { e.bind(w, x.view(), value.view()); }, {"h1/weights", "value", "[13, 37]", "[4, 13]"});
  expect_error([&] { e.value(m.correct); }, {"correct_count", "does not compute"});
  const Memory memory(m.graph, e);
  e.set_batch(2);
  expect_error([&] { e.forward(e.forward_steps()[0]); }, {"placeholder \"x\"", "feed it first"});
}

}  // namespace
}  // namespace varscope
