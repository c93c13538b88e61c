// How a run tells of what compression saves and keeps back: metrics file, TensorBoard, terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "common/config/yaml_reader.h"
#include "common/placement/cluster.h"
#include "launch/observe/metrics_file.h"
#include "launch/observe/tensorboard.h"
#include "launch/observe/terminal.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/event_reader.h"

namespace varscope {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::make_variable;
using ::testing::Not;
using testing::slurp;
using testing::TempDir;

JobConfig job_in(const std::string& run_dir) {
  return parse_job(
      read_yaml_text("job: {name: t, run_dir: " + run_dir +
                         "}\ndata: {train: {type: digits}}\n"
                         "model: {layers: [{type: dense, units: 10}], loss: softmax_cross_entropy}\n"
                         "optimizer: {type: sgd, learning_rate: 0.5}\n"
                         "train: {epochs: 1, batch: 8, log_every_steps: 2}\noutput: {progress: off}\n",
                     "job.yaml"),
      "job.yaml");
}

VariableTable variables_with(const Compression& compression) {
  VariableSpec v = make_variable("dense/weights", DType::float32, {64, 100});
  v.compression = compression;
  return VariableTable({v});
}

// A step of 100 bytes up of 400, 300 down of 600; norms of 3 and 2 where they are measured.
StepSummary step_of(std::int64_t step, bool is_measured) {
  StepSummary s{Clock(step), 1, {.loss = 2, .correct = 1, .samples = 2}, {}};
  s.compression = {.up = 100, .down = 300, .full_up = 400, .full_down = 600, .residuals = {}};
  if (is_measured) s.compression.add("dense", 9, 4);
  return s;
}

class CompressionOutput : public ::testing::Test {
 protected:
  json last_line() const {
    std::istringstream in(slurp(job.run_dir() + "/metrics.jsonl"));
    std::string line, last;
    while (std::getline(in, line)) last = line;
    return json::parse(last);
  }
  RunFacts facts_of(const VariableTable& table) const {
    return {job,   cluster, table, {"n1", "n1", "n1", "n1"}, TrainPlan{Clock(0), Clock(40), 20}, 8, 4,
            "run", 1,       ""};
  }
  static FinishSummary finish() {
    FinishSummary f{Clock(4), {}, {}};
    f.compression = {.up = 200, .down = 600, .full_up = 800, .full_down = 1200, .residuals = {}};
    f.compression.add("dense", 9, 4);
    f.compression.add("other", 1, 4);
    return f;
  }

  TempDir dir;
  JobConfig job = job_in(dir / "run");
  ClusterMap cluster = assign_roles({"n1", "n1", "n1", "n1"}, 2, 2);
  VariableTable compressed = variables_with({.type = CodecType::onebit}), plain = variables_with({});
};

TEST_F(CompressionOutput, MetricsHaveItInTheLinesOfStepsAndAtTheEnd) {
  std::filesystem::create_directories(job.run_dir());
  const RunFacts facts = facts_of(compressed);
  MetricsFile file(facts);
  file.on_step(step_of(1, true));
  file.on_step(step_of(2, false));
  EXPECT_EQ(last_line()["compression"],
            json::parse(R"({"bytes_up": 200, "bytes_down": 600, "up": 0.25, "down": 0.5,
                            "residual": {"dense": 1.5}})"));
  file.on_step(step_of(3, false));
  file.on_step(step_of(4, false));
  EXPECT_EQ(last_line()["compression"],
            json::parse(R"({"bytes_up": 200, "bytes_down": 600, "up": 0.25, "down": 0.5})"))
      << "of the time since the last line";
  file.on_finish(finish());
  EXPECT_EQ(last_line()["compression"]["residual"], json::parse(R"({"dense": 1.5, "other": 0.5})"));
}

TEST_F(CompressionOutput, IsNotThereWhereNothingIsCompressed) {
  std::filesystem::create_directories(job.run_dir());
  const RunFacts facts = facts_of(plain);
  MetricsFile file(facts);
  file.on_step(step_of(2, true));
  EXPECT_FALSE(last_line().contains("compression"));
  file.on_finish(finish());
  EXPECT_FALSE(last_line().contains("compression"));
  ::testing::internal::CaptureStdout();
  Terminal(facts).on_finish(finish());
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), Not(HasSubstr("  compression")));
}

struct NoWarnings final : RunObserver {
  void on_warning(const std::string& what) override { ADD_FAILURE() << what; }
};

TEST_F(CompressionOutput, TensorBoardHasItsScalars) {
  const RunFacts facts = facts_of(compressed);
  const TransportStats traffic;
  NoWarnings warnings;
  {
    TensorBoard board(facts, traffic, warnings);
    board.on_step(step_of(1, true));
    board.on_step(step_of(2, false));
  }
  std::map<std::string, float> scalars;
  for (const auto& entry : std::filesystem::directory_iterator(tensorboard_dir(job))) {
    for (const testing::ReadEvent& e : testing::read_events(slurp(entry.path().string())))
      scalars.insert(e.scalars.begin(), e.scalars.end());
  }
  EXPECT_EQ(scalars["compression/up"], 0.25F);
  EXPECT_EQ(scalars["compression/down"], 0.5F);
  EXPECT_EQ(scalars["compression/residual/dense"], 1.5F);
}

TEST_F(CompressionOutput, TheSummaryNamesTheScopeThatKeepsMost) {
  const RunFacts facts = facts_of(compressed);
  ::testing::internal::CaptureStdout();
  Terminal(facts).on_finish(finish());
  EXPECT_THAT(
      ::testing::internal::GetCapturedStdout(),
      HasSubstr("  compression  200 B up, 0.2500 of what it would be in full; 600 B down, 0.5000; kept "
                "back 1.5000 of the gradients' norm in dense\n"));
}

}  // namespace
}  // namespace varscope
