#include "worker/layers/model_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/session.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

// The model's lines begin at line 4 of the file.
JobConfig job(const std::string& layers, const std::string& rest = "  loss: softmax_cross_entropy\n") {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n" + rest + "  layers:\n" + layers;
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

std::set<std::string> names(const VariableStore& store) {
  std::set<std::string> all;
  for (const Variable* v : store.collection(collections::kGlobal)) all.insert(v->name());
  return all;
}

TEST(ModelTree, BlocksNestTheirScopes) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - scope: body\n"
                                  "      layers:\n"
                                  "        - {type: dense, scope: first, units: 4}\n"
                                  "        - scope: inner\n"
                                  "          layers: [{type: dense, units: 5}]\n"
                                  "    - {type: dense, units: 10}\n"),
                              {{6}, 10});
  EXPECT_EQ(names(store),
            (std::set<std::string>{"body/first/weights", "body/first/bias", "body/inner/dense_1/weights",
                                   "body/inner/dense_1/bias", "dense_1/weights", "dense_1/bias"}));
  EXPECT_EQ(store.find("body/inner/dense_1/weights")->shape(), (Shape{4, 5}));
  EXPECT_TRUE(m.graph.find("body/inner/dense_1/dense"));
}

TEST(ModelTree, ScopesHandDefaultsDown) {
  VariableStore store;
  build_model(
      store,
      job("    - scope: a\n"
          "      initializer: {type: uniform, low: -1, high: 1}\n"
          "      regularizer: {type: l2, factor: 0.5}\n"
          "      constraint: {type: max_norm, limit: 3}\n"
          "      dtype: float32\n"
          "      layers:\n"
          "        - {type: dense, scope: x, units: 4, bias: false}\n"
          "        - {type: dense, scope: y, units: 4, bias: false, initializer: ones, regularizer: none,\n"
          "           constraint: non_neg}\n"
          "        - scope: frozen\n"
          "          trainable: false\n"
          "          layers: [{type: dense, scope: z, units: 10}]\n"),
      {{6}, 10});
  EXPECT_EQ(store.find("a/x/weights")->spec().initializer, Initializer::uniform(-1, 1));
  EXPECT_EQ(store.find("a/y/weights")->spec().initializer, Initializer::constant(1));
  EXPECT_EQ(store.find("a/x/weights")->spec().constraint, Constraint::max_norm(3));
  EXPECT_EQ(store.find("a/y/weights")->spec().constraint, Constraint::non_neg());
  EXPECT_FALSE(store.find("a/frozen/z/weights")->trainable());
  EXPECT_FALSE(store.find("a/frozen/z/bias")->trainable());
  std::set<std::string> regularized;
  for (const RegularizationLoss& r : store.regularization_losses()) regularized.insert(r.variable->name());
  EXPECT_EQ(regularized, (std::set<std::string>{"a/x/weights", "a/frozen/z/weights", "a/frozen/z/bias"}));
}

TEST(ModelTree, ModelDefaultsReachAllVariables) {
  VariableStore store;
  build_model(store,
              job("    - {type: dense, scope: a, units: 10}\n",
                  "  loss: softmax_cross_entropy\n  regularizer: {type: l1, factor: 0.1}\n  partitioner: "
                  "{type: fixed_size, "
                  "parts: 2}\n"),
              {{6}, 10});
  EXPECT_EQ(names(store), (std::set<std::string>{"a/weights/part_0", "a/weights/part_1", "a/bias/part_0",
                                                 "a/bias/part_1"}));
  EXPECT_EQ(store.find("a/weights/part_1")->shape(), (Shape{3, 10}));
  EXPECT_EQ(store.regularization_losses().size(), 4U);
}

TEST(ModelTree, PartsComputeWhatTheWholeDoes) {
  const auto outputs = [](const std::string& partitioner) {
    VariableStore store;
    const Model m = build_model(store,
                                job("    - {type: dense, scope: a, units: 7, activation: tanh" + partitioner +
                                    "}\n" + "    - {type: dense, scope: b, units: 3" + partitioner + "}\n"),
                                {{5}, 3});
    Session session(m.graph, 9);
    Tensor x(DType::float32, {2, 5});
    for (std::size_t i = 0; i < 10; ++i) x.as<float>()[i] = 0.1F * static_cast<float>(i) - 0.4F;
    const Tensor y = session.run({m.output}, {{m.x, x.view()}})[0].clone();
    return std::vector<float>(y.as<float>().begin(), y.as<float>().end());
  };
  const std::vector<float> whole = outputs("");
  EXPECT_EQ(outputs(", partitioner: {type: fixed_size, parts: 2}"), whole);
  EXPECT_EQ(outputs(", partitioner: {type: fixed_size, parts: 3, axis: 1}"), whole);
}

TEST(ModelTree, TowersShareByReuse) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: take, index: 0}\n"
                                  "    - scope: tower\n"
                                  "      name: left\n"
                                  "      layers: [{type: dense, units: 4, activation: relu}]\n"
                                  "    - {type: take, input: x, index: 1}\n"
                                  "    - {reuse: tower, name: right}\n"
                                  "    - {type: absolute_difference, inputs: [left, right]}\n"
                                  "    - {type: dense, scope: alike, units: 1}\n",
                                  "  loss: sigmoid_cross_entropy\n"),
                              {{2, 3}, 2});
  EXPECT_EQ(names(store), (std::set<std::string>{"tower/dense_1/weights", "tower/dense_1/bias",
                                                 "alike/weights", "alike/bias"}));
  // Equal halves have distance 0: only the bias, which is 0, is left.
  Session session(m.graph, 1);
  const Tensor x = Tensor::of<float>({1, 2, 3}, {1, 2, 3, 1, 2, 3});
  EXPECT_EQ(session.run({m.output}, {{m.x, x.view()}})[0].as<float>()[0], 0.0F);
}

TEST(ModelTree, AutoencoderSharesWeightsTurnedRound) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: dense, scope: code, units: 2}\n"
                                  "    - {type: dense, reuse: code, transpose: true}\n",
                                  "  loss: mean_squared_error\n  target: input\n"),
                              {{2, 2}, 10});
  EXPECT_EQ(names(store), (std::set<std::string>{"code/weights", "code/bias", "code/transposed_bias"}));
  EXPECT_FALSE(m.correct);
  EXPECT_EQ(m.metrics.at(0).name, "rmse");
  EXPECT_THAT_THROWN(build_model(store,
                                 job("    - {type: dense, scope: c2, units: 2}\n",
                                     "  loss: mean_squared_error\n  target: input\n"),
                                 {{2, 2}, 10}),
                     ErrorKind::config, {"job.yaml:7:", "[?, 2]", "[?, 2, 2]", "same elements"});
}

// The loss of an autoencoder of 30 numbers, however they are arranged: the mean over the elements of a
// sample, or, where the config says so, their sum.
TEST(ModelTree, LossOfTheInputIsReducedOverAllElementsOfASample) {
  const auto loss = [](const std::string& type, const std::string& reduction, const Shape& sample) {
    VariableStore store;
    const std::string keys = reduction.empty() ? "" : ", reduction: " + reduction;
    const Model m = build_model(
        store,
        job("    - {type: add, inputs: [x, x]}\n", "  loss: {type: " + type + keys + "}\n  target: input\n"),
        {sample, 10});
    Session session(m.graph, 1);
    Tensor x(DType::float32, with_batch(m.graph.node(m.x).type.shape, 2));
    for (std::size_t i = 0; i < 60; ++i) x.as<float>()[i] = 0.05F * static_cast<float>(i) - 1.0F;
    const Tensor y(DType::int32, {2});
    return session.run({m.loss}, {{m.x, x.view()}, {m.y, y.view()}})[0].as<double>()[0];
  };
  double squared = 0, absolute = 0, entropy = 0;
  for (std::size_t i = 0; i < 60; ++i) {
    const double x = 0.05 * static_cast<double>(i) - 1, o = 2 * x, p = 1 / (1 + std::exp(-o));
    squared += (o - x) * (o - x);
    absolute += std::abs(o - x);
    entropy -= x * std::log(p) + (1 - x) * std::log(1 - p);
  }
  for (const Shape& sample : {Shape{30}, Shape{5, 6}, Shape{5, 6, 1}}) {
    EXPECT_NEAR(loss("mean_squared_error", "", sample), squared / 30, 1e-6) << sample.str();
    EXPECT_NEAR(loss("mean_squared_error", "sum", sample), squared, 2e-5) << sample.str();
    EXPECT_NEAR(loss("absolute_error", "mean", sample), absolute / 30, 1e-6) << sample.str();
    EXPECT_NEAR(loss("absolute_error", "sum", sample), absolute, 2e-5) << sample.str();
    EXPECT_NEAR(loss("sigmoid_cross_entropy", "", sample), entropy / 30, 1e-6) << sample.str();
    EXPECT_NEAR(loss("sigmoid_cross_entropy", "sum", sample), entropy, 2e-5) << sample.str();
  }
}

// An embedding's row stands for an id: its norm is what is limited, and its length is the fan.
TEST(ModelTree, RowsOfAnEmbeddingAreItsUnits) {
  const auto initializer = [](const std::string& keys, const std::string& model = "") {
    VariableStore store;
    DataFacts ids{{4}, 1000};
    ids.features = Features::ids;
    build_model(store,
                job("    - {type: embedding, scope: e, vocabulary: 1000, units: 12" + keys +
                        "}\n    - {type: dense, units: 1000}\n",
                    "  loss: softmax_cross_entropy\n" + model),
                ids);
    const VariableSpec& spec = store.find("e/embeddings")->spec();
    EXPECT_EQ(spec.shape, (Shape{1000, 12}));
    return std::pair(spec.initializer, spec.constraint);
  };
  const auto uniform = [](double limit) { return Initializer::uniform(-limit, limit); };
  EXPECT_EQ(initializer("").first, uniform(std::sqrt(6.0 / 24)));
  EXPECT_EQ(initializer(", initializer: he_uniform").first, uniform(std::sqrt(6.0 / 12)));
  EXPECT_EQ(initializer("", "  initializer: he_uniform\n").first, uniform(std::sqrt(6.0 / 12)));
  EXPECT_EQ(initializer(", initializer: fan_in_uniform").first, uniform(1 / std::sqrt(12.0)));
  EXPECT_EQ(initializer("", "  initializer: fan_in_uniform\n").first, uniform(1 / std::sqrt(12.0)));
  const Constraint rows{Constraint::Kind::row_max_norm, 2};
  EXPECT_EQ(initializer(", constraint: {type: max_norm, limit: 2}").second, rows);
  EXPECT_EQ(initializer("", "  constraint: {type: max_norm, limit: 2}\n").second, rows);
  EXPECT_EQ(initializer(", constraint: non_neg").second, Constraint::non_neg());
  EXPECT_EQ(rows.str(), "max_norm(2) of each row");
}

// Both forms of the cell start as their systems do.
TEST(ModelTree, GruHasTheVariablesOfItsForm) {
  const auto first_values = [](const std::string& keys) {
    VariableStore store;
    build_model(store,
                job("    - {type: gru, scope: g, units: 2" + keys + "}\n    - {type: dense, units: 10}\n"),
                {{4, 3}, 10});
    std::map<std::string, std::string> all;
    for (const char* name : {"g/gates_bias", "g/candidate_bias", "g/candidate_recurrent_bias"}) {
      if (const Variable* v = store.find(name)) all[name] = v->shape().str() + v->spec().initializer.str();
    }
    return all;
  };
  using All = std::map<std::string, std::string>;
  EXPECT_EQ(first_values(""),
            (All{{"g/gates_bias", "[4]constant(1)"}, {"g/candidate_bias", "[2]constant(0)"}}));
  EXPECT_EQ(first_values(", reset_after: true"), (All{{"g/gates_bias", "[4]constant(0)"},
                                                      {"g/candidate_bias", "[2]constant(0)"},
                                                      {"g/candidate_recurrent_bias", "[2]constant(0)"}}));
}

TEST(ModelTree, RepeatCounts) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - repeat: 3\n"
                                  "      layers: [{type: dense, scope: hidden$(i), units: $(i+1)}]\n"
                                  "    - repeat: 2\n"
                                  "      counter: block\n"
                                  "      from: 0\n"
                                  "      scope: deep\n"
                                  "      layers:\n"
                                  "        - {type: dense, scope: in$(block), units: 4}\n"
                                  "        - repeat: 2\n"
                                  "          layers: [{type: dense, scope: b$(block)_$(i), units: 4}]\n"
                                  "    - {type: dense, units: 10}\n"),
                              {{6}, 10});
  EXPECT_EQ(store.find("hidden3/weights")->shape(), (Shape{3, 4}));
  for (const char* name :
       {"deep/in0/bias", "deep/in1/bias", "deep/b0_1/bias", "deep/b0_2/bias", "deep/b1_2/bias"})
    EXPECT_NE(store.find(name), nullptr) << name;
  EXPECT_EQ(m.layers.size(), 3U + 2 * 3 + 1);
}

TEST(ModelTree, ResidualBlocksReadTheirInput) {
  VariableStore store;
  const Model m =
      build_model(store,
                  job("    - repeat: 2\n"
                      "      layers:\n"
                      "        - {type: dense, scope: r$(i), units: 6, initializer: zeros, name: branch}\n"
                      "        - {type: add, inputs: [input, branch]}\n"),
                  {{6}, 6});
  Session session(m.graph, 1);
  const Tensor x = Tensor::of<float>({1, 6}, {1, 2, 3, 4, 5, 6});
  const Tensor y = session.run({m.output}, {{m.x, x.view()}})[0].clone();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(y.as<float>()[i], x.as<float>()[i]);
}

TEST(ModelTree, EvaluationIsASecondGraphOverTheSameVariables) {
  VariableStore store;
  const JobConfig j =
      job("    - {type: dense, scope: a, units: 4}\n"
          "    - {type: batch_norm, scope: norm}\n"
          "    - {type: dropout, rate: 0.5}\n"
          "    - {type: dense, scope: b, units: 10}\n");
  const Model train = build_model(store, j, {{6}, 10});
  const std::size_t n = store.variables().size();
  const Model evaluation = build_model(store, j, {{6}, 10}, GraphMode::evaluate);
  EXPECT_EQ(store.variables().size(), n);
  EXPECT_TRUE(store.find("norm/moving_mean")->spec().is_average());
  EXPECT_TRUE(train.graph.find("dropout_1"));
  EXPECT_FALSE(evaluation.graph.find("dropout_1"));
  EXPECT_EQ(evaluation.metrics.size(), evaluation.metric_nodes.size());
}

TEST(ModelTree, RegularizationLossIsAddedOncePerBatch) {
  VariableStore store;
  const JobConfig j = job(
      "    - {type: dense, scope: a, units: 2, initializer: ones, regularizer: {type: l2, factor: 0.5}}\n");
  const Model m = build_model(store, j, {{3}, 2});
  const Model plain = build_model(store, j, {{3}, 2}, GraphMode::evaluate);
  const Tensor x = Tensor::of<float>({4, 3}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6});
  const Tensor y = Tensor::of<std::int32_t>({4}, {0, 1, 0, 1});
  Session with(m.graph, 1), without(plain.graph, 1);
  const double a = with.run({m.loss}, {{m.x, x.view()}, {m.y, y.view()}})[0].as<double>()[0];
  const double b = without.run({plain.loss}, {{plain.x, x.view()}, {plain.y, y.view()}})[0].as<double>()[0];
  EXPECT_DOUBLE_EQ(a - b, 4 * 0.5 * 6);  // 4 rows, which the trainer divides by
}

void expect_error(const std::string& layers, std::initializer_list<const char*> words,
                  const Shape& sample = {6}) {
  VariableStore store;
  EXPECT_THAT_THROWN(build_model(store, job(layers), {sample, 10}), ErrorKind::config, words);
}

TEST(ModelTree, SaysWhatIsWrongAndWhere) {
  expect_error("    - {type: dense, units: 10, input: lft}\n",
               {"job.yaml:6:39: model.layers.0.input", "unknown input \"lft\"", "there are x"});
  expect_error("    - {type: dense, units: 10, name: left}\n    - {type: dense, units: 10, input: lefft}\n",
               {"did you mean \"left\""});
  expect_error("    - {type: dense, units: 10, input: b}\n    - {type: dense, units: 10, name: b}\n",
               {"job.yaml:6:39: model.layers.0.input", "job.yaml:7:38", "comes later", "no cycles"});
  expect_error("    - {type: dense, units: 10, name: a}\n    - {type: dense, units: 10, name: a}\n",
               {"job.yaml:7:38: model.layers.1.name", "the name \"a\" is taken (job.yaml:6:38)"});
  expect_error("    - {type: dense, units: 10, inputs: [x, x]}\n",
               {"model.layers.0.inputs", "takes 1 input, got 2"});
  expect_error("    - {reuse: tower}\n",
               {"job.yaml:6:15: model.layers.0.reuse", "no block of scope \"tower\""});
  expect_error("    - {scope: a, layers: []}\n", {"model.layers.0.layers", "at least one layer"});
  expect_error("    - {scope: a, layer: []}\n", {"model.layers.0.type", "missing"});
  expect_error("    - {repeat: 0, layers: [{type: flatten}]}\n", {"model.layers.0.repeat", "1 to 10000"});
  expect_error("    - {scope: a, type: dense, layers: [{type: flatten}]}\n",
               {"a block of layers has no type"});
  expect_error("    - {scope: a, regularizer: {type: l3, factor: 1}, layers: [{type: dense, units: 10}]}\n",
               {"model.layers.0.regularizer.type", "expected one of none, l1, l2, l1_l2, got \"l3\""});
  expect_error("    - {type: dense, transpose: true, reuse: nothing}\n",
               {"model.layers.0.transpose", "no weights"});
  expect_error("    - {type: concat, inputs: [x]}\n    - {type: add, inputs: [x]}\n",
               {"takes 2 inputs, got 1"});
  expect_error("    - {scope: a, layers: [{type: dense, units: 6}, {reuse: /a}]}\n",
               {"model.layers.0.layers.1.reuse", "no block of scope \"a\" that ends before"});
  expect_error("    - {reuse: a, scope: b}\n", {"model.layers.0.scope", "names the scope already"});
  expect_error("    - {scope: a/, layers: [{type: dense, units: 10}]}\n", {"\"a/\" is not a scope name"});
  expect_error("    - {counter: j, layers: [{type: dense, units: 10}]}\n",
               {"model.layers.0.counter", "counts the rounds"});
  expect_error("    - {repeat: 2, layers: [{repeat: 2, layers: [{type: dense, units: 10}]}]}\n",
               {"counts with $(i) too", "another counter"});
  expect_error("    - {type: dense, units: 10, inputs: []}\n", {"at least one name, got an empty one"});
  expect_error("    - {type: dense, units: 10, name: input}\n", {"\"input\" is what a block gets"});
  expect_error("    - {type: dense, units: 10, bias_initializer: orthogonal}\n",
               {"job.yaml:6", "cannot be initialized with", "rank 2"});
  expect_error("    - {type: dense, units: 10}\n    - {scope: b, layers: [{type: dense, units: 5}]}\n",
               {"job.yaml:7", "model.layers.1.layers.0.units", "5 outputs"});
  expect_error("    - {type: lstm, units: 3}\n", {"lstm needs sequences", "[?, 6]"});
  expect_error("    - {type: conv2d, filters: 3, kernel: [3]}\n", {"needs images", "[?, 6]"});
  expect_error("    - {type: conv2d, filters: 3, kernel: [3, 3, 3]}\n",
               {"model.layers.0.kernel", "got 3 numbers"}, {4, 4});
  expect_error("    - {type: batch_norm, scope: n}\n    - {type: batch_norm, reuse: n}\n",
               {"model.layers.1.reuse", "\"n\" normalises another input"});
}

TEST(ModelTree, SharedBlocksRepeatAsTheirModel) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - scope: tower\n"
                                  "      repeat: 2\n"
                                  "      layers: [{type: dense, scope: l$(i), units: 6}]\n"
                                  "    - {reuse: tower}\n"
                                  "    - {type: dense, units: 10}\n"),
                              {{6}, 10});
  EXPECT_EQ(store.find("tower/l2/weights")->shape(), (Shape{6, 6}));
  EXPECT_EQ(m.layers.size(), 5U);
}

TEST(ModelTree, ScopeOfEachRound) {
  VariableStore store;
  build_model(store,
              job("    - {repeat: 2, scope: round$(i), layers: [{type: dense, units: 6}]}\n"
                  "    - {type: dense, units: 10}\n"),
              {{6}, 10});
  EXPECT_NE(store.find("round1/dense_1/weights"), nullptr);
  EXPECT_NE(store.find("round2/dense_1/weights"), nullptr);
}

TEST(ModelTree, LayersMayBeTrainedInAFrozenBlock) {
  VariableStore store;
  build_model(
      store,
      job("    - {trainable: false, layers: [{type: dense, scope: a, units: 6}, {type: dense, scope: b, "
          "units: 10, trainable: true}]}\n"),
      {{6}, 10});
  EXPECT_FALSE(store.find("a/weights")->trainable());
  EXPECT_TRUE(store.find("b/weights")->trainable());
}

TEST(ModelTree, DropoutsOfASharedBlockDrawMasksOfTheirOwn) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {scope: t, name: a, layers: [{type: dropout}]}\n"
                                  "    - {reuse: t, input: x, name: b}\n"
                                  "    - {type: absolute_difference, inputs: [a, b]}\n"
                                  "    - {type: dense, units: 10}\n"),
                              {{64}, 10});
  Session session(m.graph, 1);
  Tensor x(DType::float32, {1, 64});
  for (float& v : x.as<float>()) v = 1;
  const auto difference = m.graph.find("absolute_difference_1");
  ASSERT_TRUE(difference);
  const Tensor d = session.run({*difference}, {{m.x, x.view()}})[0].clone();
  EXPECT_TRUE(std::any_of(d.as<float>().begin(), d.as<float>().end(), [](float v) { return v != 0; }));
}

TEST(ModelTree, RegressionsHaveNoAccuracyButAnRmse) {
  VariableStore store;
  const JobConfig j = job("    - {type: dense, units: 1}\n", "  loss: mean_squared_error\n");
  const Model m = build_model(store, j, {{6}, 10});
  EXPECT_FALSE(m.correct);
  EXPECT_EQ(m.metrics.at(0).name, "rmse");
  EXPECT_EQ(build_model(store, j, {{6}, 10}, GraphMode::evaluate).metric_nodes.size(), 1U);
}

TEST(ModelTree, CounterIsReplacedInTextsOnly) {
  const ConfigNode node = read_yaml_text("{a$(i): \"x$(i)y$(i+10)\", b: [$(i-1), $(j), $(, $(ii)]}", "f");
  const ConfigNode out = with_counter(node, "i", 5);
  EXPECT_EQ(out.find("a$(i)")->scalar, "x5y15");
  EXPECT_EQ(out.find("b")->items[0].scalar, "4");
  EXPECT_EQ(out.find("b")->items[1].scalar, "$(j)");
  EXPECT_EQ(out.find("b")->items[2].scalar, "$(");
  EXPECT_EQ(out.find("b")->items[3].scalar, "$(ii)");
}

}  // namespace
}  // namespace varscope
