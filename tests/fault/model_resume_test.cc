// Every kind of layer and every option of the optimizer keeps the promise of BSP: the final values' hash
// depends neither on the number of servers and workers nor on an interruption. And every bundled config
// resumes bit for bit.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr std::int64_t kSteps = 9;
constexpr std::int64_t kFirst = 4;

struct Cluster {
  int servers, workers;  // no workers: one process
};

Summary train_on(const Cluster& c, const std::string& config, const std::string& run_dir, std::int64_t steps,
                 const Args& more) {
  const Args args = Args{"train", config} +
                    set({"job.run_dir=" + run_dir, "cluster.servers=" + std::to_string(c.servers),
                         "train.max_steps=" + std::to_string(steps), "output.metrics=false"}) +
                    more;
  return train(c.workers == 0 ? varscope(args) : mpirun(c.servers + c.workers, args));
}

std::string hash_on(const Cluster& c, const std::string& config, const Args& more) {
  SCOPED_TRACE(::testing::Message() << c.servers << " servers, " << c.workers << " workers");
  const ScratchDir dir;
  return train_on(c, config, dir / "run", kSteps, more).hash;
}

std::string hash_in_two_parts(const Cluster& first, const Cluster& second, const std::string& config,
                              const Args& more) {
  SCOPED_TRACE(::testing::Message() << first.servers << "+" << first.workers << " then " << second.servers
                                    << "+" << second.workers);
  const ScratchDir dir;
  const Summary a = train_on(first, config, dir / "run", kFirst, more);
  const Summary b = train_on(second, config, dir / "run", kSteps, more + Args{"--resume"});
  EXPECT_EQ(b.first_step, kFirst);
  EXPECT_NE(a.hash, b.hash) << "the second part has changed nothing";
  return b.hash;
}

// --- every layer and option, on four logical workers

struct ModelCase {
  const char* name;
  const char* model;  // layers, loss
  const char* rest = "optimizer: {type: momentum, learning_rate: 0.02}\n";
  const char* data = "{type: digits, samples: 200}";
};

constexpr const char* kDigitsOutput = "    - {type: dense, units: 10}\n  loss: softmax_cross_entropy\n";

const ModelCase kCases[] = {
    {"BatchNormAndDropout",
     "    - {type: dense, units: 12, activation: relu}\n    - {type: batch_norm, momentum: 0.8}\n"
     "    - {type: dropout, rate: 0.3}\n"},
    {"Convolutions",
     "    - {type: conv2d, filters: 4, kernel: [3], activation: relu}\n    - {type: batch_norm}\n"
     "    - {type: max_pool2d}\n    - {type: average_pool2d}\n"},
    {"ImagesAsSequences", "    - {type: lstm, units: 6}\n    - {type: gru, units: 5}\n"},
    {"PartsAndPenalties",
     "    - scope: body\n      partitioner: {type: fixed_size, parts: 3}\n"
     "      regularizer: {type: l1_l2, l1: 0.0001, l2: 0.001}\n"
     "      layers: [{type: dense, units: 9, activation: tanh}, {type: layer_norm}]\n"},
    {"NormsOfEveryKind",
     "    - {type: dense, units: 9, activation: tanh, constraint: {type: max_norm, limit: 0.5}}\n"
     "    - {type: dense, units: 9, constraint: unit_norm}\n    - {type: dense, units: 8, constraint: "
     "non_neg}\n",
     "optimizer: {type: adam, learning_rate: 0.02, clip: {type: global_norm, limit: 0.5},\n"
     "            schedule: {type: cosine, decay_steps: 20, warmup_steps: 3}}\n"},
    {"Repeats",
     "    - repeat: 3\n      layers: [{type: dense, scope: deep$(i), units: 8, activation: gelu}]\n",
     "optimizer: {type: adamw, learning_rate: 0.01, weight_decay: 0.01, clip: {type: norm, limit: 0.1},\n"
     "            schedule: {type: exponential, decay_steps: 5, rate: 0.5}}\n"},
};

std::string config_of(const ModelCase& c, const ScratchDir& dir) {
  const std::string text = std::string("job: {name: ") + c.name +
                           "}\ncluster: {logical_workers: 4}\ndata:\n  train: " + c.data +
                           "\n  test: " + c.data + "\nmodel:\n  layers:\n" + c.model + kDigitsOutput +
                           c.rest + "train: {epochs: 3, batch: 40, eval_every_epochs: 1, eval_batch: 64}\n";
  write_text(dir / "job.yaml", text);
  return dir / "job.yaml";
}

class EveryModel : public ::testing::TestWithParam<ModelCase> {};

TEST_P(EveryModel, HasTheSameBitsOnEveryClusterAndAfterAnInterruption) {
  const ScratchDir dir;
  const std::string config = config_of(GetParam(), dir);
  const std::string one = hash_on({1, 0}, config, {});
  EXPECT_EQ(hash_on({3, 2}, config, {}), one);
  EXPECT_EQ(hash_on({2, 4}, config, {}), one);
  EXPECT_EQ(hash_in_two_parts({1, 2}, {2, 1}, config, {}), one);
}

INSTANTIATE_TEST_SUITE_P(Models, EveryModel, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// --- the bundled configs

struct BundledCase {
  const char* name;
  Args more;
  bool needs_text = false;
};

class Bundled : public ::testing::TestWithParam<BundledCase> {};

TEST_P(Bundled, ResumesBitForBit) {
  const BundledCase& c = GetParam();
  const char* data = std::getenv("VARSCOPE_DATA");
  const std::string file =
      c.needs_text ? "text8/text8.split.head" : "fashion-mnist/train-images-idx3-ubyte.gz";
  if (data == nullptr || !std::filesystem::exists(std::string(data) + "/" + file))
    GTEST_SKIP() << "needs VARSCOPE_DATA with " << file;
  const std::string config = config_file(std::string(c.name) + ".yaml");
  const Args more = c.more + set({"cluster.logical_workers=2", "train.eval_every_epochs=0"});
  const std::string whole = hash_on({1, 2}, config, more);
  EXPECT_EQ(hash_in_two_parts({1, 2}, {2, 1}, config, more), whole);
  EXPECT_EQ(hash_in_two_parts({2, 1}, {1, 2}, config, more), whole);
}

const Args kFewImages = set({"data.train.samples=800", "data.test.samples=100", "train.batch=40"});
INSTANTIATE_TEST_SUITE_P(
    Configs, Bundled,
    ::testing::Values(BundledCase{"fashion_cnn", kFewImages}, BundledCase{"autoencoder", kFewImages},
                      BundledCase{"siamese", kFewImages},
                      BundledCase{"text8_lstm", set({"data.train.words=6000", "train.batch=6"}), true},
                      BundledCase{"text8_word2vec", set({"data.train.words=6000", "train.batch=512"}), true}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace varscope::testing
