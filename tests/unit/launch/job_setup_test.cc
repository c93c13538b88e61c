// What `varscope train` decides before anything starts.
#include "launch/job/job_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/directory/checkpoint_directory.h"
#include "common/base/serialize.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TempDir;

JobConfig job_in(const TempDir& dir) {
  const std::string file = dir / "job.yaml";
  testing::spit(file, "job: {name: setup, run_dir: " + (dir / "run") +
                          "}\ndata: {train: {type: digits}}\nmodel:\n  layers: [{type: dense, units: 10}]\n"
                          "  loss: softmax_cross_entropy\n");
  return load_config(file, {});
}

TEST(SetEarlierRunAside, RenamesCheckpointsAndMetrics) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  PosixFs fs;
  CheckpointDirectory(fs, job.checkpoint_dir()).lock("earlier");
  testing::spit(job.run_dir() + "/metrics.jsonl", "{}\n");
  set_earlier_run_aside(job);
  EXPECT_FALSE(fs.exists(job.checkpoint_dir()));
  EXPECT_THAT(fs.list(job.run_dir()),
              ::testing::ElementsAre(HasSubstr("checkpoints.old-"), HasSubstr("metrics.jsonl.old-")));
  set_earlier_run_aside(job);  // nothing is there: fine
}

// A job that has started since this one looked: its directory stays where it is.
TEST(SetEarlierRunAside, IsRefusedWhileAnotherJobHoldsTheDirectory) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  PosixFs fs;
  CheckpointDirectory other(fs, job.checkpoint_dir());
  other.lock("0815");
  EXPECT_THAT(error_of([&] { set_earlier_run_aside(job); }),
              AllOf(HasSubstr("checkpoint: the checkpoint directory " + job.checkpoint_dir()),
                    HasSubstr("in use by another job (run 0815")));
  EXPECT_TRUE(fs.exists(job.checkpoint_dir()));
}

// The coordinator's state of a checkpoint is read as text of strangers.
TEST(MakeTrainPlan, RefusesAHostileStateOfTheCoordinator) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  const ModelFacts facts{{}, 100, 0, {}};
  Manifest resumed;
  resumed.step = 7;
  const std::string good = to_text(CoordinatorState{{0.5, 3, 4}, 100, 10, 1});
  CoordinatorState state;
  resumed.coordinator_state = good;
  EXPECT_EQ(make_train_plan(job, facts, &resumed, state).first, Clock(7));
  EXPECT_EQ(state.epoch.samples, 4);
  for (std::size_t n = 0; n + 2 < good.size(); ++n) {  // the last number would lose digits
    resumed.coordinator_state = good.substr(0, n);
    EXPECT_THAT(error_of([&] { make_train_plan(job, facts, &resumed, state); }),
                HasSubstr("data: the coordinator's state in the checkpoint cannot be read"))
        << n;
  }
}

}  // namespace
}  // namespace varscope
