// Compression in every mode, with the real trainers.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/jobs/trainer_job.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;
using testing::run_trainers;
using testing::TrainerJobResult;

constexpr const char* kModes[] = {"consistency: bsp", "consistency: ssp, staleness: 1, dealing: static",
                                  "consistency: ssp, staleness: 1, dealing: dynamic",
                                  "consistency: asp, dealing: static", "consistency: asp, dealing: dynamic"};
constexpr const char* kTypes[] = {"none", "bf16", "fp16", "onebit", "topk, ratio: 0.05"};

// A perceptron for small digits. 450 samples in batches of 64, so that the last batch of an epoch leaves some
// leaves without samples.
std::string config(const std::string& mode, const std::string& compression, int n_leaves,
                   const std::string& more = "", int n_steps = 48) {
  return fmt::format(
      "job: {{name: t}}\n"
      "cluster: {{servers: {}, logical_workers: {}, drain_every_steps: 10, {}}}\n"
      "data: {{train: {{type: digits, samples: 450, size: 12}}, test: {{type: digits, samples: 100, size: 12}}}}\n"
      "model:\n  compression: {{{}, start_step: 2}}\n  loss: softmax_cross_entropy\n  layers:\n"
      "    - {{type: dense, scope: a, units: 40, activation: relu}}\n"
      "    - {{type: dense, scope: b, units: 10}}\n"
      "optimizer: {{type: momentum, learning_rate: 0.2, momentum: 0.5{}}}\n"
      "train: {{batch: 64, epochs: 100, max_steps: {}, eval_every_epochs: 3}}\n"
      "checkpoint: {{every_steps: 0, at_end: false}}\n",
      n_leaves == 1 ? 1 : 2, n_leaves, mode, compression, more, n_steps);
}

struct Case {
  int mode, type;
  const char* values;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int mode = 0; mode < 5; ++mode) {
    for (int type = 0; type < 5; ++type) {
      for (const char* values : {"full", "bf16"}) all.push_back({mode, type, values});
    }
  }
  return all;
}

std::string compression_of(const Case& c) {
  return fmt::format("type: {}, values: {}", kTypes[c.type], c.values);
}

class CompressedModes : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, CompressedModes, ::testing::ValuesIn(cases()), [](const auto& info) {
  std::string name =
      fmt::format("{}_{}_{}", kModes[info.param.mode], kTypes[info.param.type], info.param.values);
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
});

TEST_P(CompressedModes, Learn) {
  const TrainerJobResult result =
      run_trainers(config(kModes[GetParam().mode], compression_of(GetParam()), 4), 2);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.steps.size(), 48U);
  const auto loss = [](const BatchSums& s) { return s.loss / static_cast<double>(s.samples); };
  ASSERT_EQ(result.evaluations.size(), 3U);
  EXPECT_LT(loss(result.evaluations.back().sums), 0.8 * loss(result.evaluations.front().sums));
}

// One worker with one leaf: each push is a step, and what is kept back goes up with a step's gradient.
TEST_P(CompressedModes, OfOneWorkerAloneHaveTheBitsOfBsp) {
  const std::string compression = compression_of(GetParam());
  const TrainerJobResult mine = run_trainers(config(kModes[GetParam().mode], compression, 1, "", 24), 1);
  ASSERT_EQ(mine.error, "");
  static std::map<std::string, std::string> of_bsp;
  if (GetParam().mode == 0) of_bsp[compression] = mine.hash;
  std::string& expected = of_bsp[compression];
  if (expected.empty()) expected = run_trainers(config(kModes[0], compression, 1, "", 24), 1).hash;
  EXPECT_EQ(mine.hash, expected);
}

// A worker clips what it has before it is coded.
TEST(CompressedModesThatClip, LearnAndAreHeldToTheLimit) {
  for (const char* type : {"bf16", "onebit"}) {
    for (const char* mode : {kModes[2], kModes[3]}) {
      const std::string compression = fmt::format("type: {}", type);
      const TrainerJobResult free = run_trainers(config(mode, compression, 4), 2);
      const TrainerJobResult held =
          run_trainers(config(mode, compression, 4, ", clip: {type: global_norm, limit: 0.001}"), 2);
      ASSERT_EQ(free.error + held.error, "");
      const auto loss = [](const TrainerJobResult& r) { return r.evaluations.back().sums.loss; };
      EXPECT_LT(loss(free), 0.8 * loss(held)) << "so small a limit hardly moves: " << mode;
      const TrainerJobResult wide =
          run_trainers(config(mode, compression, 1, ", clip: {type: global_norm, limit: 1e6}", 12), 1);
      EXPECT_EQ(wide.hash, run_trainers(config(mode, compression, 1, "", 12), 1).hash) << mode;
    }
  }
}

TEST(CompressedModesThatAreNotFinite, EndWithTheVariablesName) {
  for (const char* mode : {kModes[1], kModes[4]}) {
    std::string text = config(mode, "type: onebit", 2);
    text.replace(text.find("learning_rate: 0.2"), 18, "learning_rate: 1e30");
    EXPECT_THAT(run_trainers(text, 2).error, HasSubstr("so that it cannot be compressed")) << mode;
  }
}

}  // namespace
}  // namespace varscope
