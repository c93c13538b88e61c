// What server 0 makes of the workers' evaluations. (Steps and the end of a run are in ps_test.)
#include "ps/coordinator.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/base/serialize.h"
#include "common/transport/loopback_transport.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::TempDir;
using testing::thrown;
using testing::tiny_model;

struct Heard final : RunObserver {
  void on_eval(const EvalSummary& eval) override { evaluations.push_back(eval); }
  std::vector<EvalSummary> evaluations;
};

// One server and two workers, of which only messages are seen.
class EvaluationTest : public ::testing::Test {
 protected:
  Coordinator make(CheckpointCoordinator* checkpoints) {
    return Coordinator(
        {*server, cluster, plan, variables, {Clock(0), Clock(9), 4}, {}, checkpoints, heard, {}, evaluated});
  }
  // The batch's share of a confusion matrix, and of a sum of log losses.
  static Message report(int worker, std::int64_t batch, std::vector<std::int64_t> counts, double log_loss) {
    EvalReport r;
    r.batches = {batch};
    r.sums = {{2.0, 3, 4}};
    r.reals = {{log_loss}};
    r.counts = std::move(counts);
    r.n_batches = 2;
    return {Rank(worker + 1), make_header(MessageType::eval_report, worker, Clock(6)), to_binary(r)};
  }

  ClusterMap cluster = assign_roles({"a", "a", "a"}, 1, 2);
  VariableTable variables;
  BucketPlan plan = BucketPlan::make(variables, 1);
  LoopbackHub hub{3};
  std::unique_ptr<Transport> server = hub.endpoint(Rank(0));
  EvaluationSpec evaluated{{{MetricType::accuracy, 0, "accuracy"},
                            {MetricType::log_loss, 0, "log_loss"},
                            {MetricType::confusion_matrix, 0, "confusion_matrix"}},
                           2};
  Heard heard;
};

TEST_F(EvaluationTest, MetricsAreFinishedWhenAllBatchesAreHere) {
  Coordinator coordinator = make(nullptr);
  coordinator.on_message(report(1, 1, {3, 1, 1, 1, 1}, 0.5));
  EXPECT_TRUE(heard.evaluations.empty());
  coordinator.on_message(report(0, 0, {2, 0, 2, 2, 0}, 1.5));
  ASSERT_EQ(heard.evaluations.size(), 1U);
  const EvalSummary& all = heard.evaluations[0];
  EXPECT_EQ(all.clock, Clock(6));
  EXPECT_EQ(all.epoch, 2);
  EXPECT_EQ(all.sums.samples, 8);
  ASSERT_EQ(all.metrics.size(), 3U);
  EXPECT_EQ(all.metrics[0].name, "accuracy");
  EXPECT_EQ(all.metrics[0].value, 5.0 / 8);
  EXPECT_EQ(all.metrics[1].value, 2.0 / 8);
  EXPECT_EQ(all.metrics[2].matrix, (std::vector<double>{1, 3, 3, 1}));
}

TEST_F(EvaluationTest, CheckpointsKeepTheLossAndEachMetricThatIsANumber) {
  TempDir dir;
  PosixFs fs;
  Manifest base = testing::make_manifest(tiny_model(1), 0, 1);
  base.worker_clocks.clear();
  CheckpointCoordinator checkpoints(fs, dir.path(), {}, base, "start", {ServerId(0)}, Clock(0), heard);
  Coordinator coordinator = make(&checkpoints);
  coordinator.on_message(report(0, 0, {2, 0, 2, 2, 0}, 1.5));
  coordinator.on_message(report(1, 1, {3, 1, 1, 1, 1}, 0.5));
  ASSERT_TRUE(checkpoints.begin(Clock(6)));
  const std::string id = checkpoints.id();
  ShardOutcome outcome{id, "", {}};
  outcome.report = testing::write_part(fs, temporary_path(dir.path(), id), tiny_model(6), 6, 0, 1, id);
  checkpoints.on_outcome(outcome);
  checkpoints.set_states(Clock(6), {"state of worker 0", "state of worker 1"}, "epoch");
  while (checkpoints.has_pending_work()) {
    checkpoints.tick();
    std::this_thread::yield();
  }
  EXPECT_EQ(read_evaluation(fs, dir / step_name(6)),
            (EvaluationRecord{6, {{"loss", 4.0 / 8}, {"accuracy", 5.0 / 8}, {"log_loss", 2.0 / 8}}}));
}

// Scores of both workers are ranked together: apart, each has an area of 1.
TEST_F(EvaluationTest, AucIsOverTheScoresOfAllWorkers) {
  evaluated = {{{MetricType::auc, 0, "auc"}}, 1};
  Coordinator coordinator = make(nullptr);
  const auto scores_of = [](int worker, double negative, double positive) {
    EvalReport r;
    r.batches = {worker};
    r.sums = {{2.0, 1, 2}};
    r.reals = {{}};
    r.n_batches = 2;
    r.scores.add(negative, false);
    r.scores.add(positive, true);
    return Message{Rank(worker + 1), make_header(MessageType::eval_report, worker, Clock(6)), to_binary(r)};
  };
  coordinator.on_message(scores_of(1, -9.5, -9));
  coordinator.on_message(scores_of(0, -12, -11.5));
  ASSERT_EQ(heard.evaluations.size(), 1U);
  EXPECT_EQ(heard.evaluations[0].metrics.at(0).value, 3.0 / 4);
  EXPECT_EQ(to_text(heard.evaluations[0].metrics[0]), "auc 0.7500");
}

TEST_F(EvaluationTest, SumsOfOtherMetricsAreRefused) {
  Coordinator coordinator = make(nullptr);
  coordinator.on_message(report(0, 0, {2, 0, 2}, 1.5));
  EXPECT_EQ(thrown([&] {
              coordinator.on_message(report(1, 1, {3, 1, 1}, 0.5));
            }),
            "protocol: an evaluation has 3 counts and 1 sums for its metrics; 5 and 1 were expected");
}

}  // namespace
}  // namespace varscope
