#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/base/philox.h"
#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/session.h"
#include "worker/layers/model.h"
#include "worker/ops/feature_ops.h"

// The layers that tables need: one_hot, embedding of bags, cross, factorization_machine, and pooling.
namespace varscope {
namespace {

using ::testing::HasSubstr;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;

// The layers' lines begin at line 6 of the file.
JobConfig job(const std::string& layers, const std::string& loss = "mean_squared_error") {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  loss: " + loss + "\n  layers:\n" + layers;
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

DataFacts features(std::int64_t width) { return {{width}, 10}; }

std::string error_of(const std::string& layers, const DataFacts& data) {
  VariableStore store;
  return thrown([&] { build_model(store, job(layers), data); });
}

Tensor random_rows(const Shape& shape) {
  Tensor t(DType::float32, shape);
  const RandomStream random(4, RandomPurpose::test, 1);
  for (std::size_t i = 0; i < t.as<float>().size(); ++i)
    t.as<float>()[i] = static_cast<float>(2 * random.uniform(i) - 1);
  return t;
}

// x0 * (x W + b) + x of one row.
std::vector<double> naive_cross(const std::vector<double>& x0, const std::vector<double>& x,
                                std::span<const float> w, std::span<const float> b) {
  std::vector<double> y;
  for (std::size_t c = 0; c < x.size(); ++c) {
    double sum = static_cast<double>(b[c]);
    for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * static_cast<double>(w[i * x.size() + c]);
    y.push_back(x0[c] * sum + x[c]);
  }
  return y;
}

TEST(CrossLayer, StacksByRepeat) {
  VariableStore store;
  const Model m =
      build_model(store,
                  job("    - {type: flatten, name: features}\n"
                      "    - repeat: 3\n"
                      "      layers:\n"
                      "        - {type: cross, inputs: [features, input], bias_initializer: 0.25}\n"
                      "    - {type: dense, units: 1}\n"),
                  {{2, 2}, 10});
  ASSERT_EQ(store.variables().size(), 8U);
  EXPECT_EQ(store.find("cross_3/weights")->shape(), (Shape{4, 4}));
  EXPECT_EQ(store.find("cross_3/bias")->shape(), (Shape{4}));
  EXPECT_THAT(m.layers[1].text, ::testing::StartsWith("cross_1: cross of 4, uniform("));
  EXPECT_EQ(m.layers[1].n_parameters, 20);
  Session session(m.graph, 3);
  const Tensor rows = random_rows({3, 2, 2});
  const NodeId last = *m.graph.find("cross_3/cross");
  const Tensor y = std::move(session.run({last}, {{m.x, rows.view()}})[0]);
  for (std::size_t row = 0; row < 3; ++row) {
    std::vector<double> x0;
    for (std::size_t c = 0; c < 4; ++c) x0.push_back(static_cast<double>(rows.as<float>()[row * 4 + c]));
    std::vector<double> x = x0;
    for (const char* name : {"cross_1", "cross_2", "cross_3"}) {
      x = naive_cross(x0, x, session.value(*store.find(std::string(name) + "/weights")).as<float>(),
                      session.value(*store.find(std::string(name) + "/bias")).as<float>());
    }
    for (std::size_t c = 0; c < 4; ++c) EXPECT_NEAR(y.as<float>()[row * 4 + c], x[c], 1e-6);
  }
}

TEST(CrossLayer, OfARankHasTwoMatrices) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: cross, scope: c, rank: 2, bias: false, name: crossed}\n"
                                  "    - {type: dense, units: 1}\n"),
                              features(5));
  EXPECT_EQ(store.find("c/projection")->shape(), (Shape{5, 2}));
  EXPECT_EQ(store.find("c/weights")->shape(), (Shape{2, 5}));
  EXPECT_EQ(store.find("c/bias"), nullptr);
  EXPECT_THAT(m.layers[0].text, ::testing::StartsWith("c: cross of 5, rank 2, no bias, uniform("));
  Session session(m.graph, 3);
  const Tensor rows = random_rows({1, 5});
  const Tensor y = std::move(session.run({*m.graph.find("c/cross")}, {{m.x, rows.view()}})[0]);
  const auto u = session.value(*store.find("c/projection")).as<float>(),
             v = session.value(*store.find("c/weights")).as<float>(), x = rows.as<float>();
  for (std::size_t c = 0; c < 5; ++c) {
    double sum = 0;
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::size_t r = 0; r < 2; ++r) sum += static_cast<double>(x[i] * u[i * 2 + r] * v[r * 5 + c]);
    }
    EXPECT_NEAR(y.as<float>()[c], static_cast<double>(x[c]) * (sum + 1), 1e-6);
  }
}

TEST(CrossLayer, NamesInputsThatDoNotFit) {
  EXPECT_THAT(
      error_of("    - {type: dense, units: 3, name: a}\n"
               "    - {type: cross, inputs: [x, a]}\n"
               "    - {type: dense, units: 1}\n",
               features(4)),
      HasSubstr("job.yaml:7:29: model.layers.1.inputs: cross multiplies its first input [?, 4] with what it "
                "makes of the second one [?, 3]; both must have the same shape"));
  EXPECT_THAT(error_of("    - {type: cross, inputs: [x, x, x]}\n", features(4)),
              HasSubstr("this layer takes 2 inputs, got 3"));
}

TEST(FactorizationMachineLayer, OfFeaturesHasFactors) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: factorization_machine, scope: fm, factors: 3, name: pairs}\n"
                                  "    - {type: dense, units: 1, input: x, name: linear}\n"
                                  "    - {type: add, inputs: [linear, pairs]}\n"),
                              features(6));
  EXPECT_EQ(store.find("fm/factors")->shape(), (Shape{6, 3}));
  EXPECT_EQ(m.graph.node(m.output).type.shape, (Shape{kAny, 1}));
  EXPECT_THAT(m.layers[0].text,
              ::testing::StartsWith("fm: factorization_machine of 6 features, 3 factors, "));
  EXPECT_EQ(m.layers[0].n_parameters, 18);
}

TEST(FactorizationMachineLayer, JoinsEmbeddedFields) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: dense, units: 3, scope: a, name: a}\n"
                                  "    - {type: dense, units: 6, scope: b, input: x}\n"
                                  "    - {type: reshape, shape: [2, 3], name: b}\n"
                                  "    - {type: factorization_machine, inputs: [a, b]}\n"),
                              features(4));
  EXPECT_EQ(store.variables().size(), 4U);
  EXPECT_EQ(m.layers[3].text, "factorization_machine: pairs of 3 fields of 3");
  Session session(m.graph, 3);
  const Tensor rows = random_rows({2, 4});
  const auto out =
      session.run({*m.graph.find("a/dense"), *m.graph.find("b/dense"), m.output}, {{m.x, rows.view()}});
  for (std::size_t row = 0; row < 2; ++row) {
    const float* a = out[0].as<float>().data() + row * 3;
    const float* b = out[1].as<float>().data() + row * 6;
    double expected = 0;
    for (std::size_t c = 0; c < 3; ++c)
      expected += static_cast<double>(a[c] * b[c] + a[c] * b[c + 3] + b[c] * b[c + 3]);
    EXPECT_NEAR(out[2].as<float>()[row], expected, 1e-6);
  }
}

TEST(FactorizationMachineLayer, SaysWhatIsMissingOrTooMuch) {
  EXPECT_THAT(
      error_of("    - {type: factorization_machine}\n", features(4)),
      HasSubstr(
          "job.yaml:6:7: model.layers.0.factors: missing; over features of shape [?, 4] the layer needs "
          "this key"));
  const std::string fields = "    - {type: dense, units: 6}\n    - {type: reshape, shape: [2, 3]}\n";
  EXPECT_THAT(
      error_of(fields + "    - {type: factorization_machine, factors: 3}\n", features(4)),
      HasSubstr("model.layers.2.factors: over embedded fields a factorization_machine has no variables; "
                "remove this key"));
  EXPECT_THAT(error_of(fields + "    - {type: factorization_machine, scope: fm}\n", features(4)),
              HasSubstr("model.layers.2.scope: over embedded fields"));
  EXPECT_THAT(error_of("    - {type: dense, units: 3, name: a}\n    - {type: dense, units: 2, name: b}\n"
                       "    - {type: factorization_machine, inputs: [a, b]}\n",
                       features(4)),
              HasSubstr("multiplies fields of the same width; got shapes [?, 3] and [?, 2]"));
  EXPECT_THAT(
      error_of("    - {type: factorization_machine, factors: 2}\n", {{2, 2, 2}, 10}),
      HasSubstr("takes features [?, width] or embedded fields [?, fields, units], got shape [?, 2, 2, 2]"));
}

TEST(GlobalPoolLayer, LeavesTheChannels) {
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: conv2d, filters: 3, kernel: [3]}\n"
                                  "    - {type: global_average_pool2d}\n"
                                  "    - {type: dense, units: 10}\n"),
                              {{6, 5}, 10});
  EXPECT_EQ(m.layers[1].text, "global_average_pool2d: [?, 6, 5, 3] -> [?, 3]");
  EXPECT_THAT(error_of("    - {type: global_average_pool2d}\n", features(4)),
              HasSubstr("needs images [?, height, width, channels], got shape [?, 4]"));
  EXPECT_THAT(error_of("    - {type: global_average_pool2d, window: 2}\n", {{6, 5}, 10}),
              HasSubstr("window"));
}

TEST(OneHotLayer, HasTheDtypeOfItsScope) {
  DataFacts data = features(2);
  data.features = Features::ids;
  VariableStore store;
  const Model m = build_model(store,
                              job("    - {type: one_hot, depth: 10}\n"
                                  "    - {type: dense, units: 1}\n"),
                              data);
  EXPECT_EQ(m.layers[0].text, "one_hot: [?, 2, 10]");
  VariableStore wide;
  const Model in_double = build_model(wide,
                                      job("    - {type: one_hot, depth: 10}\n"
                                          "    - {type: dense, units: 1}\n",
                                          "mean_squared_error\n  dtype: float64"),
                                      data);
  EXPECT_EQ(in_double.graph.node(*in_double.graph.find("one_hot")).type.dtype, DType::float64);
  EXPECT_THAT(error_of("    - {type: one_hot, depth: 9}\n    - {type: dense, units: 1}\n", data),
              HasSubstr("job.yaml:6:7: node \"one_hot\" has columns for 9 ids, but the samples have 10"));
  EXPECT_THAT(
      error_of("    - {type: embedding, vocabulary: 9, units: 2}\n    - {type: dense, units: 1}\n", data),
      HasSubstr("has rows for 9 ids, but the samples have 10"));
  EXPECT_THAT(error_of("    - {type: one_hot, depth: 10}\n", features(2)),
              HasSubstr("needs ids, int32 or int64, in \"x\", which is float32 [?, 2]"));
}

// A layer of its own, with the inputs that a source of bags would give it.
struct BagLayer {
  VariableStore store;
  Graph graph;
  LayerRegistry registry = LayerRegistry::built_in();
  NodeId ids = graph.placeholder("ids", DType::int64, {Shape::kRagged});
  NodeId offsets = graph.placeholder("offsets", DType::int64, {Shape::kBounds});
  NodeId weights = graph.placeholder("weights", DType::float32, {Shape::kRagged});
  LayerInfo build(const std::string& yaml, std::vector<NodeId> inputs) {
    const ConfigNode node = read_yaml_text(yaml, "job.yaml");
    const LayerType& type = registry.find(node, "job.yaml", "model.layers.0");
    return type.build(
        {graph, store, std::move(inputs), GraphMode::train, node, "job.yaml", "model.layers.0", 1});
  }
  std::string error(const std::string& yaml, const std::vector<NodeId>& inputs) {
    return thrown([&] { build(yaml, inputs); });
  }
};

TEST(EmbeddingLayer, CombinesBags) {
  BagLayer b;
  const LayerInfo plain =
      b.build("{type: embedding, scope: a, vocabulary: 5, units: 2, combiner: sum}", {b.ids, b.offsets});
  const LayerInfo weighted = b.build("{type: embedding, reuse: a, vocabulary: 5, units: 2, combiner: mean}",
                                     {b.ids, b.offsets, b.weights});
  EXPECT_EQ(b.store.variables().size(), 1U);
  EXPECT_THAT(plain.text, ::testing::StartsWith("a: embedding 5 -> 2, sum of bags, uniform("));
  EXPECT_EQ(weighted.text, "a: embedding 5 -> 2, mean of bags, shared");
  EXPECT_EQ(b.graph.node(plain.output).type, (TensorType{DType::float32, {kAny, 2}}));
  const Tensor ids = Tensor::of<std::int64_t>({3}, {4, 0, 4}),
               offsets = Tensor::of<std::int64_t>({3}, {0, 3, 3}),
               weights = Tensor::of<float>({3}, {1, 3, 0});
  Session session(b.graph, 3);
  const auto table = session.value(*b.store.find("a/embeddings")).as<float>();
  const auto out =
      session.run({plain.output, weighted.output},
                  {{b.ids, ids.view()}, {b.offsets, offsets.view()}, {b.weights, weights.view()}});
  for (std::size_t c = 0; c < 2; ++c) {
    const double four = static_cast<double>(table[8 + c]), zero = static_cast<double>(table[c]);
    EXPECT_NEAR(out[0].as<float>()[c], 2 * four + zero, 1e-6);
    EXPECT_NEAR(out[1].as<float>()[c], (four + 3 * zero) / 4, 1e-6);
    EXPECT_EQ(out[0].as<float>()[2 + c], 0);
  }
}

TEST(EmbeddingLayer, SaysWhatABagNeeds) {
  BagLayer b;
  const std::string keys = "type: embedding, vocabulary: 5, units: 2";
  EXPECT_EQ(
      b.error("{" + keys + "}", {b.ids, b.offsets}),
      "config: job.yaml:1:1: model.layers.0.combiner: missing; a bag of ids needs one: sum, mean or sqrtn");
  EXPECT_EQ(
      b.error("{" + keys + ", combiner: sum}", {b.ids}),
      "config: job.yaml:1:1: model.layers.0.inputs: embedding takes ids, or a bag: [ids, offsets] or [ids, "
      "offsets, weights]; got 1 input of a bag");
  EXPECT_EQ(
      b.error("{" + keys + ", combiner: sum}", {b.ids, b.offsets, b.weights, b.ids}),
      "config: job.yaml:1:1: model.layers.0.inputs: embedding takes one bag, and these are several: give each a "
      "layer of its own; with reuse they share rows");
  const NodeId one = b.graph.placeholder("one", DType::int32, {kAny});
  EXPECT_EQ(
      b.error("{" + keys + ", combiner: sum}", {one}),
      "config: job.yaml:1:54: model.layers.0.combiner: is for bags: inputs: [ids, offsets] or [ids, offsets, "
      "weights]. The ids here have shape [?]");
  EXPECT_THAT(b.error("{" + keys + ", combiner: average}", {b.ids, b.offsets}),
              HasSubstr("none, sum, mean, sqrtn"));
}

TEST(FactorizationMachineLayer, TakesBags) {
  BagLayer b;
  const LayerInfo info = b.build("{type: factorization_machine, scope: fm, factors: 3, vocabulary: 9}",
                                 {b.ids, b.offsets, b.weights});
  EXPECT_EQ(b.store.find("fm/factors")->shape(), (Shape{9, 3}));
  EXPECT_EQ(b.graph.node(info.output).type, (TensorType{DType::float32, {kAny, 1}}));
  EXPECT_THAT(info.text, ::testing::StartsWith("fm: factorization_machine of bags of 9 ids, 3 factors, "));
  EXPECT_EQ(
      b.error("{type: factorization_machine, factors: 3}", {b.ids, b.offsets}),
      "config: job.yaml:1:1: model.layers.0.vocabulary: missing; over bags the layer needs this key (an "
      "integer: number of ids), or table");
  EXPECT_EQ(b.error("{type: factorization_machine, vocabulary: 3}", {b.ids, b.offsets}),
            "config: job.yaml:1:1: model.layers.0.factors: missing; over bags the layer needs this key (an "
            "integer: numbers of each feature)");
  EXPECT_EQ(
      b.error("{type: factorization_machine, factors: 3, vocabulary: 9}", {b.ids}),
      "config: job.yaml:1:1: model.layers.0.inputs: a bag is [ids, offsets] or [ids, offsets, weights]; got "
      "1 input");
  const NodeId x = b.graph.placeholder("x", DType::float32, {kAny, 4});
  EXPECT_THAT(b.error("{type: factorization_machine, factors: 3, vocabulary: 9}", {x}),
              HasSubstr("model.layers.0.vocabulary: is for bags: inputs: [ids, offsets]"));
}

TEST(FeatureLayers, AreFoundByTheNamesOfOtherPrograms) {
  const auto error = [](const std::string& type) {
    return error_of("    - {type: " + type + ", units: 3}\n", features(4));
  };
  EXPECT_THAT(error("EmbeddingBag"), HasSubstr("did you mean \"embedding\""));
  EXPECT_THAT(error("CategoryEncoding"), HasSubstr("did you mean \"one_hot\""));
  EXPECT_THAT(error("fm"), HasSubstr("did you mean \"factorization_machine\""));
  EXPECT_THAT(error("GlobalAveragePooling2D"), HasSubstr("did you mean \"global_average_pool2d\""));
  EXPECT_THAT(error("dcn_v2"), HasSubstr("did you mean \"cross\""));
  EXPECT_THAT(error("crosss"), HasSubstr("did you mean \"cross\""));
  EXPECT_THAT(error_of("    - {type: dense, units: 3, activation: silu}\n", features(4)),
              HasSubstr("did you mean \"swish\""));
}

}  // namespace
}  // namespace varscope
