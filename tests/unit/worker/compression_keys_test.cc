// What the config says of compression, and which variables have it then.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/layers/model.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;
using testing::thrown;

// The model begins at line 3, its compression at line 4, and its layers at line 7.
JobConfig job(const std::string& compression, const std::string& layers, const std::string& rest = "") {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  compression: " + compression +
      "\n  loss: softmax_cross_entropy\n  layers:\n" + layers + rest;
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

const std::string kLayers =
    "    - {type: dense, scope: a, units: 40}\n"
    "    - {scope: b, compression: none, layers: [{type: dense, scope: c, units: 40}]}\n"
    "    - {type: dense, scope: d, units: 40, compression: {type: topk, ratio: 0.25, start_step: 7}}\n"
    "    - {type: dense, scope: out, units: 10}\n";

std::string refusal(const std::string& compression, const std::string& rest = "",
                    const std::string& layers = kLayers) {
  return thrown([&] {
    VariableStore store;
    build_model(store, job(compression, layers, rest), {{60}, 10});
  });
}

TEST(CompressionKeys, AreInheritedAndOverridden) {
  VariableStore store;
  build_model(store, job("{type: bf16, values: bf16}", kLayers), {{60}, 10});
  const auto of = [&](const char* name) { return store.find(name)->spec().compression.str(); };
  EXPECT_EQ(of("a/weights"), "bf16, bf16 values");
  EXPECT_EQ(of("a/bias"), "none");
  EXPECT_EQ(of("b/c/weights"), "none");
  EXPECT_EQ(of("d/weights"), "topk(0.25)");
  EXPECT_EQ(of("out/weights"), "none") << "1600 bytes are below min_bytes";
  EXPECT_EQ(store.find("d/weights")->spec().compression.start_step, 7);
}

TEST(CompressionKeys, MinBytesCountsTheWholeVariable) {
  const auto compressed = [](const char* bytes) {
    VariableStore store;
    build_model(store, job("{type: fp16, min_bytes: " + std::string(bytes) + "}", kLayers, ""), {{60}, 10});
    return store.find("out/weights")->spec().compression.exists();
  };
  EXPECT_TRUE(compressed("1600"));
  EXPECT_FALSE(compressed("1601"));
}

TEST(CompressionKeys, LeaveEmbeddingsFrozenWeightsAndAveragesAlone) {
  VariableStore store;
  build_model(store,
              job("{type: bf16, min_bytes: 0}",
                  "    - {type: dense, scope: frozen, units: 40, trainable: false}\n"
                  "    - {type: batch_norm, scope: n}\n"
                  "    - {type: dense, scope: out, units: 10}\n"),
              {{60}, 10});
  for (const Variable* v : store.variables())
    EXPECT_EQ(v->spec().compression.exists(), v->name() == "out/weights") << v->name();
  VariableStore words;
  build_model(words,
              job("{type: bf16, min_bytes: 0}",
                  "    - {type: embedding, scope: e, vocabulary: 30, units: 8}\n"
                  "    - {type: flatten}\n"
                  "    - {type: dense, scope: out, units: 10}\n"),
              {.sample_shape = Shape{6}, .n_classes = 10, .features = Features::ids});
  EXPECT_FALSE(words.find("e/embeddings")->spec().compression.exists());
  EXPECT_TRUE(words.find("out/weights")->spec().compression.exists());
}

TEST(CompressionKeys, WrongOnesAreNamedWithTheirLine) {
  EXPECT_THAT(refusal("zip"), HasSubstr("job.yaml:4:16: model.compression.type: "));
  EXPECT_THAT(refusal("{type: topk, ratio: 0}"), HasSubstr("job.yaml:4:"));
  EXPECT_THAT(refusal("{type: topk, ratio: 1.5}"), HasSubstr("model.compression.ratio"));
  EXPECT_THAT(refusal("{type: bf16, ratio: 0.5}"), HasSubstr("model.compression.ratio"));
  EXPECT_THAT(refusal("{type: bf16, start_step: -2}"), HasSubstr("model.compression.start_step"));
  EXPECT_THAT(refusal("[bf16]"), HasSubstr("expected a compression"));
}

TEST(CompressionKeys, SignsDoNotGoWithOptimizersThatDivideByGradients) {
  for (const std::string optimizer : {"adam", "adamw", "rmsprop"}) {
    for (const std::string type : {"onebit", "topk"}) {
      EXPECT_THAT(refusal(type, "optimizer: {type: " + optimizer + "}\n"),
                  HasSubstr("job.yaml:4:16: model.compression: " + type + (type == "topk" ? "(0.01)" : "") +
                            " (of variable \"a/weights\"): does not go with optimizer " + optimizer))
          << optimizer << " " << type;
    }
    EXPECT_THAT(
        refusal("bf16", "optimizer: {type: " + optimizer + "}\n"),
        HasSubstr("job.yaml:9:55: model.layers.2.compression: topk(0.25) (of variable \"d/weights\")"));
  }
  for (const char* optimizer : {"sgd", "momentum", "nesterov", "adagrad"})
    EXPECT_EQ(refusal("onebit", "optimizer: {type: " + std::string(optimizer) + "}\n"), "no error");
}

TEST(CompressionKeys, IsForFloat32AsYetAndForAnyConsistency) {
  for (const char* mode : {"{consistency: asp}", "{consistency: ssp, staleness: 1}"})
    EXPECT_EQ(refusal("bf16", "cluster: " + std::string(mode) + "\n"), "no error");
  EXPECT_THAT(refusal("fp16\n  dtype: float64"),
              HasSubstr("the variable is float64, and only float32 is compressed"));
}

TEST(CompressionKeys, ALayerThatSharesWeightsSaysTheSameOrNothing) {
  const std::string shared =
      "    - {type: dense, scope: a, units: 60}\n    - {type: dense, reuse: a, units: 60, compression: topk}\n";
  EXPECT_THAT(
      refusal("bf16", "", shared),
      HasSubstr("which has the compression bf16, not topk(0.01); say the same here, or leave it out"));
}

}  // namespace
}  // namespace varscope
