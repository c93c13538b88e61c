#include "tests/support/jobs/pause_layer.h"

#include <gtest/gtest.h>

#include <string>

#include "common/base/clock.h"
#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/executor.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

using testing::pause_layer;
using testing::PauseRank;
using testing::PauseTable;
using testing::SlowOne;

constexpr std::int64_t kWorkers = 4;

// Which of the workers are slow in a step, as "0100".
std::string slow_ones(const PauseTable& table, std::int64_t step) {
  std::string text;
  for (std::int64_t w = 0; w < kWorkers; ++w) text += table.is_slow(w, kWorkers, step) ? '1' : '0';
  return text;
}

TEST(PauseTable, NamesTheSlowWorkerOfAStep) {
  for (std::int64_t step = 1; step <= 8; ++step) {
    EXPECT_EQ(slow_ones({.who = SlowOne::none}, step), "0000");
    EXPECT_EQ(slow_ones({.who = SlowOne::fixed, .worker = 2}, step), "0010");
  }
  const PauseTable rotating{.who = SlowOne::rotating};
  EXPECT_EQ(slow_ones(rotating, 1), "0100");
  EXPECT_EQ(slow_ones(rotating, 3), "0001");
  EXPECT_EQ(slow_ones(rotating, 4), "1000");
}

TEST(PauseTable, SlowAndOthersPauseForTheirTimes) {
  const PauseTable table{.base_ms = 3, .slow_ms = 40, .who = SlowOne::fixed, .worker = 1};
  EXPECT_EQ(table.pause_ms(1, kWorkers, 7), 40);
  EXPECT_EQ(table.pause_ms(0, kWorkers, 7), 3);
}

TEST(PauseTable, RandomOnesAreAShareAndTheSameEveryTime) {
  const PauseTable table{.who = SlowOne::random, .share = 0.1, .seed = 5};
  PauseTable other = table;
  other.seed = 6;
  int slow = 0, differing = 0;
  for (std::int64_t step = 1; step <= 5000; ++step) {
    for (std::int64_t w = 0; w < kWorkers; ++w) {
      const bool is_slow = table.is_slow(w, kWorkers, step);
      slow += is_slow ? 1 : 0;
      differing += is_slow != other.is_slow(w, kWorkers, step) ? 1 : 0;
      EXPECT_EQ(is_slow, table.is_slow(w, kWorkers, step));
    }
  }
  EXPECT_NEAR(slow / 20'000.0, 0.1, 0.01);
  EXPECT_NEAR(differing / 20'000.0, 0.18, 0.02) << "2 * 0.1 * 0.9 of independent draws";
}

Model model_with(VariableStore& store, const std::string& pause, PauseRank rank) {
  auto layers = LayerRegistry::built_in();
  layers.add(pause_layer(rank));
  const std::string text =
      "job: {name: t}\n"
      "data: {train: {type: digits}}\n"
      "model:\n"
      "  loss: softmax_cross_entropy\n"
      "  layers:\n"
      "    - {type: dense, units: 10}\n" +
      pause;
  return build_model(store, parse_job(read_yaml_text(text, "job.yaml"), "job.yaml"), {{4}, 10},
                     GraphMode::train, layers);
}

struct Passes {
  std::vector<float> output, gradient;  // of the model, and of its bias
  double seconds = 0;                   // of forward
  std::size_t n_ops = 0;
};

// Forward and backward of two rows in a step.
Passes run_of(const std::string& pause, std::int64_t step, PauseRank rank = {}) {
  VariableStore store;
  const Model m = model_with(store, pause, rank);
  Executor executor(m.graph, m.loss, 2, {.also = {m.output}});
  Tensor x(DType::float32, {2, 4}), y(DType::int32, {2});
  for (std::size_t i = 0; i < 8; ++i) x.as<float>()[i] = static_cast<float>(i) * 0.5F;
  y.as<std::int32_t>()[0] = 3;
  y.as<std::int32_t>()[1] = 7;
  std::vector<Tensor> memory;
  memory.reserve(2 * store.variables().size());
  for (const Variable* v : store.variables()) {
    Tensor& value = memory.emplace_back(DType::float32, v->shape());
    Tensor& gradient = memory.emplace_back(DType::float32, v->shape());
    for (std::size_t i = 0; i < value.as<float>().size(); ++i)
      value.as<float>()[i] = static_cast<float>(i % 7) * 0.25F;
    executor.bind(*v, value.view(), gradient.view());
  }
  executor.feed(m.x, x.view());
  executor.feed(m.y, y.view());
  executor.set_run({.seed = 1, .step = step});
  const std::int64_t started = now_ns();
  for (const auto& s : executor.forward_steps()) executor.forward(s);
  Passes run;
  run.seconds = static_cast<double>(now_ns() - started) * 1e-9;
  const auto output = executor.value(m.output).as<float>();
  run.output.assign(output.begin(), output.end());
  executor.start_backward(1);
  for (const auto& s : executor.backward_steps()) executor.backward(s);
  const auto gradient = memory.back().as<float>();
  run.gradient.assign(gradient.begin(), gradient.end());
  run.n_ops = executor.forward_steps().size();
  return run;
}

TEST(PauseLayer, HandsOnValuesAndGradientsAsTheyAre) {
  const Passes plain = run_of("", 1);
  for (const char* pause :
       {"    - {type: pause, base_ms: 3}\n", "    - {type: pause, base_ms: 3, deaf: true}\n"}) {
    const Passes paused = run_of(pause, 1);
    EXPECT_EQ(paused.output, plain.output);
    EXPECT_EQ(paused.gradient, plain.gradient);
  }
  EXPECT_EQ(plain.gradient.size(), 10U);
  EXPECT_NE(plain.gradient, std::vector<float>(10));
}

TEST(PauseLayer, SleepsAsLongAsItsTableSays) {
  const std::string keys = "base_ms: 2, slow_ms: 300, who: fixed, worker: 1";
  for (const std::string deaf : {"", ", deaf: true"}) {
    const std::string pause = "    - {type: pause, " + keys + deaf + "}\n";
    EXPECT_GE(run_of(pause, 1, {2, 4}).seconds, 0.3) << "rank 2 is worker 1";
    EXPECT_LT(run_of(pause, 1, {1, 4}).seconds, 0.3) << "rank 1 is worker 0";
  }
}

TEST(PauseLayer, IsAnOpForEachMillisecondUnlessItIsDeaf) {
  const std::size_t plain = run_of("", 1).n_ops;
  EXPECT_EQ(run_of("    - {type: pause, base_ms: 1, slow_ms: 12}\n", 1).n_ops, plain + 12);
  EXPECT_EQ(run_of("    - {type: pause, base_ms: 1, slow_ms: 12, deaf: true}\n", 1).n_ops, plain + 1);
}

TEST(PauseLayer, SaysWhatItsKeysMayBe) {
  VariableStore store, other;
  EXPECT_THAT_THROWN(model_with(store, "    - {type: pause, who: fxed}\n", {}), ErrorKind::config,
                     {"who", "fxed", "fixed"});
  EXPECT_THAT_THROWN(model_with(other, "    - {type: pause, slow_ms: 2000}\n", {}), ErrorKind::config,
                     {"slow_ms", "1000"});
}

}  // namespace
}  // namespace varscope
