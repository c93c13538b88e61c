// Jobs with backup workers as their users start them: late workers are dropped and listed, and hold nobody
// up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/counting_job.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr int kWorkers = 4, kSteps = 24, kSamples = 1000, kBatch = 64;

// 15 full batches and one of 40 make an epoch.
Args paused_job(const ScratchDir& dir, const std::string& run_dir, const std::string& pause) {
  const std::string path = dir / "job.yaml";
  write_text(path, R"(job: {name: backups}
data:
  train: {type: digits, samples: 1000}
  test: {type: digits, samples: 100, seed: 9}
model:
  loss: softmax_cross_entropy
  layers:
    - {type: dense, scope: hidden, units: 32, activation: relu, initializer: fan_in_uniform}
    - {type: pause, )" +
                       pause + R"(}
    - {type: dense, scope: output, units: 10, initializer: fan_in_uniform}
optimizer: {type: sgd, learning_rate: 0.1}
train: {batch: 64, epochs: 100, max_steps: 24}
checkpoint: {every_steps: 0, at_end: false}
)");
  return Args{"train", path} + set({"job.run_dir=" + (dir / run_dir)});
}

Ended run_paused(const Args& args, int workers = kWorkers) {
  Command command = mpirun(workers + 1, args);
  std::ranges::replace(command.argv, std::string(VARSCOPE_BINARY), std::string(VARSCOPE_PAUSED_BINARY));
  return run(command);
}

struct Metrics {
  std::map<std::int64_t, std::vector<int>> dropped;  // workers by step
  std::int64_t dropped_samples = 0, epoch_samples = 0;
  json finish;
};

Metrics metrics_of(const std::string& run_dir) {
  Metrics m;
  std::ifstream in(run_dir + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const json event = json::parse(line);
    if (event["event"] == "dropped") {
      m.dropped[event["step"]] = event["workers"].get<std::vector<int>>();
      m.dropped_samples += event["samples"].get<std::int64_t>();
    }
    if (event["event"] == "epoch") m.epoch_samples += event["samples"].get<std::int64_t>();
    if (event["event"] == "finish") m.finish = event;
  }
  return m;
}

std::int64_t batch_of(std::int64_t step) { return step % 16 == 0 ? kSamples - 15 * kBatch : kBatch; }

TEST(BackupJob, ASlowWorkerIsDroppedAndListedAndARecordedRunIsReplayed) {
  const ScratchDir dir;
  const std::string pause = "base_ms: 0, slow_ms: 150, who: rotating";
  const Ended plain = run_paused(paused_job(dir, "plain", pause));
  ASSERT_EQ(plain.code, 0) << plain.all();
  const Args args = paused_job(dir, "run", pause) + set({"cluster.backup_workers=1", "cluster.record=true"});
  const Ended job = run_paused(args);
  ASSERT_EQ(job.code, 0) << job.all();
  EXPECT_THAT(job.out, HasSubstr("BSP, 1 backup worker"));

  const Metrics m = metrics_of(dir / "run");
  ASSERT_EQ(m.dropped.size(), static_cast<std::size_t>(kSteps));
  std::vector<std::int64_t> steps_of(kWorkers, 0), samples_of(kWorkers, 0);
  int n_slow = 0;
  for (const auto& [step, workers] : m.dropped) {
    ASSERT_EQ(workers.size(), 1U) << step;
    const auto w = static_cast<std::size_t>(workers.front());
    ++steps_of[w];
    samples_of[w] += batch_of(step) / kWorkers;
    n_slow += step % kWorkers == workers.front() ? 1 : 0;
  }
  EXPECT_GE(n_slow, kSteps / 2) << job.all();
  const json& total = m.finish["dropped"];
  EXPECT_EQ(total["samples"], m.dropped_samples);
  EXPECT_EQ(total["of_samples"], kSamples + 8 * kBatch);
  for (std::size_t w = 0; w < kWorkers; ++w) {
    EXPECT_EQ(total["workers"][w]["steps"], steps_of[w]);
    EXPECT_EQ(total["workers"][w]["samples"], samples_of[w]);
  }
  EXPECT_EQ(m.epoch_samples, kSamples - 15 * kBatch / kWorkers - 10) << "the first 16 steps";
  EXPECT_THAT(job.out,
              ContainsRegex("dropped      [0-9]+ of 1,512 samples \\(2[0-9]\\.[0-9] %\\); most of worker "));
  EXPECT_LT(m.finish["seconds"].get<double>(), metrics_of(dir / "plain").finish["seconds"].get<double>());

  const Ended again = run_paused(args + Args{"--replay", dir / "run"});
  ASSERT_EQ(again.code, 0) << again.all();
  EXPECT_EQ(summary_of(again.out).hash, summary_of(job.out).hash);
  EXPECT_EQ(summary_of(again.out).test_loss, summary_of(job.out).test_loss);
  EXPECT_EQ(metrics_of(dir / "run-replay").dropped, m.dropped);
}

// Who counts is recorded; all else, what rounding makes of gradients and values too, follows from that. Each
// with another number of workers and backups.
TEST(BackupJob, CompressedGradientsAndValuesOfARecordedRunHaveTheSameBitsAgain) {
  struct Case {
    const char* compression;
    int servers, workers, backups;
  };
  for (const Case& c : {Case{"{type: fp16}", 2, 3, 2}, Case{"{type: bf16, values: bf16}", 1, 6, 1}}) {
    SCOPED_TRACE(c.compression);
    const ScratchDir dir;
    const auto run_on = [&](int servers, const Args& more) {
      return run(mpirun(servers + c.workers,
                        Args{"train", config_file("digits_mlp.yaml")} +
                            set({"job.run_dir=" + (dir / "run"), "train.max_steps=30", "train.epochs=100",
                                 "train.eval_every_epochs=0", "checkpoint.every_steps=0",
                                 "cluster.servers=" + std::to_string(servers),
                                 std::string("model.compression=") + c.compression,
                                 "cluster.backup_workers=" + std::to_string(c.backups)}) +
                            more));
    };
    const Ended job = run_on(c.servers, set({"cluster.record=true"}));
    ASSERT_EQ(job.code, 0) << job.all();
    EXPECT_EQ(metrics_of(dir / "run").dropped.size(), 30U);
    EXPECT_LT(summary_of(job.out).test_loss, 2.2) << "it has learnt something";
    const Ended again = run_on(c.servers, Args{"--replay", dir / "run"});
    ASSERT_EQ(again.code, 0) << again.all();
    EXPECT_EQ(summary_of(again.out).hash, summary_of(job.out).hash);
  }
}

// A last batch of one sample, and evaluations in between: who has nothing to do is done first.
TEST(BackupJob, EpochsWithAShortLastBatchEnd) {
  for (const auto& [workers, backups] : {std::pair{2, 1}, {4, 3}}) {
    const ScratchDir dir;
    const Summary s =
        train(mpirun(workers + 1, Args{"train", config_file("digits_mlp.yaml")} +
                                      set({"job.run_dir=" + (dir / "run"), "data.train.samples=129",
                                           "train.batch=64", "train.epochs=3", "train.max_steps=0",
                                           "train.eval_every_epochs=1", "checkpoint.every_steps=0",
                                           "cluster.backup_workers=" + std::to_string(backups)})));
    EXPECT_EQ(s.step, 9);
    const Metrics m = metrics_of(dir / "run");
    EXPECT_EQ(m.finish["dropped"]["of_samples"], 3 * 129);
    EXPECT_EQ(m.epoch_samples + m.dropped_samples, 3 * 129);
  }
}

// Three of four equal parts count, so that a sample that counts adds 4/3 to its row.
TEST(BackupJob, RowsOfATableCountTheSamplesThatWereNotDropped) {
  constexpr int kRows = 2048;
  const ScratchDir dir;
  const std::string config = write_counting_job(dir, {.rows = kRows, .epochs = 3});
  train(mpirun(6, Args{"train", config} + set({"job.run_dir=" + (dir / "run"), "cluster.servers=2",
                                               "cluster.backup_workers=1"})));
  const json total = metrics_of(dir / "run").finish["dropped"];
  EXPECT_EQ(total["samples"], 3 * kRows / 4);
  std::int64_t n_counted = 0;
  for (const double row : counted_rows(dir, dir / "run")) {
    const double times = row * 3 / 4;
    EXPECT_NEAR(times, std::round(times), 1e-4);
    EXPECT_LE(times, 3.001);
    n_counted += std::llround(times);
  }
  EXPECT_EQ(n_counted, 3 * kRows - 3 * kRows / 4);
}

TEST(BackupJob, IsStoppedBySignalGoesOnAndEndsWhereAWorkerDies) {
  const ScratchDir dir;
  const Args args =
      Args{"train", config_file("digits_mlp.yaml")} +
      set({"job.run_dir=" + (dir / "run"), "train.max_steps=1000000", "train.epochs=1000000",
           "train.log_every_steps=10", "train.eval_every_epochs=0", "cluster.backup_workers=1"});
  {
    Job job(mpirun(4, args));
    const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
    ASSERT_EQ(pids.size(), 4U) << job.err();
    ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 20; }, kStartSeconds)) << job.err();
    kill(pids[2], SIGUSR2);
    const Ended stopped = job.wait(30 * kSlowness);
    ASSERT_EQ(stopped.code, 75) << stopped.all();
  }
  Job job(mpirun(4, args + Args{"--resume"}));
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U) << job.err();
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 40; }, kStartSeconds)) << job.err();
  kill(pids[3], SIGKILL);
  EXPECT_EQ(job.wait(30 * kSlowness).code, 137);
}

TEST(BackupJob, MoreBackupsThanMayBeAreRefusedAtTheStart) {
  const ScratchDir dir;
  const Ended e = run(mpirun(3, Args{"train", config_file("digits_mlp.yaml")} +
                                    set({"job.run_dir=" + (dir / "run"), "cluster.backup_workers=2"})));
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(e.err, HasSubstr("cluster.backup_workers: 2 is too many for 2 workers"));
}

}  // namespace
}  // namespace varscope::testing
