// What `varscope train` decides before anything starts.
#include "launch/job/job_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/directory/checkpoint_directory.h"
#include "common/base/serialize.h"
#include "tests/support/fs/crash_states.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::CrashStates;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::MemoryFs;
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
  set_earlier_run_aside(fs, job);
  EXPECT_FALSE(fs.exists(job.checkpoint_dir()));
  EXPECT_THAT(fs.list(job.run_dir()),
              ::testing::ElementsAre(HasSubstr("checkpoints.old-"), HasSubstr("metrics.jsonl.old-")));
  set_earlier_run_aside(fs, job);  // nothing is there: fine
}

// A job that has started since this one looked: its directory stays where it is.
TEST(SetEarlierRunAside, IsRefusedWhileAnotherJobHoldsTheDirectory) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  PosixFs fs;
  CheckpointDirectory other(fs, job.checkpoint_dir());
  other.lock("0815");
  EXPECT_THAT(error_of([&] { set_earlier_run_aside(fs, job); }),
              AllOf(HasSubstr("checkpoint: the checkpoint directory " + job.checkpoint_dir()),
                    HasSubstr("in use by another job (run 0815")));
  EXPECT_TRUE(fs.exists(job.checkpoint_dir()));
}

// An earlier run: metrics, and a directory of checkpoints with a file in it.
void make_earlier_run(Fs& fs, const JobConfig& job) {
  fs.make_dirs(job.checkpoint_dir());
  write_whole_file(fs, job.checkpoint_dir() + "/LATEST", "the values");
  write_whole_file(fs, job.run_dir() + "/metrics.jsonl", "the metrics");
  fs.sync_dir(job.checkpoint_dir());
  fs.sync_dir(job.run_dir());
}

// What a start finds of it. Both must be there under one name each, with all of their bytes.
struct EarlierRun {
  bool metrics_aside = false, checkpoints_aside = false;
};
EarlierRun find_earlier_run(Fs& fs, const JobConfig& job) {
  std::string metrics, checkpoints;
  for (const std::string& name : fs.list(job.run_dir())) {
    const std::string path = join_path(job.run_dir(), name);
    std::string& found = name.starts_with("metrics.jsonl") ? metrics : checkpoints;
    EXPECT_EQ(found, "") << "also " << path;
    found = name;
    EXPECT_EQ(read_whole_file(fs, &found == &metrics ? path : path + "/LATEST", 100),
              &found == &metrics ? "the metrics" : "the values");
  }
  EXPECT_TRUE(metrics.starts_with("metrics.jsonl")) << metrics;
  EXPECT_TRUE(checkpoints.starts_with("checkpoints")) << checkpoints;
  return {metrics.starts_with("metrics.jsonl.old-"), checkpoints.starts_with("checkpoints.old-")};
}

TEST(SetEarlierRunAside, AnyFailureLosesNothingAndTheNextCallCompletesIt) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  struct Fault {
    FsOp op;
    int n;
    bool metrics_aside, checkpoints_aside;
  };
  for (const Fault& fault : {Fault{FsOp::rename, 1, false, false}, Fault{FsOp::sync_dir, 1, true, false},
                             Fault{FsOp::rename, 2, true, false}, Fault{FsOp::sync_dir, 2, true, true}}) {
    MemoryFs memory;
    make_earlier_run(memory, job);
    FaultFs fs(memory);
    fs.fail_nth(fault.op, fault.n, EIO);
    EXPECT_THAT(error_of([&] { set_earlier_run_aside(fs, job); }),
                AllOf(HasSubstr(fmt::format("io: cannot {} ", to_string(fault.op))), HasSubstr(job.run_dir()),
                      HasSubstr("Input/output error")));
    EXPECT_EQ(fs.struck(), 1) << to_string(fault.op) << " " << fault.n;
    const EarlierRun left = find_earlier_run(memory, job);
    EXPECT_EQ(left.metrics_aside, fault.metrics_aside) << to_string(fault.op) << " " << fault.n;
    EXPECT_EQ(left.checkpoints_aside, fault.checkpoints_aside) << to_string(fault.op) << " " << fault.n;
    set_earlier_run_aside(fs, job);
    EXPECT_TRUE(find_earlier_run(memory, job).checkpoints_aside);
  }
}

// No crash leaves a directory that a new run could start in beside the metrics of the earlier one, and what
// has been set aside stays so.
TEST(SetEarlierRunAside, AnyCrashLosesNothingAndTheNextCallCompletesIt) {
  const TempDir dir;
  const JobConfig job = job_in(dir);
  MemoryFs fs;
  make_earlier_run(fs, job);
  CrashStates states(fs.disk());
  fs.log().clear();
  set_earlier_run_aside(fs, job);
  ASSERT_GE(fs.log().size(), 4U);
  int n_states = 0;
  bool is_last = false;
  const auto check = [&](const Digest&, const auto& make) {
    MemoryFs after(make());
    const EarlierRun left = find_earlier_run(after, job);
    EXPECT_TRUE(left.metrics_aside || !left.checkpoints_aside);
    if (is_last) {
      EXPECT_TRUE(left.metrics_aside && left.checkpoints_aside) << "not durable";
    }
    set_earlier_run_aside(after, job);
    const EarlierRun completed = find_earlier_run(after, job);
    EXPECT_TRUE(completed.metrics_aside && completed.checkpoints_aside);
    ++n_states;
    return true;
  };
  for (std::size_t i = 0; i < fs.log().size(); ++i) {
    states.advance(fs.log()[i]);
    is_last = i + 1 == fs.log().size();
    states.for_each(check);
  }
  EXPECT_GE(n_states, 6);
}

TEST(SetEarlierRunAside, TakesADirectoryThatIsNamedWithASlash) {
  const TempDir dir;
  JobConfig job = job_in(dir);
  job.checkpoint.dir = dir / "c/";
  PosixFs fs;
  fs.make_dirs(dir / "c");
  set_earlier_run_aside(fs, job);
  EXPECT_THAT(fs.list(dir.path()), ::testing::ElementsAre(HasSubstr("c.old-"), "job.yaml"));
}

TEST(LastStep, IsTheLastOfTheEpochsOrTheLimit) {
  const TempDir dir;
  JobConfig job = job_in(dir);
  job.train.epochs = 3;
  EXPECT_EQ(last_step(job, 10), Clock(30));
  job.train.max_steps = 29;
  EXPECT_EQ(last_step(job, 10), Clock(29));
  job.train.max_steps = 31;
  EXPECT_EQ(last_step(job, 10), Clock(30));
  job.train.epochs = 1'000'000'000'000;
  EXPECT_EQ(last_step(job, 1'000'000'000'000), Clock(31)) << "a product that 64 bits do not hold";
  job.train.max_steps = 0;
  EXPECT_EQ(last_step(job, 1000), Clock(1'000'000'000'000'000));
  EXPECT_THAT(
      error_of([&] { last_step(job, 1001); }),
      HasSubstr("config: " + job.file +
                ":1:1: train.epochs: 1000000000000 epochs of 1001 steps are more steps than are counted"));
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
