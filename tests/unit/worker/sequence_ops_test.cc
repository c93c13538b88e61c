#include "worker/ops/sequence_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"

// embedding, lstm and gru against naive loops over single elements and against central differences.
namespace varscope {
namespace {

using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;
constexpr std::int64_t kInputs = 3, kUnits = 5;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

using Values = std::span<const double>;

// The argument of gate `g` of `n_gates`: [x, h] times one column, plus its bias.
double gate(Values x, Values h, Values weights, Values bias, std::size_t column, std::size_t n_columns) {
  double sum = bias[column];
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * weights[i * n_columns + column];
  for (std::size_t i = 0; i < h.size(); ++i) sum += h[i] * weights[(x.size() + i) * n_columns + column];
  return sum;
}

// One sequence; h and c end as the last state. Returns h of every step.
std::vector<double> naive_lstm(Values x, Values weights, Values bias, double forget_bias,
                               std::vector<double>& h, std::vector<double>& c) {
  std::vector<double> all;
  const std::size_t d = kInputs, u = h.size();
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    const std::vector<double> before = h;
    const auto z = [&](std::size_t g, std::size_t k) {
      return gate(x.subspan(t * d, d), before, weights, bias, g * u + k, 4 * u);
    };
    for (std::size_t k = 0; k < u; ++k) {
      c[k] = sigmoid(z(2, k) + forget_bias) * c[k] + sigmoid(z(0, k)) * std::tanh(z(1, k));
      h[k] = sigmoid(z(3, k)) * std::tanh(c[k]);
    }
    all.insert(all.end(), h.begin(), h.end());
  }
  return all;
}

std::vector<double> naive_gru(Values x, Values weights, Values bias, Values candidate_weights,
                              Values candidate_bias, std::vector<double>& h) {
  std::vector<double> all;
  const std::size_t d = kInputs, u = h.size();
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    const Values now = x.subspan(t * d, d);
    const std::vector<double> before = h;
    std::vector<double> reset(u);
    for (std::size_t k = 0; k < u; ++k)
      reset[k] = sigmoid(gate(now, before, weights, bias, k, 2 * u)) * before[k];
    for (std::size_t k = 0; k < u; ++k) {
      const double update = sigmoid(gate(now, before, weights, bias, u + k, 2 * u));
      const double candidate = std::tanh(gate(now, reset, candidate_weights, candidate_bias, k, u));
      h[k] = update * before[k] + (1 - update) * candidate;
    }
    all.insert(all.end(), h.begin(), h.end());
  }
  return all;
}

// PyTorch's nn.GRU, with its two biases of r and u as their sums.
std::vector<double> naive_gru_reset_after(Values x, Values weights, Values bias, Values candidate_weights,
                                          Values candidate_bias, Values recurrent_bias,
                                          std::vector<double>& h) {
  std::vector<double> all;
  const std::size_t d = kInputs, u = h.size();
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    const Values now = x.subspan(t * d, d);
    const std::vector<double> before = h;
    for (std::size_t k = 0; k < u; ++k) {
      const double reset = sigmoid(gate(now, before, weights, bias, k, 2 * u));
      const double update = sigmoid(gate(now, before, weights, bias, u + k, 2 * u));
      double of_x = candidate_bias[k], of_h = recurrent_bias[k];
      for (std::size_t i = 0; i < d; ++i) of_x += now[i] * candidate_weights[i * u + k];
      for (std::size_t i = 0; i < u; ++i) of_h += before[i] * candidate_weights[(d + i) * u + k];
      h[k] = (1 - update) * std::tanh(of_x + reset * of_h) + update * before[k];
    }
    all.insert(all.end(), h.begin(), h.end());
  }
  return all;
}

enum class Cell : std::uint8_t { lstm, gru, gru_reset_after };

// One recurrent op on n sequences of `steps` steps, of dtype T, whose states are variables, run as the
// trainer does it: with bind_state. Parameters are the same whatever n and steps are.
template <class T>
struct Recurrent {
  VariableStore store;
  Graph graph;
  NodeId x, y;
  std::vector<const Variable*> parameters, states;
  std::vector<Tensor> values, state, next;

  Recurrent(Cell cell, std::int64_t n, std::int64_t steps, double forget_bias = 1) {
    x = graph.placeholder("x", dtype_of<T>(), {n, steps, kInputs});
    const std::int64_t width = kInputs + kUnits, gates = (cell == Cell::lstm ? 4 : 2) * kUnits;
    const NodeId w = parameter("w", {width, gates}), b = parameter("b", {gates});
    if (cell == Cell::lstm) {
      const NodeId h = state_variable("h", n), c = state_variable("c", n);
      y = ops::lstm(graph, x, w, b, h, c, {forget_bias});
    } else {
      const NodeId cw = parameter("cw", {width, kUnits}), cb = parameter("cb", {kUnits});
      if (cell == Cell::gru) {
        y = ops::gru(graph, x, w, b, cw, cb, state_variable("h", n));
      } else {
        const NodeId rb = parameter("rb", {kUnits});
        y = ops::gru_reset_after(graph, x, w, b, cw, cb, rb, state_variable("h", n));
      }
    }
  }
  NodeId parameter(const char* name, const Shape& shape) {
    const Variable& v = store.get_variable(name, shape, {.dtype = dtype_of<T>()});
    parameters.push_back(&v);
    values.push_back(narrowed(GradientCheck::random(shape, parameters.size())));
    return graph.variable(v);
  }
  NodeId state_variable(const char* name, std::int64_t n) {
    const Variable& v = store.get_variable(name, {n, kUnits}, {.dtype = dtype_of<T>(), .trainable = false});
    states.push_back(&v);
    state.push_back(narrowed(GradientCheck::random({n, kUnits}, 50 + states.size())));
    next.emplace_back(dtype_of<T>(), Shape{n, kUnits});
    return graph.variable(v);
  }
  static Tensor narrowed(const Tensor& wide) {
    Tensor t(dtype_of<T>(), wide.shape());
    for (std::size_t i = 0; i < t.template as<T>().size(); ++i)
      t.template as<T>()[i] = static_cast<T>(wide.as<double>()[i]);
    return t;
  }
  // h of every step; the states' next values are in `next`.
  std::vector<double> run(const Tensor& input) {
    Executor executor(graph, y, 64, {.also = {}, .forward_only = true});
    for (std::size_t i = 0; i < parameters.size(); ++i) executor.bind(*parameters[i], values[i].view());
    for (std::size_t i = 0; i < states.size(); ++i)
      executor.bind_state(*states[i], state[i].view(), next[i].view());
    executor.feed(x, input.view());
    for (const auto& step : executor.forward_steps()) executor.forward(step);
    const auto result = executor.value(y).template as<T>();
    return {result.begin(), result.end()};
  }
};

std::vector<double> row_of(const Tensor& t, std::int64_t row) {
  const std::int64_t width = t.n_elements() / t.shape()[0];
  const auto values =
      t.as<double>().subspan(static_cast<std::size_t>(row * width), static_cast<std::size_t>(width));
  return {values.begin(), values.end()};
}

void expect_near(Values found, Values wanted, double tolerance) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], tolerance) << i;
}

class Cells : public ::testing::TestWithParam<Cell> {};
INSTANTIATE_TEST_SUITE_P(SequenceOps, Cells, ::testing::Values(Cell::lstm, Cell::gru, Cell::gru_reset_after));

TEST_P(Cells, EqualTheNaiveLoopsInEverySequence) {
  for (const std::int64_t n : {1, 3, 17}) {
    for (const std::int64_t steps : {1, 2, 6}) {
      Recurrent<double> r(GetParam(), n, steps, 0.25);
      const Tensor x = GradientCheck::random({n, steps, kInputs}, 99);
      const std::vector<double> y = r.run(x);
      const auto p = [&](std::size_t i) { return r.values[i].as<double>(); };
      for (std::int64_t row = 0; row < n; ++row) {
        std::vector<double> h = row_of(r.state[0], row), c, wanted;
        if (GetParam() == Cell::lstm) {
          c = row_of(r.state[1], row);
          wanted = naive_lstm(row_of(x, row), p(0), p(1), 0.25, h, c);
          expect_near(row_of(r.next[1], row), c, 1e-14);
        } else if (GetParam() == Cell::gru_reset_after) {
          wanted = naive_gru_reset_after(row_of(x, row), p(0), p(1), p(2), p(3), p(4), h);
        } else {
          wanted = naive_gru(row_of(x, row), p(0), p(1), p(2), p(3), h);
        }
        const auto length = static_cast<std::size_t>(steps * kUnits);
        expect_near(Values(y).subspan(static_cast<std::size_t>(row) * length, length), wanted, 1e-14);
        expect_near(row_of(r.next[0], row), h, 1e-14);
      }
    }
  }
}

TEST_P(Cells, CarryTheirStateFromRunToRun) {
  const std::int64_t n = 4;
  Recurrent<double> whole(GetParam(), n, 6), half(GetParam(), n, 3);
  const Tensor x = GradientCheck::random({n, 6, kInputs}, 7);
  const std::vector<double> wanted = whole.run(x);
  for (const std::int64_t part : {0, 1}) {
    Tensor piece(DType::float64, {n, 3, kInputs});
    for (std::int64_t row = 0; row < n; ++row) {
      const auto from =
          x.as<double>().subspan(static_cast<std::size_t>((row * 6 + part * 3) * kInputs), 3 * kInputs);
      std::copy(from.begin(), from.end(), piece.view().data<double>() + row * 3 * kInputs);
    }
    const std::vector<double> y = half.run(piece);
    for (std::int64_t row = 0; row < n; ++row) {
      const auto at = [&](std::int64_t step) { return static_cast<std::size_t>(step * kUnits); };
      expect_near(Values(y).subspan(at(row * 3), at(3)),
                  Values(wanted).subspan(at(row * 6 + part * 3), at(3)), 1e-14);
    }
    std::swap(half.state, half.next);
  }
  for (std::size_t i = 0; i < half.state.size(); ++i) {
    expect_near(half.state[i].as<double>(), whole.next[i].as<double>(), 1e-14);
  }
}

TEST_P(Cells, AreNearFloat64InFloat32) {
  Recurrent<double> wide(GetParam(), 3, 5);
  Recurrent<float> narrow(GetParam(), 3, 5);
  const Tensor x = GradientCheck::random({3, 5, kInputs}, 7);
  expect_near(narrow.run(Recurrent<float>::narrowed(x)), wide.run(x), 2e-6);
}

NodeId recurrent_of_variables(GradientCheck& b, Cell cell, NodeId x, std::int64_t n) {
  const std::int64_t width = kInputs + kUnits, gates = (cell == Cell::lstm ? 4 : 2) * kUnits;
  const NodeId w = b.variable("w", {width, gates}), bias = b.variable("b", {gates});
  const NodeId h = b.feed_random({n, kUnits});
  if (cell == Cell::lstm) return ops::lstm(b.graph, x, w, bias, h, b.feed_random({n, kUnits}));
  const NodeId cw = b.variable("cw", {width, kUnits}), cb = b.variable("cb", {kUnits});
  if (cell == Cell::gru) return ops::gru(b.graph, x, w, bias, cw, cb, h);
  return ops::gru_reset_after(b.graph, x, w, bias, cw, cb, b.variable("rb", {kUnits}), h);
}

TEST_P(Cells, HaveTheGradientsOfFiniteDifferences) {
  for (const std::int64_t n : {1, 3}) {
    for (const std::int64_t steps : {1, 4}) {
      GradientCheck b;
      const NodeId x = b.variable("x", {n, steps, kInputs});
      b.check(b.scalar(recurrent_of_variables(b, GetParam(), x, n)));
    }
  }
}

TEST_P(Cells, AddToTheGradientsOfSharedParameters) {
  GradientCheck b;
  const NodeId x = b.variable("x", {2, 3, kInputs});
  const NodeId y = recurrent_of_variables(b, GetParam(), x, 2);
  const NodeId z = recurrent_of_variables(b, GetParam(), x, 2);
  const NodeId loss = ops::add(b.graph, b.scalar(y), b.scalar(z));
  b.check(ops::add(b.graph, loss, ops::add(b.graph, b.scalar(x), b.scalar(x))));
}

// One executor, first for its most rows, then for fewer: a row's values do not depend on the others.
TEST_P(Cells, RunWithFewerRowsThanTheyHaveRoomFor) {
  GradientCheck b;
  const auto unknown = [&](const char* name, Shape shape) {
    return b.graph.placeholder(name, DType::float64, shape);
  };
  const NodeId x = unknown("x", {kAny, 3, kInputs}), h = unknown("h", {kAny, kUnits});
  const std::int64_t width = kInputs + kUnits, gates = (GetParam() == Cell::lstm ? 4 : 2) * kUnits;
  const NodeId w = b.variable("w", {width, gates}), bias = b.variable("b", {gates});
  const NodeId cw = b.variable("cw", {width, kUnits}), cb = b.variable("cb", {kUnits});
  const NodeId y = GetParam() == Cell::lstm  ? ops::lstm(b.graph, x, w, bias, h, h)
                   : GetParam() == Cell::gru ? ops::gru(b.graph, x, w, bias, cw, cb, h)
                                             : ops::gru_reset_after(b.graph, x, w, bias, cw, cb, cb, h);
  const Tensor many = GradientCheck::random({4, 3, kInputs}, 1),
               states = GradientCheck::random({4, kUnits}, 2);
  const TensorView few(DType::float64, {2, 3, kInputs}, many.view().bytes());
  const TensorView few_states(DType::float64, {2, kUnits}, states.view().bytes());
  Session session(b.graph, 1);
  const Tensor all = std::move(session.run({y}, {{x, many.view()}, {h, states.view()}})[0]);
  const Tensor some = std::move(session.run({y}, {{x, few}, {h, few_states}})[0]);
  expect_near(some.as<double>(), all.as<double>().first(static_cast<std::size_t>(2 * 3 * kUnits)), 1e-14);
}

TEST_P(Cells, HaveZeroGradientsOfAnEmptyBatch) {
  GradientCheck b;
  const NodeId y = recurrent_of_variables(b, GetParam(), b.feed_random({0, 3, kInputs}), 0);
  Session session(b.graph, 1);
  const auto gradients = session.gradients(ops::reduce_sum(b.graph, y), b.feeds());
  EXPECT_EQ(gradients.size(), GetParam() == Cell::lstm ? 2U : GetParam() == Cell::gru ? 4U : 5U);
  for (const auto& [name, gradient] : gradients) {
    for (const double g : gradient.as<double>()) EXPECT_EQ(g, 0) << name;
  }
}

// Its two biases of the candidate may be one variable.
TEST(GruResetAfter, AddsTheGradientsOfABiasThatIsBoth) {
  GradientCheck b;
  const NodeId x = b.variable("x", {2, 3, kInputs});
  const std::int64_t width = kInputs + kUnits;
  const NodeId w = b.variable("w", {width, 2 * kUnits}), bias = b.variable("b", {2 * kUnits});
  const NodeId cw = b.variable("cw", {width, kUnits}), cb = b.variable("cb", {kUnits});
  b.check(b.scalar(ops::gru_reset_after(b.graph, x, w, bias, cw, cb, cb, b.feed_random({2, kUnits}))));
}

TEST(Lstm, CountsTheFlopsOfItsProductsAndSaysWhatDoesNotFit) {
  Graph g;
  const auto node = [&](const char* name, const Shape& shape, DType dtype = DType::float32) {
    return g.placeholder(name, dtype, shape);
  };
  const NodeId x = node("x", {kAny, 7, 3}), w = node("w", {8, 20}), b = node("b", {20});
  const NodeId h = node("h", {kAny, 5});
  const NodeId y = ops::lstm(g, x, w, b, h, h);
  EXPECT_EQ(g.node(y).type, (TensorType{DType::float32, {kAny, 7, 5}}));
  EXPECT_EQ(g.flops(y, 10), 2 * 10 * 7 * 8 * 20);
  const NodeId cw = node("cw", {8, 5}), cb = node("cb", {5}), w2 = node("w2", {8, 10}), b2 = node("b2", {10});
  EXPECT_EQ(g.flops(ops::gru(g, x, w2, b2, cw, cb, h), 10), 2 * 10 * 7 * 8 * 15);

  EXPECT_EQ(
      thrown([&] { ops::lstm(g, x, w2, b, h, h); }),
      "argument: node \"lstm_1\" (lstm): shapes [?, 7, 3] of \"x\" and [8, 10] of \"w2\" do not fit: [8, 20] "
      "is needed");
  EXPECT_EQ(thrown([&] { ops::lstm(g, w, w, b, h, h); }),
            "argument: node \"lstm_1\" (lstm): needs rank 3 for \"w\", which has shape [8, 20]");
  EXPECT_EQ(
      thrown([&] {
        ops::lstm(g, x, w, b, node("h3", {3, 5}), h);
      }),
      "argument: node \"lstm_1\" (lstm): shapes [?, 7, 3] of \"x\" and [3, 5] of \"h3\" do not fit: one "
      "state per row is needed");
  EXPECT_EQ(
      thrown([&] {
        ops::lstm(g, x, w, b, node("h6", {kAny, 5}, DType::float64), h);
      }),
      "argument: node \"lstm_1\" (lstm): dtypes differ: float32 [?, 7, 3] of \"x\" and float64 [?, 5] of "
      "\"h6\"");
  EXPECT_EQ(
      thrown([&] {
        ops::lstm(g, node("x0", {kAny, 0, 3}), w, b, h, h);
      }),
      "argument: node \"lstm_1\" (lstm): shapes [?, 0, 3] of \"x0\" and [?, 5] of \"h\" need known extents, "
      "and at least one step and one unit");
  EXPECT_EQ(g.flops(ops::gru_reset_after(g, x, w2, b2, cw, cb, cb, h), 10), 2 * 10 * 7 * 8 * 15);
  EXPECT_EQ(thrown([&] { ops::gru_reset_after(g, x, w2, b2, cw, cb, b2, h); }),
            "argument: node \"gru_reset_after_1\" (gru_reset_after): shapes [?, 7, 3] of \"x\" and [10] of "
            "\"b2\" do not fit: [5] is needed");
  EXPECT_EQ(
      thrown([&] { ops::gru(g, x, w2, b2, w2, cb, h); }),
      "argument: node \"gru_1\" (gru): shapes [?, 7, 3] of \"x\" and [8, 10] of \"w2\" do not fit: [8, 5] is "
      "needed");
}

TEST(Embedding, CopiesRowsAndAddsTheirGradients) {
  GradientCheck b;
  const NodeId table = b.variable("table", {5, 3});
  const NodeId y = ops::embedding(b.graph, table, b.feed_labels({2, 4}, 4));
  EXPECT_EQ(b.graph.node(y).type, (TensorType{DType::float64, {2, 4, 3}}));
  const Tensor value = std::move(Session(b.graph, 17).run({y}, b.feeds())[0]);
  Session session(b.graph, 17);
  const auto rows = session.value(*b.graph.node(table).variable).as<double>();
  const std::int32_t* ids = b.fed[0].second.as<std::int32_t>().data();
  for (std::size_t i = 0; i < 8; ++i) {
    for (std::size_t c = 0; c < 3; ++c)
      EXPECT_EQ(value.as<double>()[i * 3 + c], rows[static_cast<std::size_t>(ids[i]) * 3 + c]);
  }
  // Twice, so that the second contribution adds; row 4 of the table never occurs.
  b.check(ops::add(b.graph, b.scalar(y), b.scalar(ops::embedding(b.graph, table, b.feed_labels({3}, 3)))));
}

TEST(Embedding, RejectsIdsThatAreNotInTheTable) {
  Graph g;
  VariableStore store;
  const NodeId table = g.variable(store.get_variable("table", {5, 2}));
  const NodeId ids = g.placeholder("ids", DType::int32, {kAny, 3});
  const NodeId y = ops::embedding(g, table, ids);
  Session session(g, 1);
  for (const std::int32_t bad : {-1, 5}) {
    const Tensor t = Tensor::of<std::int32_t>({2, 3}, {0, 4, 1, 2, bad, 0});
    EXPECT_EQ(
        thrown([&] {
          session.run({y}, {{ids, t.view()}});
        }),
        fmt::format("data: row 1 of the batch has id {} at position 1; an embedding table of 5 rows has "
                    "ids 0 .. 4",
                    bad));
  }
  EXPECT_EQ(
      thrown([&] { ops::embedding(g, ids, table); }),
      "argument: node \"embedding_1\" (embedding): needs float32 or float64 for \"ids\", which is int32 [?, "
      "3]");
  EXPECT_EQ(
      thrown([&] { ops::embedding(g, table, table); }),
      "argument: node \"embedding_1\" (embedding): needs ids, int32 or int64, in \"table\", which is float32 [5, "
      "2]");
}

}  // namespace
}  // namespace varscope
