#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "common/config/yaml_reader.h"
#include "worker/graph/session.h"
#include "worker/layers/activation_names.h"
#include "worker/layers/initializer_config.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

constexpr const char* kHead =
    "job: {name: t}\n"
    "data: {train: {type: digits}}\n"
    "model:\n";

JobConfig job(const std::string& model) {
  return parse_job(read_yaml_text(kHead + model, "job.yaml"), "job.yaml");
}

// The model's lines begin at line 4 of the file.
constexpr const char* kMlp =
    "  loss: softmax_cross_entropy\n"
    "  layers:\n"
    "    - {type: flatten}\n"
    "    - type: dense\n"
    "      scope: hidden1\n"
    "      units: 7\n"
    "      activation: relu\n"
    "    - {type: dense, units: 10}\n";

void expect_error(const std::string& model, std::initializer_list<const char*> words,
                  const Shape& sample = {4, 4}, std::int64_t n_classes = 10) {
  try {
    VariableStore store;
    build_model(store, job(model), {sample, n_classes});
    ADD_FAILURE() << "no error; expected " << *words.begin();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config);
    for (const char* word : words) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << word << " in: " << e.what();
    }
  }
}

TEST(BuildModel, MakesVariablesUnderTheLayersScopes) {
  VariableStore store;
  const Model m = build_model(store, job(kMlp), {{4, 4}, 10});
  ASSERT_EQ(store.variables().size(), 4U);
  const Variable* w = store.find("hidden1/weights");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->shape(), (Shape{16, 7}));
  EXPECT_EQ(w->scope(), "hidden1");
  EXPECT_EQ(w->spec().initializer, Initializer::glorot_uniform({16, 7}));
  EXPECT_EQ(w->made_at().find("job.yaml:7"), 0U) << w->made_at();
  EXPECT_EQ(store.find("hidden1/bias")->spec().initializer, Initializer::constant(0));
  EXPECT_EQ(store.find("dense_2/weights")->shape(), (Shape{7, 10}));
  EXPECT_EQ(m.graph.node(m.x).type.shape, (Shape{Shape::kUnknown, 4, 4}));
  EXPECT_EQ(m.graph.node(m.output).type.shape, (Shape{Shape::kUnknown, 10}));
  EXPECT_EQ(m.n_parameters(), 16 * 7 + 7 + 7 * 10 + 10);
  EXPECT_EQ(m.flops_per_sample(), 2 * (16 * 7 + 7 * 10));
  EXPECT_EQ(m.layers[1].text, "hidden1: dense 16 -> 7, relu, uniform(-0.5108, 0.5108); 119 parameters");
  EXPECT_EQ(m.explain().find("x: float32 [?, 4, 4]\nflatten: [?, 16]\nhidden1: dense 16"), 0U) << m.explain();
}

TEST(BuildModel, DenseFlattensByItself) {
  VariableStore store;
  const Model m = build_model(
      store, job("  loss: softmax_cross_entropy\n  layers: [{type: dense, units: 10}]\n"), {{2, 3, 4}, 10});
  EXPECT_EQ(store.find("dense_1/weights")->shape(), (Shape{24, 10}));
  EXPECT_EQ(m.layers.size(), 1U);
}

TEST(BuildModel, InitializersByNameMapAndNumber) {
  VariableStore store;
  build_model(
      store,
      job("  loss: softmax_cross_entropy\n"
          "  dtype: float64\n"
          "  initializer: he_normal\n"
          "  layers:\n"
          "    - {type: dense, scope: a, units: 4}\n"
          "    - {type: dense, scope: b, units: 5, initializer: {type: uniform, low: -0.5, high: 0.25}, "
          "bias_initializer: 0.125}\n"
          "    - {type: dense, scope: c, units: 6, initializer: fan_in_uniform, bias_initializer: "
          "fan_in_uniform}\n"
          "    - {type: dense, scope: d, units: 10, bias: false, trainable: false, initializer: {type: "
          "normal, stddev: 0.5}}\n"),
      {{9}, 10});
  const auto of = [&](const char* name) { return store.find(name)->spec().initializer; };
  EXPECT_EQ(of("a/weights"), Initializer::he_normal({9, 4}));
  EXPECT_EQ(of("b/weights"), Initializer::uniform(-0.5, 0.25));
  EXPECT_EQ(of("b/bias"), Initializer::constant(0.125));
  EXPECT_EQ(of("c/weights"), Initializer::fan_in_uniform(5));
  EXPECT_EQ(of("c/bias"), Initializer::fan_in_uniform(5)) << "the layer's fan-in, not the bias's";
  EXPECT_EQ(of("d/weights"), Initializer::normal(0, 0.5));
  EXPECT_EQ(store.find("d/bias"), nullptr);
  EXPECT_FALSE(store.find("d/weights")->trainable());
  EXPECT_TRUE(store.find("c/weights")->trainable());
  EXPECT_EQ(store.find("a/weights")->dtype(), DType::float64);
}

TEST(BuildModel, LayersShareVariablesOnRequest) {
  VariableStore store;
  const Model m = build_model(store,
                              job("  loss: softmax_cross_entropy\n"
                                  "  layers:\n"
                                  "    - {type: dense, scope: a, units: 10}\n"
                                  "    - {type: dense, scope: b, units: 10}\n"
                                  "    - {type: dense, reuse: b, units: 10}\n"
                                  "    - {type: dense, scope: b, reuse: auto, units: 10}\n"),
                              {{6}, 10});
  EXPECT_EQ(store.variables().size(), 4U);
  EXPECT_EQ(m.layers[2].scope, "b");
  expect_error(
      "  loss: softmax_cross_entropy\n"
      "  layers:\n"
      "    - {type: dense, scope: a, units: 10}\n"
      "    - {type: dense, scope: a, units: 10}\n",
      {"job.yaml:7:", "model.layers.1.scope", "\"a\" is another layer's", "job.yaml:6", "reuse: a"}, {6});
  expect_error(
      "  loss: softmax_cross_entropy\n"
      "  layers:\n"
      "    - {type: dense, scope: a, units: 10}\n"
      "    - {type: dense, reuse: a, units: 10}\n",
      {"job.yaml:7:", "model.layers.1", "a/weights", "shape", "[6, 10]", "[10, 10]"}, {6});
}

TEST(BuildModel, GradientsOfEveryLayerMatchDifferences) {
  VariableStore store;
  const Model m = build_model(store,
                              job("  loss: softmax_cross_entropy\n"
                                  "  dtype: float64\n"
                                  "  layers:\n"
                                  "    - {type: activation, kind: softplus}\n"
                                  "    - {type: flatten}\n"
                                  "    - {type: dense, units: 5, activation: gelu}\n"
                                  "    - {type: dense, units: 5, activation: tanh, bias: false}\n"
                                  "    - {type: dense, reuse: dense_2, units: 5, bias: false}\n"
                                  "    - {type: activation, kind: leaky_relu}\n"
                                  "    - {type: dense, units: 3, bias_initializer: fan_in_uniform}\n"),
                              {{2, 3}, 3});
  const Tensor x(DType::float64, {3, 2, 3});
  for (std::size_t i = 0; i < 18; ++i) x.as<double>()[i] = 0.1 * static_cast<double>(i) - 0.8;
  const Tensor y = Tensor::of<std::int32_t>({3}, {2, 0, 1});
  const Feeds feeds{{m.x, x.view()}, {m.y, y.view()}};
  Session session(m.graph, 4);
  const auto gradients = session.gradients(m.loss, feeds);
  ASSERT_EQ(gradients.size(), store.variables().size());
  for (const Variable* v : store.variables()) {
    const auto values = session.value(*v).as<double>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double kept = values[i];
      const auto loss_at = [&](double value) {
        values[i] = value;
        return session.run({m.loss}, feeds)[0].as<double>()[0];
      };
      const double numeric = (loss_at(kept + 1e-5) - loss_at(kept - 1e-5)) / 2e-5;
      values[i] = kept;
      EXPECT_NEAR(gradients.at(v->name()).as<double>()[i], numeric, 1e-6 * std::max(0.01, std::abs(numeric)))
          << v->name() << "[" << i << "]";
    }
  }
}

TEST(BuildModel, ErrorsGivePositionAndBothNumbers) {
  expect_error("  loss: softmax_cross_entropy\n  layers:\n    - type: dense\n      units: 12\n",
               {"job.yaml:7:14:", "model.layers.0.units", "12 outputs", "10 classes"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dense}]\n",
               {"job.yaml:5:", "units", "missing"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dens, units: 10}]\n",
               {"job.yaml:5:19:", "unknown layer type \"dens\"", "did you mean \"dense\"", "flatten"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dense, units: 10, activation: rellu}]\n",
               {"job.yaml:5:", "rellu", "relu"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dense, unit: 10}]\n",
               {"job.yaml:5:", "unit"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dense, units: 0}]\n",
               {"job.yaml:5:", "units"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: dense, units: 10, scope: 'a b'}]\n",
               {"job.yaml:5:", "model.layers.0", "a b"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: activation, kind: relu}]\n",
               {"job.yaml:5:", "[?, 4, 4]", "dense"});
  expect_error("  loss: softmax_cross_entropy\n  layers: [{type: activation}]\n", {"job.yaml:5:", "kind"});
  expect_error("  loss: sigmoid_cross_entropy\n  layers: [{type: dense, units: 2}]\n",
               {"job.yaml:5:", "2 outputs", "needs 1"}, {4}, 2);
  expect_error("  loss: sigmoid_cross_entropy\n  layers: [{type: dense, units: 1}]\n",
               {"3 classes", "softmax_cross_entropy"}, {4}, 3);
  expect_error("  loss: mean_squared_error\n  layers: [{type: dense, units: 4}]\n",
               {"4 outputs", "10 classes"});
}

TEST(BuildModel, InitializerErrorsGivePositions) {
  const auto with = [](const std::string& initializer) {
    return "  loss: softmax_cross_entropy\n  layers: [{type: dense, units: 10, initializer: " + initializer +
           "}]\n";
  };
  expect_error(with("glorot"), {"job.yaml:5:", "model.layers.0.initializer", "glorot_uniform"});
  expect_error(with("{type: uniform, low: 1, high: 0}"), {"low 1 is above high 0"});
  expect_error(with("{type: uniform, low: 1}"), {"high", "missing"});
  expect_error(with("{type: zeros, low: 1}"), {"low"});
  expect_error(with("[1, 2]"), {"expected an initializer", "a list"});
}

TEST(BuildModel, OtherLossesBuild) {
  VariableStore a;
  build_model(a, job("  loss: sigmoid_cross_entropy\n  layers: [{type: dense, units: 1}]\n"), {{4}, 2});
  VariableStore b;
  build_model(b, job("  loss: mean_squared_error\n  layers: [{type: dense, units: 10}]\n"), {{4}, 10});
  VariableStore c;
  const Model m =
      build_model(c, job("  loss: mean_squared_error\n  layers: [{type: dense, units: 1}]\n"), {{4}, 10});
  EXPECT_EQ(m.graph.node(m.loss).name, "loss");
}

TEST(BuildModel, LossesForNumbers) {
  VariableStore store;
  const Model huber = build_model(
      store, job("  loss: {type: huber, delta: 2.5, reduction: sum}\n  layers: [{type: dense, units: 1}]\n"),
      {{4}, 10});
  EXPECT_STREQ(huber.graph.node(huber.loss).op->type(), "huber");
  expect_error("  loss: {type: huber, delta: 0}\n  layers: [{type: dense, units: 1}]\n",
               {"job.yaml:4:30: model.loss.delta", "more than 0"}, {4});
  expect_error("  loss: {type: mean_squared_error, delta: 2}\n  layers: [{type: dense, units: 1}]\n",
               {"model.loss.delta", "huber"}, {4});
  expect_error("  loss: smooth_l1\n  layers: [{type: dense, units: 1}]\n", {"did you mean \"huber\""}, {4});
  expect_error("  loss: poisson\n  layers: [{type: dense, units: 10}]\n",
               {"job.yaml:5:", "units", "the last layer has 10 outputs; loss poisson needs 1"}, {4});
  expect_error("  loss: softmax_cross_entropy\n  target: input\n  layers: [{type: dense, units: 4}]\n",
               {"mean_squared_error, absolute_error, huber, poisson or sigmoid_cross_entropy"}, {4});
}

// With poisson the outputs are logarithms; metrics compare what is predicted.
TEST(BuildModel, MetricsOfNumbers) {
  for (const char* loss : {"huber", "poisson"}) {
    SCOPED_TRACE(loss);
    const JobConfig config = job(std::string("  loss: ") + loss +
                                 "\n  layers: [{type: dense, units: 1, initializer: 0.5}]\n"
                                 "train: {metrics: [rmse, mae, r2]}\n");
    VariableStore store;
    build_model(store, config, {{2}, 10});
    const Model m = build_model(store, config, {{2}, 10}, GraphMode::evaluate);
    const Tensor x = Tensor::of<float>({3, 2}, {0, 1, 1, 1, 2, 2}),
                 y = Tensor::of<std::int32_t>({3}, {1, 2, 7});
    Session session(m.graph, 1);
    const auto sums = session.run(m.metric_nodes, {{m.x, x.view()}, {m.y, y.view()}});
    double squares = 0, absolute = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const double output = std::vector{0.5, 1.0, 2.0}[i], t = std::vector{1.0, 2.0, 7.0}[i];
      const double error = (std::string(loss) == "poisson" ? std::exp(output) : output) - t;
      squares += error * error;
      absolute += std::abs(error);
    }
    EXPECT_NEAR(sums[0].as<double>()[0], squares, 1e-5);
    EXPECT_NEAR(sums[1].as<double>()[0], absolute, 1e-5);
    std::vector<double> reals;
    const EvaluationSpec spec = m.evaluation_spec();
    std::vector<double> batch{sums[0].as<double>()[0], sums[1].as<double>()[0]};
    for (const double v : sums[2].as<double>()) batch.push_back(v);
    merge_reals(spec, reals, batch);
    const auto values = metric_values(spec, {0, 0, 3}, {}, reals);
    EXPECT_NEAR(values[0].value, std::sqrt(squares / 3), 1e-6);
    EXPECT_NEAR(values[1].value, absolute / 3, 1e-6);
    EXPECT_NEAR(values[2].value, 1 - squares / (62.0 / 3), 1e-6);  // around 10/3: 49/9 + 16/9 + 121/9
  }
}

TEST(BuildModel, R2HasALimitOfElements) {
  const std::string model =
      "  loss: mean_squared_error\n  target: input\n  layers: [{type: dense, units: 4097}]\n"
      "train: {metrics: [r2]}\n";
  expect_error(model,
               {"job.yaml:7:19: train.metrics.0",
                "metric \"r2\" has sums for each element of a target; 4097 are more "
                "than the 4096 it is made for"},
               {4097});
}

TEST(Layers, AreAllExplained) {
  const LayerRegistry registry = LayerRegistry::built_in();
  const std::string text = registry.explain();
  for (const LayerType& type : registry.types()) EXPECT_NE(text.find(type.name), std::string::npos);
  for (const char* key : {"units", "bias_initializer", "reuse", "kind", "repeat", "partitioner", "max_norm"})
    EXPECT_NE(text.find(key), std::string::npos) << text;
}

TEST(Activation, HasOneNameInYamlAndInGraphs) {
  for (const Activation f : kActivations) EXPECT_STREQ(choice_name(kActivationNames, f), to_string(f));
}

}  // namespace
}  // namespace varscope
