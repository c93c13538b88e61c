// Jobs whose gradients and values are compressed: the same bits on any cluster, killed, stopped and resumed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kSteps = 20;

struct Cluster {
  int servers, workers;
  static constexpr int kOneProcess = 0;  // as `workers`
};

// Four logical workers; 450 samples in batches of 64, so that the last batch leaves some without samples.
Command train_on(const Cluster& c, const std::string& run_dir, const std::string& compression,
                 const Args& more = {}) {
  const Args args =
      Args{"train", config_file("digits_mlp.yaml")} +
      set({"data.train.samples=450", "train.eval_every_epochs=1", "output.metrics=false",
           "cluster.logical_workers=4", "job.run_dir=" + run_dir, "model.compression=" + compression,
           "cluster.servers=" + std::to_string(c.servers), "train.max_steps=" + std::to_string(kSteps)}) +
      more;
  return c.workers == Cluster::kOneProcess ? varscope(args) : mpirun(c.servers + c.workers, args);
}

class CompressedJob : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Types, CompressedJob,
                         ::testing::Values("{type: bf16}", "{type: fp16}", "{type: onebit, start_step: 3}",
                                           "{type: topk, ratio: 0.05, start_step: 3}",
                                           "{type: onebit, start_step: 0, values: bf16}", "{values: bf16}"));

TEST_P(CompressedJob, HasTheSameBitsOnAnyCluster) {
  const ScratchDir dir;
  const Summary one = train(train_on({1, Cluster::kOneProcess}, dir / "one", GetParam()));
  EXPECT_EQ(one.step, kSteps);
  for (const Cluster& c : {Cluster{1, 1}, Cluster{3, 2}, Cluster{2, 4}}) {
    SCOPED_TRACE(::testing::Message() << c.servers << " servers, " << c.workers << " workers");
    const Summary s = train(train_on(c, dir / std::to_string(c.workers), GetParam()));
    EXPECT_EQ(s.hash, one.hash);
    EXPECT_EQ(s.test_loss, one.test_loss) << "evaluations read the same values";
  }
  EXPECT_NE(train(train_on({1, Cluster::kOneProcess}, dir / "full", "none")).hash, one.hash);
}

// The step of the newest checkpoint; 0: there is none.
std::int64_t newest_step(const std::string& run_dir) {
  const std::vector<std::string> names = names_in(run_dir + "/checkpoints");
  return !names.empty() && names.back().starts_with("step-") ? std::stoll(names.back().substr(5)) : 0;
}

TEST_P(CompressedJob, EndsInTheSameBitsAfterAKill) {
  const ScratchDir dir;
  const Args saves = set({"checkpoint.every_steps=6", "train.eval_every_epochs=0", "train.epochs=1000000"});
  {
    Job job(train_on({1, 2}, dir / "run", GetParam(), saves + set({"train.max_steps=0"})));
    const std::vector<pid_t> pids = job.rank_pids(3, kStartSeconds);
    ASSERT_EQ(pids.size(), 3U);
    ASSERT_TRUE(job.wait_until([&] { return newest_step(dir / "run") > 0; }, kStartSeconds))
        << job.wait(0).all();
    kill(pids[2], SIGKILL);
    EXPECT_NE(job.wait(kStartSeconds).code, 0);
  }
  const std::int64_t step = newest_step(dir / "run");
  const Args until = saves + set({"train.max_steps=" + std::to_string(step + 10)});
  const Summary whole = train(train_on({1, Cluster::kOneProcess}, dir / "whole", GetParam(), until));
  const Summary resumed = train(train_on({2, 1}, dir / "run", GetParam(), until + Args{"--resume"}));
  EXPECT_EQ(resumed.first_step, step);
  EXPECT_EQ(resumed.hash, whole.hash);
}

// A signal comes at any step: the run goes on to the next one at which nothing is left to be sent.
TEST(CompressedJobs, StopAtAStepThatChangesNoBits) {
  const ScratchDir dir;
  const std::string onebit = "{type: onebit, start_step: 0}";
  const Args more = set({"cluster.drain_every_steps=7", "train.eval_every_epochs=0", "train.epochs=1000000",
                         "checkpoint.every_steps=0", "checkpoint.every_seconds=3600"});
  {
    Job job(train_on({1, 2}, dir / "run", onebit, more + set({"train.max_steps=0"})));
    ASSERT_EQ(job.rank_pids(3, kStartSeconds).size(), 3U);
    ASSERT_TRUE(job.wait_until(
        [&] {
          return job.err().find("step ") != std::string::npos || job.out().find("step ") != std::string::npos;
        },
        kStartSeconds));
    job.send_signal(SIGUSR2);
    const Ended ended = job.wait(kStartSeconds);
    EXPECT_EQ(ended.code, 75) << ended.all();
    EXPECT_THAT(ended.out, HasSubstr("a signal asks to stop: on to step "));
    EXPECT_THAT(ended.out,
                HasSubstr(", where compression has nothing left to send, a checkpoint, and the end"));
  }
  const std::int64_t step = newest_step(dir / "run");
  ASSERT_GT(step, 0);
  EXPECT_EQ(step % 7, 0);
  const Args until = more + set({"train.max_steps=" + std::to_string(step + 10)});
  const Summary whole = train(train_on({1, Cluster::kOneProcess}, dir / "whole", onebit, until));
  EXPECT_EQ(train(train_on({1, 2}, dir / "run", onebit, until + Args{"--resume"})).hash, whole.hash);
}

// A worker that has nothing of the last step still has to push what it keeps back: then the run can be saved.
TEST(CompressedJobs, OfAspStopWhereNothingIsKeptBackAndAreReplayedToTheLastBit) {
  const ScratchDir dir;
  const std::string topk = "{type: topk, ratio: 0.05, start_step: 0, values: bf16}";
  const Args more = set({"cluster.consistency=asp", "cluster.dealing=dynamic", "cluster.record=true",
                         "cluster.drain_every_steps=7", "train.eval_every_epochs=0", "train.epochs=1000000",
                         "train.max_steps=0", "checkpoint.every_steps=0", "checkpoint.every_seconds=3600"});
  Ended ended;
  {
    Job job(train_on({2, 3}, dir / "run", topk, more));
    ASSERT_EQ(job.rank_pids(5, kStartSeconds).size(), 5U);
    ASSERT_TRUE(job.wait_until([&] { return job.last_step() > 0; }, kStartSeconds)) << job.err();
    job.send_signal(SIGUSR2);
    ended = job.wait(kStartSeconds);
  }
  ASSERT_EQ(ended.code, 75) << ended.all();
  const std::int64_t step = newest_step(dir / "run");
  ASSERT_GT(step, 0);
  EXPECT_EQ(step % 7, 0);
  const std::string hash = summary_of(ended.out).hash;
  EXPECT_NE(hash, "");
  EXPECT_EQ(train(train_on({2, 3}, dir / "run", topk, more + Args{"--replay", dir / "run"})).hash, hash);
  const Summary resumed =
      train(train_on({1, 2}, dir / "run", topk,
                     more + set({"cluster.record=false", "train.max_steps=" + std::to_string(step + 20)}) +
                         Args{"--resume"}));
  EXPECT_EQ(resumed.first_step, step);
  EXPECT_EQ(resumed.step, step + 20);
}

TEST(CompressedJobs, ThatCannotBeAreRefusedBeforeTheyBegin) {
  const ScratchDir dir;
  const Ended adam =
      run(train_on({1, Cluster::kOneProcess}, dir / "a", "onebit", set({"optimizer={type: adam}"})));
  EXPECT_EQ(adam.code, 2) << adam.all();
  EXPECT_THAT(adam.err,
              HasSubstr("model.compression: onebit (of variable \"hidden1/weights\"): does not go with "
                        "optimizer adam"));
}

TEST(CompressedJobs, EndWithTheVariablesNameWhereAGradientIsNotFinite) {
  const ScratchDir dir;
  const Ended ended = run(train_on({1, 2}, dir / "run", "{type: onebit, start_step: 0}",
                                   set({"optimizer.learning_rate=1e30", "train.on_nan=warn"})));
  EXPECT_EQ(ended.code, 6) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr("so that it cannot be compressed"));
  EXPECT_THAT(ended.err, HasSubstr("the gradient of variable \""));
}

}  // namespace
}  // namespace varscope::testing
