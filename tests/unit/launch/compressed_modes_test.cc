// Compression in every mode, with the real trainers.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "common/transport/step_traffic.h"
#include "launch/job/job_setup.h"
#include "launch/job/step_rules.h"
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
                   const std::string& more = "", int n_steps = 96) {
  return fmt::format(
      "job: {{name: t}}\n"
      "cluster: {{servers: {}, logical_workers: {}, drain_every_steps: 10, {}}}\n"
      "data: {{train: {{type: digits, samples: 450, size: 12}}, test: {{type: digits, samples: 100, size: 12}}}}\n"
      "model:\n  compression: {{{}, start_step: 2}}\n  loss: softmax_cross_entropy\n  layers:\n"
      "    - {{type: dense, scope: a, units: 40, activation: relu}}\n"
      "    - {{type: dense, scope: b, units: 10}}\n"
      "optimizer: {{type: momentum, learning_rate: 0.2, momentum: 0.5{}}}\n"
      "train: {{batch: 64, epochs: 100, max_steps: {}, eval_every_epochs: 3, log_every_steps: 8}}\n"
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

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
  std::string name =
      fmt::format("{}_{}_{}", kModes[info.param.mode], kTypes[info.param.type], info.param.values);
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
}

class CompressedModes : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, CompressedModes, ::testing::ValuesIn(cases()), name_of);

TEST_P(CompressedModes, Learn) {
  const TrainerJobResult result =
      run_trainers(config(kModes[GetParam().mode], compression_of(GetParam()), 4), 2);
  ASSERT_EQ(result.error, "");
  EXPECT_EQ(result.steps.size(), 96U);
  const auto loss = [](const BatchSums& s) { return s.loss / static_cast<double>(s.samples); };
  EXPECT_EQ(result.evaluations.size(), 4U);
  ASSERT_EQ(result.epochs.size(), 12U);
  EXPECT_LT(loss(result.epochs.back().sums), 0.75 * loss(result.epochs.front().sums));
  EXPECT_TRUE(result.notes.empty()) << result.notes.front();
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
      const auto loss = [](const TrainerJobResult& r) { return r.epochs.back().sums.loss; };
      EXPECT_LT(loss(free), 0.75 * loss(held)) << "so small a limit hardly moves: " << mode;
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
    text.replace(text.find("start_step: 2"), 13, "start_step: 0");
    text.replace(text.find("train: {batch"), 13, "train: {on_nan: warn, batch");
    EXPECT_THAT(run_trainers(text, 2).error, HasSubstr("so that it cannot be compressed")) << mode;
  }
}

std::vector<Case> reported_cases() {
  std::vector<Case> some = cases();
  std::erase_if(some, [](const Case& c) { return c.mode == 1 || c.mode == 2 || c.type == 2 || c.type == 4; });
  return some;
}

class CompressionReports : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Some, CompressionReports, ::testing::ValuesIn(reported_cases()), name_of);

// All data of dense variables is counted by who sends or receives it; of the last meeting nobody reports.
TEST_P(CompressionReports, SayTheBytesThatTravel) {
  const std::string text = config(kModes[GetParam().mode], compression_of(GetParam()), 4, "", 20);
  const TrainerJobResult result = run_trainers(text, 2);
  ASSERT_EQ(result.error, "");
  const CompressionReport& c = result.finish.compression;
  CompressionReport sum;
  for (const StepSummary& s : result.steps) sum += s.compression;
  EXPECT_EQ(c.up, sum.up);
  EXPECT_EQ(c.down, sum.down);
  const bool is_bsp = GetParam().mode == 0, is_lossy = GetParam().type >= 3;
  if (is_bsp) {
    EXPECT_EQ(c.up, static_cast<std::int64_t>(result.bytes_up));
  } else {
    EXPECT_LE(c.up, static_cast<std::int64_t>(result.bytes_up));
  }
  EXPECT_LE(c.down, static_cast<std::int64_t>(result.bytes_down));
  EXPECT_GT(c.down, static_cast<std::int64_t>(result.bytes_down) / 2);
  EXPECT_EQ(c.up < c.full_up, GetParam().type != 0 && (is_lossy || !is_bsp));
  EXPECT_EQ(c.down < c.full_down, std::string(GetParam().values) == "bf16");
  ASSERT_EQ(c.residuals.size(), is_lossy ? 1U : 0U) << "the other scope is too small to be compressed";
  if (!is_lossy) return;
  EXPECT_EQ(c.residuals[0].scope, "a");
  EXPECT_GT(c.residuals[0].ratio(), 0.1);
  int n_measured = 0;
  for (const StepSummary& s : result.steps) n_measured += s.compression.residuals.empty() ? 0 : 1;
  EXPECT_EQ(n_measured, 2) << "steps 8 and 16";
}

// More steps move what `varscope plan` says. Where each push is applied by itself, a worker's last push is
// answered by an ack or by values, as it knows by then that it is the last.
TEST_P(CompressionReports, AreOfTheBytesThatThePlanSays) {
  const std::string compression = compression_of(GetParam());
  const auto run = [&](int n_steps) {
    std::string text = config(kModes[GetParam().mode], compression, 4, "", n_steps);
    text.replace(text.find("eval_every_epochs: 3"), 20, "eval_every_epochs: 0");
    text.replace(text.find("samples: 450"), 12, "samples: 448");  // no short batch
    text.replace(text.find("drain_every_steps: 10"), 21, "drain_every_steps: 1000, settle_steps: 1");
    return run_trainers(text, 2);
  };
  const TrainerJobResult before = run(12), after = run(42);
  ASSERT_EQ(before.error + after.error, "");
  const JobConfig job =
      parse_job(read_yaml_text(config(kModes[GetParam().mode], compression, 4), "job.yaml"), "job.yaml");
  const auto model = load_worker_model(job, LayerRegistry::built_in());
  const ClusterMap cluster = assign_roles(std::vector<std::string>(4, "host"), 2, 4);
  const StepRule rule = step_rule_of(job, false);
  const StepTraffic plan = step_traffic(BucketPlan::make(model->table, 2, chunk_rule(rule)), cluster, rule);
  const auto up = static_cast<std::int64_t>(after.bytes_up - before.bytes_up),
             down = static_cast<std::int64_t>(after.bytes_down - before.bytes_down);
  // A worker that had no ticket since the last drain has nothing to send before the next.
  const bool may_be_idle = rule.is_dynamic() && GetParam().type >= 3;
  EXPECT_NEAR(static_cast<double>(up), static_cast<double>(30 * plan.up),
              may_be_idle ? static_cast<double>(plan.full_up) : 0);
  EXPECT_NEAR(static_cast<double>(down), static_cast<double>(30 * plan.down),
              rule.is_bsp() ? 0 : static_cast<double>(plan.down));
}

// A step that goes up in full has nothing to measure: the last one before it that does not is. Half of the
// steps between two drains settle.
TEST(NormsOfWhatIsKeptBack, AreOfTheLastStepThatKeepsSomethingBack) {
  for (const char* mode : {kModes[0], kModes[4]}) {
    std::string text = config(mode, "type: onebit", 2, "", 20);
    text.replace(text.find("log_every_steps: 8"), 18, "log_every_steps: 10");
    const TrainerJobResult result = run_trainers(text, 2);
    ASSERT_EQ(result.error, "");
    std::vector<std::int64_t> measured;
    for (const StepSummary& s : result.steps) {
      if (!s.compression.residuals.empty()) measured.push_back(s.clock.value);
    }
    EXPECT_EQ(measured, (std::vector<std::int64_t>{5, 15})) << mode;
  }
}

}  // namespace
}  // namespace varscope
