// Metrics of evaluations with checkpoints, and retention, as server 0 does them: before and after a commit,
// and over a kill at either moment.
#include "ps/checkpointing/checkpoint_coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "checkpoint/restore/reader.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;
using testing::thrown;
using testing::tiny_model;

class Heard : public RunObserver {
 public:
  std::vector<std::int64_t> saved;
  std::vector<std::string> failures, warnings;

 private:
  void on_checkpoint(const CheckpointSummary& c) override { saved.push_back(c.clock.value); }
  void on_checkpoint_failed(Clock, const std::string& why) override { failures.push_back(why); }
  void on_warning(const std::string& what) override { warnings.push_back(what); }
};

class CheckpointCoordinatorTest : public ::testing::Test {
 protected:
  // A start of the job from the values after step `first`; the one before is gone, as if it had been killed.
  void start(std::int64_t first, const std::string& resumed_from = "") {
    coordinator.reset();
    Manifest base = testing::make_manifest(tiny_model(1), 0, 1);
    base.worker_clocks.clear();
    coordinator.emplace(fs, dir.path(), config, base, fmt::format("start{}", ++n_starts),
                        std::vector<ServerId>{ServerId(0)}, Clock(first), heard, resumed_from);
  }
  void begin(std::int64_t step) {
    ASSERT_TRUE(coordinator->begin(Clock(step)));
    const std::string id = coordinator->id();
    ShardOutcome outcome{id, "", {}};
    outcome.report = testing::write_part(fs, temporary_path(dir.path(), id),
                                         tiny_model(static_cast<unsigned>(step)), step, 0, 1, id);
    coordinator->on_outcome(outcome);
    coordinator->set_states(Clock(step), {"state of worker 0", "state of worker 1"}, "epoch");
  }
  void finish_work() {
    while (coordinator->has_pending_work()) {
      coordinator->tick();
      std::this_thread::yield();
    }
  }
  void save(std::int64_t step) {
    begin(step);
    finish_work();
  }
  void evaluate(std::int64_t step, double accuracy) {
    coordinator->on_evaluation({step, {{"accuracy", accuracy}}});
  }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> all;
    for (const CheckpointEntry& e : scan_checkpoints(posix, dir.path())) all.push_back(e.step);
    return all;
  }
  std::optional<EvaluationRecord> evaluation(std::int64_t step) {
    return read_evaluation(posix, dir / step_name(step));
  }

  TempDir dir;
  PosixFs posix;
  FaultFs fs{posix};
  CheckpointConfig config;
  Heard heard;
  int n_starts = 0;
  std::optional<CheckpointCoordinator> coordinator;
};

TEST_F(CheckpointCoordinatorTest, AnEvaluationBeforeTheCommitIsCommittedWithIt) {
  start(0);
  evaluate(5, 0.5);
  fs.fail_nth(FsOp::replace, 2, EIO);  // the first is LATEST's: METRICS is not replaced afterwards
  save(5);
  EXPECT_EQ(evaluation(5), (EvaluationRecord{5, {{"accuracy", 0.5}}}));
  EXPECT_THAT(heard.warnings, IsEmpty());
  save(8);  // the newest evaluation up to its step
  EXPECT_EQ(evaluation(8), evaluation(5));
}

TEST_F(CheckpointCoordinatorTest, AnEvaluationAfterTheCommitIsAddedToIt) {
  start(0);
  save(5);
  EXPECT_FALSE(evaluation(5));
  evaluate(5, 0.5);
  EXPECT_TRUE(coordinator->has_pending_work());
  finish_work();
  EXPECT_EQ(evaluation(5), (EvaluationRecord{5, {{"accuracy", 0.5}}}));
  EXPECT_THAT(verify_checkpoint(posix, dir / step_name(5)), IsEmpty());
}

// The commit of a save may come after the next evaluation.
TEST_F(CheckpointCoordinatorTest, ALaterEvaluationDoesNotDisplaceTheOneOfThisStep) {
  start(0);
  evaluate(10, 0.5);
  finish_work();
  begin(15);
  evaluate(20, 0.9);
  finish_work();
  ASSERT_TRUE(evaluation(15));
  EXPECT_EQ(evaluation(15)->step, 10);
  save(25);
  ASSERT_TRUE(evaluation(25));
  EXPECT_EQ(evaluation(25)->step, 20);
}

// A run that goes on from a checkpoint elsewhere: what is here would be taken for its own.
TEST_F(CheckpointCoordinatorTest, AStartFromElsewhereSetsAsideWhatALaterResumeWouldTake) {
  start(0);
  for (const std::int64_t step : {10, 20, 30}) save(step);
  coordinator.reset();
  const std::string aside = dir / "superseded-step-000000020-1";
  std::filesystem::rename(dir / step_name(20), aside);
  start(20, aside);
  EXPECT_THAT(steps(), ElementsAre(10));  // an older one of the same run
  const std::string lineage = lineage_text(posix, dir.path());
  EXPECT_THAT(lineage, HasSubstr(aside));
  EXPECT_THAT(lineage, HasSubstr("step-000000030"));
  start(20, dir / step_name(20));
  EXPECT_THAT(steps(), ElementsAre(10));
}

TEST_F(CheckpointCoordinatorTest, AnEvaluationOfALaterStepIsNotOfThisOne) {
  start(0);
  begin(5);
  evaluate(6, 0.5);
  finish_work();
  EXPECT_FALSE(evaluation(5));
  save(7);
  EXPECT_EQ(evaluation(7)->step, 6);
}

TEST_F(CheckpointCoordinatorTest, AKillBetweenTheCommitAndTheEvaluationLosesOnlyItsMetrics) {
  config.keep = 1;
  config.keep_best = KeepBestConfig{"accuracy", 1, BestMode::automatic};
  start(0);
  evaluate(4, 0.25);
  save(4);
  save(5);  // would be evaluated now
  start(5);
  save(6);  // what is known at step 5 is the evaluation of step 4
  EXPECT_EQ(evaluation(6)->step, 4);
  EXPECT_THAT(steps(), ElementsAre(6, 4));
  evaluate(7, 0.5);
  save(7);
  EXPECT_THAT(steps(), ElementsAre(7)) << "step 4 is not the best any more";
}

TEST_F(CheckpointCoordinatorTest, RetentionFollowsAnEvaluationThatComesLate) {
  config.keep = 1;
  config.keep_best = KeepBestConfig{"accuracy", 1, BestMode::automatic};
  start(0);
  evaluate(1, 0.9);
  save(1);
  evaluate(2, 0.1);
  save(2);
  EXPECT_THAT(steps(), ElementsAre(2, 1));
  evaluate(2, 0.95);  // as after a resume from there
  finish_work();
  EXPECT_THAT(steps(), ElementsAre(2));
}

TEST_F(CheckpointCoordinatorTest, TheBestSurvivesRestarts) {
  config.keep = 1;
  config.keep_best = KeepBestConfig{"accuracy", 2, BestMode::automatic};
  std::int64_t last = 0;
  for (const auto& [step, accuracy] : {std::pair(1, 0.5), {2, 0.9}, {3, 0.7}, {4, 0.8}, {5, 0.6}, {6, 0.6}}) {
    start(last);
    begin(step);
    evaluate(step, accuracy);
    finish_work();
    last = step;
  }
  EXPECT_THAT(steps(), ElementsAre(6, 4, 2));
}

TEST_F(CheckpointCoordinatorTest, MetricsThatCannotBeWrittenAreAWarning) {
  start(0);
  save(1);
  evaluate(1, 0.5);
  fs.fail_nth(FsOp::create, 1, ENOSPC);
  finish_work();
  ASSERT_EQ(heard.warnings.size(), 1U);
  EXPECT_THAT(heard.warnings[0], HasSubstr("the metrics of the evaluation after step 1 are not with its "
                                           "checkpoint: cannot create"));
  EXPECT_EQ(coordinator->failed(), 0);
}

TEST_F(CheckpointCoordinatorTest, ARetentionThatFailsIsNoFailedSave) {
  config.keep = 1;
  start(0);
  save(1);
  fs.fail_nth(FsOp::rename, 2, EIO);  // the first commits step 2
  save(2);
  EXPECT_THAT(heard.saved, ElementsAre(1, 2));
  EXPECT_THAT(heard.failures, IsEmpty());
  ASSERT_EQ(heard.warnings.size(), 1U);
  EXPECT_THAT(heard.warnings[0], HasSubstr("older checkpoints could not be removed: cannot rename"));
  EXPECT_THAT(steps(), ElementsAre(2, 1));
  save(3);
  EXPECT_THAT(steps(), ElementsAre(3)) << "as many as needed";
}

// A save that is given up may be asked about later: the one under way is of another step.
TEST_F(CheckpointCoordinatorTest, StatesOfAnotherStepAreNotThoseOfTheSave) {
  start(0);
  ASSERT_TRUE(coordinator->begin(Clock(6)));
  const std::string id = coordinator->id();
  ShardOutcome outcome{id, "", {}};
  outcome.report = testing::write_part(fs, temporary_path(dir.path(), id), tiny_model(6), 6, 0, 1, id);
  coordinator->on_outcome(outcome);
  coordinator->set_states(Clock(3), {"old", "old"}, "old");
  coordinator->tick();
  EXPECT_FALSE(coordinator->idle()) << "it waits for the states of step 6";
  coordinator->set_states(Clock(6), {"state of worker 0", "state of worker 1"}, "epoch");
  finish_work();
  EXPECT_EQ(coordinator->last_committed(), Clock(6));
}

// Nothing is wrong with the disk where a worker has not computed yet what a save waits for.
TEST_F(CheckpointCoordinatorTest, SavesThatSlowWorkersHoldUpAreNoFailuresInARow) {
  start(0);
  for (int step = 1; step <= 5; ++step) {
    ASSERT_TRUE(coordinator->begin(Clock(step)));
    coordinator->give_up_overdue("worker 1", CheckpointCoordinator::Blame::workers);
  }
  ASSERT_TRUE(coordinator->begin(Clock(6)));
  coordinator->give_up_overdue("");
  ASSERT_TRUE(coordinator->begin(Clock(7)));
  coordinator->give_up_overdue("");
  ASSERT_TRUE(coordinator->begin(Clock(8)));
  EXPECT_THAT(thrown([&] { coordinator->give_up_overdue(""); }),
              HasSubstr("3 checkpoints in a row have failed"));
}

TEST_F(CheckpointCoordinatorTest, AStartFromAnOlderStepIsRecorded) {
  config.keep = 9;
  start(0);
  for (int step : {1, 2, 3}) save(step);
  EXPECT_EQ(lineage_text(posix, dir.path()), "");
  start(1);
  EXPECT_THAT(steps(), ElementsAre(1));
  EXPECT_THAT(lineage_text(posix, dir.path()),
              HasSubstr("{\"event\":\"resume\",\"set_aside\":[\"step-000000003\",\"step-000000002\"],\"to\":"
                        "\"step-000000001\",\"unix_time\":"));
}

}  // namespace
}  // namespace varscope
