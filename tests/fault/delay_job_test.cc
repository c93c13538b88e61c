// Jobs with cluster.delay: the same bits on any cluster, however slow their workers are, killed, stopped and
// resumed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kSteps = 20;

struct Cluster {
  int servers, workers;
  static constexpr int kOneProcess = 0;  // as `workers`
};

Args drains(int delay) { return delay > 0 ? set({"cluster.drain_every_steps=6"}) : Args{}; }

// Four logical workers; 450 samples in batches of 64, so that the last batch leaves some without samples, and
// evaluations are between drains.
Command train_on(const Cluster& c, const std::string& run_dir, int delay, const Args& more = {}) {
  const Args args =
      Args{"train", config_file("digits_mlp.yaml")} +
      set({"data.train.samples=450", "train.eval_every_epochs=1", "output.metrics=false",
           "cluster.logical_workers=4", "job.run_dir=" + run_dir, "cluster.delay=" + std::to_string(delay),
           "cluster.servers=" + std::to_string(c.servers), "train.max_steps=" + std::to_string(kSteps)}) +
      drains(delay) + more;
  return c.workers == Cluster::kOneProcess ? varscope(args) : mpirun(c.servers + c.workers, args);
}

// The step of the newest checkpoint; 0: there is none.
std::int64_t newest_step(const std::string& run_dir) {
  const std::vector<std::string> names = names_in(run_dir + "/checkpoints");
  return !names.empty() && names.back().starts_with("step-") ? std::stoll(names.back().substr(5)) : 0;
}

TEST(DelayedJob, HasTheSameBitsOnAnyCluster) {
  const ScratchDir dir;
  const Summary bsp = train(train_on({1, Cluster::kOneProcess}, dir / "bsp", 0));
  for (const int delay : {1, 2}) {
    const std::string name = std::to_string(delay);
    const Summary one = train(train_on({1, Cluster::kOneProcess}, dir / ("one" + name), delay));
    EXPECT_EQ(one.step, kSteps);
    EXPECT_NE(one.hash, bsp.hash);
    for (const Cluster& c :
         delay == 1 ? std::vector{Cluster{3, 2}, Cluster{2, 4}} : std::vector{Cluster{2, 3}}) {
      SCOPED_TRACE(::testing::Message() << c.servers << " servers, " << c.workers << " workers");
      const Summary s = train(train_on(c, dir / (name + "." + std::to_string(c.workers)), delay));
      EXPECT_EQ(s.hash, one.hash);
      EXPECT_EQ(s.test_loss, one.test_loss) << "evaluations read the same values";
    }
  }
}

// Clipping and constraints by norm need all servers; averages are no gradients; residuals stay on workers.
TEST(DelayedJob, HasTheSameBitsWithNormsAndCompression) {
  const ScratchDir dir;
  for (const auto& [name, keys] :
       {std::pair{"norms", set({"optimizer={type: momentum, learning_rate: 0.05, momentum: 0.5, clip: {type: "
                                "global_norm, limit: 0.5}}",
                                "model.layers.0.constraint={type: max_norm, limit: 0.9}"})},
        std::pair{"onebit", set({"model.compression={type: onebit, start_step: 3, values: bf16}"})}}) {
    SCOPED_TRACE(name);
    const Summary one = train(train_on({1, Cluster::kOneProcess}, dir / (std::string(name) + "1"), 1, keys));
    EXPECT_EQ(train(train_on({2, 3}, dir / (std::string(name) + "2"), 1, keys)).hash, one.hash);
  }
}

// Rows are asked for early or late, and are those of one step all the same.
TEST(DelayedJob, HasTheSameRowsOfSparseTables) {
  const ScratchDir dir;
  const auto train_rows = [&](const Cluster& c, const std::string& name, int delay, const Args& more = {}) {
    const Args args = Args{"train", config_file("synthetic_ctr.yaml")} +
                      set({"data.train.samples=2000", "data.train.vocabulary=3000", "data.test.samples=500",
                           "data.test.vocabulary=3000", "train.batch=64", "cluster.logical_workers=4",
                           "job.run_dir=" + (dir / name), "cluster.delay=" + std::to_string(delay),
                           "cluster.servers=" + std::to_string(c.servers)}) +
                      drains(delay) + more;
    return train(c.workers == Cluster::kOneProcess ? varscope(args) : mpirun(c.servers + c.workers, args));
  };
  const Summary one = train_rows({1, Cluster::kOneProcess}, "one", 2);
  const Summary many = train_rows({2, 3}, "many", 2);
  EXPECT_EQ(many.hash, one.hash);
  EXPECT_EQ(many.test_loss, one.test_loss);
  EXPECT_EQ(train_rows({1, 2}, "late", 2, set({"cluster.early_requests=false"})).hash, one.hash);
  EXPECT_NE(train_rows({1, Cluster::kOneProcess}, "bsp", 0).hash, one.hash);
}

TEST(DelayedJob, EndsInTheSameBitsAfterAKill) {
  const ScratchDir dir;
  const Args saves = set({"train.eval_every_epochs=0", "train.epochs=1000000", "checkpoint.every_steps=8"});
  {
    Job job(train_on({1, 2}, dir / "run", 2, saves + set({"train.max_steps=0"})));
    const std::vector<pid_t> pids = job.rank_pids(3, kStartSeconds);
    ASSERT_EQ(pids.size(), 3U);
    ASSERT_TRUE(job.wait_until([&] { return newest_step(dir / "run") > 0; }, kStartSeconds))
        << job.wait(0).all();
    kill(pids[2], SIGKILL);
    EXPECT_NE(job.wait(kStartSeconds).code, 0);
  }
  const std::int64_t step = newest_step(dir / "run");
  const Args until = saves + set({"train.max_steps=" + std::to_string(step + 10)});
  const Summary whole = train(train_on({1, Cluster::kOneProcess}, dir / "whole", 2, until));
  const Summary resumed = train(train_on({2, 1}, dir / "run", 2, until + Args{"--resume"}));
  EXPECT_EQ(resumed.first_step, step);
  EXPECT_EQ(resumed.hash, whole.hash);
}

// A signal comes at any step: the run goes on to the next one after which no older values are read.
// All came together there, as they do not in a run that was planned to go on.
TEST(DelayedJob, SaysThatTheEndOfAnEarlierPlanIsInItsBits) {
  const ScratchDir dir;
  const Args twice = set({"train.max_steps=40"});
  train(train_on({1, 2}, dir / "run", 1, set({"train.max_steps=20"})));
  const Ended more = run(train_on({1, 2}, dir / "run", 1, twice + Args{"--resume"}));
  ASSERT_EQ(more.code, 0) << more.all();
  EXPECT_THAT(
      more.err,
      HasSubstr("the checkpoint is of step 20: there all workers came together, which they do not in a run "
                "that is planned as this one from its start, so the bits will differ from its"));
  EXPECT_NE(summary_of(more.out).hash, train(train_on({1, 2}, dir / "whole", 1, twice)).hash);
}

TEST(DelayedJob, StopsAtAStepThatChangesNoBits) {
  const ScratchDir dir;
  const Args more = set({"train.eval_every_epochs=0", "train.epochs=1000000", "checkpoint.every_steps=0",
                         "checkpoint.every_seconds=3600"});
  {
    Job job(train_on({1, 2}, dir / "run", 1, more + set({"train.max_steps=0"})));
    ASSERT_EQ(job.rank_pids(3, kStartSeconds).size(), 3U);
    ASSERT_TRUE(job.wait_until([&] { return job.last_step() > 0; }, kStartSeconds)) << job.wait(0).all();
    job.send_signal(SIGUSR2);
    const Ended ended = job.wait(kStartSeconds);
    EXPECT_EQ(ended.code, 75) << ended.all();
    EXPECT_THAT(ended.out, HasSubstr("a signal asks to stop: on to step "));
    EXPECT_THAT(ended.out,
                HasSubstr(", where all workers come together (cluster.delay), a checkpoint, and the end"));
  }
  const std::int64_t step = newest_step(dir / "run");
  ASSERT_GT(step, 0);
  EXPECT_EQ(step % 6, 0);
  const Args until = more + set({"train.max_steps=" + std::to_string(step + 10)});
  const Summary whole = train(train_on({1, Cluster::kOneProcess}, dir / "whole", 1, until));
  EXPECT_EQ(train(train_on({1, 2}, dir / "run", 1, until + Args{"--resume"})).hash, whole.hash);
}

// One server and so many workers that pause by a table (paused_varscope.cc).
Ended run_paused(int workers, const std::string& pause, int delay, int steps) {
  const ScratchDir dir;
  write_text(dir / "job.yaml", R"(job: {name: paused}
data: {train: {type: digits, samples: 1000}}
model:
  loss: softmax_cross_entropy
  layers:
    - {type: dense, scope: hidden, units: 32, activation: relu, initializer: fan_in_uniform}
    - {type: pause, )" + pause + R"(}
    - {type: dense, scope: output, units: 10, initializer: fan_in_uniform}
optimizer: {type: sgd, learning_rate: 0.1}
train: {batch: 60, epochs: 100}
checkpoint: {every_steps: 0, at_end: false}
)");
  Command command =
      mpirun(workers + 1, Args{"train", dir / "job.yaml"} +
                              set({"job.run_dir=" + (dir / "run"), "cluster.delay=" + std::to_string(delay),
                                   "train.max_steps=" + std::to_string(steps)}));
  std::ranges::replace(command.argv, std::string(VARSCOPE_BINARY), std::string(VARSCOPE_PAUSED_BINARY));
  return run(command);
}

TEST(DelayedJob, SlowAndDeafWorkersChangeNoBit) {
  constexpr int kPaused = 24;
  const std::string hash = summary_of(run_paused(3, "base_ms: 0, who: none", 2, kPaused).out).hash;
  ASSERT_FALSE(hash.empty());
  for (const char* pause : {"base_ms: 0, slow_ms: 20, who: rotating",
                            "base_ms: 0, slow_ms: 20, who: random, share: 0.3, deaf: true"}) {
    const Ended job = run_paused(3, pause, 2, kPaused);
    EXPECT_EQ(job.code, 0) << job.all();
    EXPECT_EQ(summary_of(job.out).hash, hash) << pause;
  }
}

// Two workers that are slow in turns, by far more than anything else takes: BSP waits for the slow one in
// each step, and with a delay the next one's pause runs beside it.
TEST(DelayedJob, PausesOfWorkersRunBesideEachOther) {
  constexpr int kPaused = 20;
  constexpr double kSlow = 0.1;
  const auto seconds = [](int delay) {
    const Ended job = run_paused(2, "base_ms: 0, slow_ms: 100, who: rotating", delay, kPaused);
    EXPECT_EQ(job.code, 0) << job.all();
    return job.seconds;
  };
  const double bsp = seconds(0), delayed = seconds(1);
  EXPECT_GE(bsp, kSlow * kPaused);
  EXPECT_LT(delayed, bsp - kSlow * kPaused / 4) << "of " << kPaused << " pauses half run beside others";
}

}  // namespace
}  // namespace varscope::testing
