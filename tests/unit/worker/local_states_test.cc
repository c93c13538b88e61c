#include "worker/graph/local_states.h"

#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/session.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

// Words 0 .. 9 in windows of `steps`.
Model language_model(VariableStore& store, std::int64_t steps) {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  loss: softmax_cross_entropy\n  dtype: "
      "float64\n  layers:\n"
      "    - {type: embedding, scope: e, vocabulary: 10, units: 3}\n"
      "    - {type: lstm, scope: lstm, units: 4}\n"
      "    - {type: gru, scope: gru, units: 2}\n"
      "    - {type: dense, scope: out, units: 10, each_step: true}\n";
  const JobConfig job = parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
  return build_model(store, job, {Shape{steps}, 10, Features::ids, Shape{steps}});
}

std::vector<double> values(const Tensor& t) { return {t.as<double>().begin(), t.as<double>().end()}; }

TEST(LocalStates, CarryOverIsAsOneLongWindow) {
  VariableStore whole_store, half_store;
  const Model whole = language_model(whole_store, 6), half = language_model(half_store, 3);
  const Tensor x = Tensor::of<std::int32_t>({2, 6}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2});
  const Tensor first = Tensor::of<std::int32_t>({2, 3}, {1, 2, 3, 7, 8, 9}),
               second = Tensor::of<std::int32_t>({2, 3}, {4, 5, 6, 0, 1, 2});
  Session a(whole.graph, 3), b(half.graph, 3);
  const std::vector<double> once = values(a.run({whole.output}, {{whole.x, x.view()}})[0]);
  b.run({half.output}, {{half.x, first.view()}});
  const std::vector<double> rest = values(b.run({half.output}, {{half.x, second.view()}})[0]);
  for (std::size_t row = 0; row < 2; ++row) {
    for (std::size_t i = 0; i < 30; ++i)
      EXPECT_NEAR(rest[row * 30 + i], once[row * 60 + 30 + i], 1e-14) << row << " " << i;
  }
  b.reset_states();
  EXPECT_NE(values(b.run({half.output}, {{half.x, second.view()}})[0]), rest);
}

TEST(LocalStates, AreLocalVariablesThatNoServerKnows) {
  VariableStore store;
  language_model(store, 2);
  std::vector<std::string> names;
  for (const Variable* v : store.collection(collections::kLocal)) names.push_back(v->name());
  EXPECT_EQ(names, (std::vector<std::string>{"lstm/h", "lstm/c", "gru/h"}));
  const VariableTable table = store.table();
  for (const VariableSpec& v : table.variables()) EXPECT_EQ(v.name.find("/h"), std::string::npos) << v.name;
}

// One step of a graph in an executor with the states of one logical worker.
class Runner {
 public:
  Runner(const Model& model, LocalStates& states)
      : model_(model),
        states_(states),
        executor_(model.graph, model.output, 2, {.also = {}, .forward_only = true}) {
    for (const Variable* v : model.graph.variables()) {
      if (v->is_local()) continue;
      values_.emplace_back(v->dtype(), v->shape());
      v->spec().fill(values_.back().view(), 5, 0);
      executor_.bind(*v, values_.back().view());
    }
  }
  std::vector<double> run(int logical_worker, const Tensor& x) {
    executor_.set_batch(x.shape()[0]);
    executor_.feed(model_.x, x.view());
    states_.bind(executor_, logical_worker);
    for (const auto& step : executor_.forward_steps()) executor_.forward(step);
    states_.advance(logical_worker);
    const auto out = executor_.value(model_.output).as<double>();
    return {out.begin(), out.end()};
  }

 private:
  const Model& model_;
  LocalStates& states_;
  Executor executor_;
  std::vector<Tensor> values_;
};

TEST(LocalStates, SavedRowsFindTheirLogicalWorkerAgain) {
  VariableStore store;
  const Model m = language_model(store, 2);
  const Tensor a = Tensor::of<std::int32_t>({2, 2}, {1, 2, 3, 4}),
               b = Tensor::of<std::int32_t>({1, 2}, {5, 6}), next = Tensor::of<std::int32_t>({1, 2}, {7, 8});
  LocalStates two(m.graph, 2, 2, 1);  // logical workers of 2 and 1 rows
  Runner runner(m, two);
  runner.run(0, a);
  runner.run(1, b);
  std::vector<LocalRows> saved;
  two.save(1, 2, 1, saved);
  two.save(0, 0, 2, saved);
  const std::vector<double> goes_on = runner.run(1, next);

  LocalStates three(m.graph, 3, 1, 1);  // a row each
  for (int i = 0; i < 3; ++i) three.load(i, i, 1, saved);
  LocalStates other(m.graph, 1, 2, 1);
  Runner again(m, three);
  EXPECT_EQ(again.run(2, next), goes_on);
  EXPECT_NE(again.run(1, next), goes_on);
}

TEST(LocalStates, SayWhatIsMissingOrDoesNotFit) {
  VariableStore store;
  const Model m = language_model(store, 2);
  LocalStates states(m.graph, 1, 2, 1);
  std::vector<LocalRows> saved;
  states.save(0, 0, 2, saved);
  EXPECT_THAT_THROWN(states.load(0, 1, 2, saved), ErrorKind::checkpoint, {"no row 2", "\"lstm/h\""});
  std::vector<LocalRows> bad = saved;
  bad[0].hex.pop_back();
  EXPECT_THAT_THROWN(states.load(0, 0, 2, bad), ErrorKind::checkpoint,
                     {"row 0 has 63 digits", "64 of float64"});
  bad = saved;
  bad[0].hex[0] = 'g';
  EXPECT_THAT_THROWN(states.load(0, 0, 2, bad), ErrorKind::checkpoint, {"\"lstm/h\""});
  bad = saved;
  bad[0].dtype = "float32";
  EXPECT_THAT_THROWN(states.load(0, 0, 2, bad), ErrorKind::checkpoint, {"float32", "float64"});
}

}  // namespace
}  // namespace varscope
