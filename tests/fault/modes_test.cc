// SSP and ASP as their users start them: one worker gives the bits of BSP, every sample counts once over
// kills, and a stopped worker holds nobody up for longer than a save may take.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <regex>
#include <set>

#include "tests/support/jobs/counting_job.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

struct Mode {
  const char* name;
  Args keys;
};

const std::vector<Mode>& modes() {
  static const std::vector<Mode> all{
      {"AspDynamic", set({"cluster.consistency=asp", "cluster.dealing=dynamic"})},
      {"AspStatic", set({"cluster.consistency=asp", "cluster.dealing=static"})},
      {"SspDynamic", set({"cluster.consistency=ssp", "cluster.staleness=2", "cluster.dealing=dynamic"})},
      {"SspStatic", set({"cluster.consistency=ssp", "cluster.staleness=1", "cluster.dealing=static"})}};
  return all;
}

class EachMode : public ::testing::TestWithParam<std::size_t> {
 protected:
  const Mode& mode() const { return modes()[GetParam()]; }
};

INSTANTIATE_TEST_SUITE_P(Modes, EachMode, ::testing::Range<std::size_t>(0, 4),
                         [](const auto& info) { return std::string(modes()[info.param].name); });

// One worker with one leaf: each push is a step, and nobody comes in between.
TEST_P(EachMode, OneWorkerAloneGivesTheBitsOfBsp) {
  const Args dense = Args{"train", config_file("digits_mlp.yaml")} +
                     set({"train.max_steps=170", "checkpoint.every_steps=0", "train.eval_every_epochs=1"});
  const Args sparse = Args{"train", config_file("synthetic_ctr.yaml")} +
                      set({"train.max_steps=60", "data.train.samples=100000", "data.test.samples=2000"});
  const Args adam = dense + set({"optimizer.type=adam", "optimizer.momentum="});
  static std::vector<Summary> of_bsp;
  const std::vector<Args> jobs{dense, sparse, adam};
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const Args& job = jobs[i];
    const ScratchDir dir;
    if (of_bsp.size() == i) of_bsp.push_back(train(mpirun(2, job + set({"job.run_dir=" + (dir / "bsp")}))));
    const Summary& bulk = of_bsp[i];
    const Summary mine = train(mpirun(2, job + set({"job.run_dir=" + (dir / "mode")}) + mode().keys));
    EXPECT_EQ(mine.hash, bulk.hash) << job[1];
    EXPECT_EQ(mine.test_loss, bulk.test_loss) << job[1];
  }
}

constexpr int kRows = 2048, kBatch = CountingJob::kBatch, kEpochs = 40;

std::string counting_config(const ScratchDir& dir) {
  return write_counting_job(dir, {.rows = kRows,
                                  .epochs = kEpochs,
                                  .of_train = ", log_every_steps: 10",
                                  .sections = "cluster: {logical_workers: 8}\n"
                                              "checkpoint: {every_steps: 20, keep: 2}\n"});
}

// How often each of the samples has counted.
std::set<double> counts_of(const std::string& run_dir, const ScratchDir& dir) {
  const std::vector<double> counts = counted_rows(dir, run_dir);
  EXPECT_EQ(counts.size(), static_cast<std::size_t>(kRows));
  return {counts.begin(), counts.end()};
}

TEST_P(EachMode, EverySampleCountsOnceInEachEpoch) {
  const ScratchDir dir;
  train(mpirun(5, Args{"train", counting_config(dir)} +
                      set({"job.run_dir=" + (dir / "run"), "cluster.servers=2", "train.epochs=3"}) +
                      mode().keys));
  EXPECT_EQ(counts_of(dir / "run", dir), std::set<double>{3});
}

// How many rounds of kills: one, or VARSCOPE_PROOF_ROUNDS for a long run.
int n_rounds() {
  const char* rounds = std::getenv("VARSCOPE_PROOF_ROUNDS");
  return rounds != nullptr ? std::max(1, std::atoi(rounds)) : 1;
}

// Kills a rank of the run five times. Each start has another number of servers and workers, and another
// mode.
void run_over_kills(const std::string& config, const std::string& run_dir, int round) {
  std::mt19937_64 random(20261128 + static_cast<std::uint64_t>(round));
  int n_kills = 0;
  for (int start = 0;; ++start) {
    const int servers = 1 + static_cast<int>(random() % 3), workers = 1 + static_cast<int>(random() % 4);
    const bool resumes = std::ranges::any_of(names_in(run_dir + "/checkpoints"),
                                             [](const std::string& n) { return n.starts_with("step-"); });
    Job job(mpirun(servers + workers,
                   Args{"train", config} +
                       set({"job.run_dir=" + run_dir, "cluster.servers=" + std::to_string(servers)}) +
                       modes()[random() % 4].keys + (resumes ? Args{"--resume"} : Args{})));
    if (start < 5) {
      const std::vector<pid_t> pids = job.rank_pids(servers + workers, kStartSeconds);
      ASSERT_FALSE(pids.empty()) << job.err();
      const std::int64_t from = kRows / kBatch * kEpochs * (start + 1) / 8;
      job.wait_until([&] { return job.last_step() >= from; }, kStartSeconds);
      if (kill(pids[random() % pids.size()], SIGKILL) == 0) ++n_kills;
    }
    const Ended ended = job.wait(60 * kSlowness);
    ASSERT_TRUE(ended.in_time) << ended.all();
    if (ended.code == 0) break;
    ASSERT_LT(start, 5) << ended.all();
  }
  EXPECT_GE(n_kills, 3);
}

TEST(KilledModes, EverySampleCountsOnceInEachEpochAllTheSame) {
  for (int round = 0; round < n_rounds(); ++round) {
    SCOPED_TRACE(round);
    const ScratchDir dir;
    run_over_kills(counting_config(dir), dir / "run", round);
    EXPECT_EQ(counts_of(dir / "run", dir), std::set<double>{kEpochs});
  }
}

// Each sample adds 1 to the weight of its column. Most of that is kept back for many steps before it is sent.
TEST(KilledModes, NothingIsLostThatCompressionKeepsBack) {
  const ScratchDir dir;
  constexpr int kColumns = 256;
  static_assert(kRows % kColumns == 0);
  std::string rows, columns;
  for (int i = 0; i < kRows; ++i) rows += fmt::format("1000000 {}:1\n", i % kColumns + 1);
  for (int i = 0; i < kColumns; ++i) columns += fmt::format("0 {}:1\n", i + 1);
  write_text(dir / "rows.txt", rows);
  write_text(dir / "columns.txt", columns);
  write_text(
      dir / "count.yaml",
      fmt::format("job: {{name: count}}\n"
                  "data: {{train: {{type: libsvm, files: rows.txt, label: number}}}}\n"
                  "model:\n"
                  "  layers: [{{type: dense, units: 1, bias: false, initializer: zeros}}]\n"
                  "  loss: absolute_error\n"
                  "  compression: {{type: topk, ratio: 0.02, start_step: 0, min_bytes: 4, values: bf16}}\n"
                  "optimizer: {{type: sgd, learning_rate: {0}}}\n"
                  "train: {{batch: {0}, epochs: {1}, log_every_steps: 10}}\n"
                  "cluster: {{logical_workers: 8, drain_every_steps: 50}}\n"
                  "checkpoint: {{every_steps: 20, keep: 2}}\n",
                  kBatch, kEpochs));
  run_over_kills(dir / "count.yaml", dir / "run", 0);
  const Ended predicted =
      run(varscope({"predict", dir / "run", "--in", dir / "columns.txt", "--out", dir / "counts.csv"}));
  ASSERT_EQ(predicted.code, 0) << predicted.all();
  // To rounding: what is kept back is sent in parts.
  constexpr int kVisits = kEpochs * (kRows / kColumns);
  const std::vector<double> counts = last_column(dir / "counts.csv");
  EXPECT_EQ(counts.size(), static_cast<std::size_t>(kColumns));
  for (const double count : counts) EXPECT_NEAR(count, kVisits, 0.01);
}

// At a rate that changes no value the loss of a step says with which state it was computed.
TEST(KilledModes, CarriedStateComesBackToItsOwnWorker) {
  const ScratchDir dir;
  std::string text;
  for (int i = 0; i < 400; ++i) text += fmt::format("w{} ", i * i % 7);
  write_text(dir / "words.txt", text);
  write_text(
      dir / "text.yaml",
      "data: {train: {type: text, file: words.txt, vocabulary: 9, steps: 5}}\n"
      "model:\n  loss: softmax_cross_entropy\n  layers:\n"
      "    - {type: embedding, vocabulary: 9, units: 4, initializer: {type: uniform, low: -2, high: 2}}\n"
      "    - {type: lstm, units: 6, initializer: {type: uniform, low: -2, high: 2}}\n"
      "    - {type: dense, units: 9, each_step: true, initializer: {type: uniform, low: -2, high: 2}}\n"
      "train: {epochs: 1, batch: 4, log_every_steps: 1}\n"
      "optimizer: {type: sgd, learning_rate: 1.0e-30}\n"
      "job: {name: t}\n");
  const auto last_loss = [&](const std::string& run, int steps, const Args& keys) {
    train(mpirun(3, Args{"train", dir / "text.yaml"} + keys +
                        set({"job.run_dir=" + dir / run, fmt::format("train.max_steps={}", steps)})));
    const std::string lines = read_text(dir / run + "/metrics.jsonl");
    const std::size_t step = lines.rfind("\"event\":\"step\""), at = lines.find("\"loss\":", step);
    return lines.substr(at, lines.find(',', at) - at);
  };
  const Args mode = set({"cluster.consistency=asp", "cluster.dealing=static"});
  const std::string whole = last_loss("whole", 6, {});
  EXPECT_NE(last_loss("mode", 4, mode), whole);
  EXPECT_EQ(last_loss("mode", 6, mode + Args{"--resume"}), whole);
}

TEST_P(EachMode, IsStoppedBySignalAndGoesOn) {
  const ScratchDir dir;
  constexpr int kMany = 1000;  // epochs, which take some seconds
  const Args args = Args{"train", counting_config(dir)} +
                    set({"job.run_dir=" + (dir / "run"), "cluster.servers=1", "checkpoint.every_steps=0",
                         "train.epochs=" + std::to_string(kMany)}) +
                    mode().keys;
  Job job(mpirun(4, args));
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 40; }, kStartSeconds)) << job.err();
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U);
  kill(pids[2], SIGUSR2);
  const Ended stopped = job.wait(30 * kSlowness);
  EXPECT_EQ(stopped.code, 75) << stopped.all();
  const Summary rest = train(mpirun(3, args + Args{"--resume"}));
  EXPECT_GE(rest.first_step, 40);
  EXPECT_EQ(counts_of(dir / "run", dir), std::set<double>{kMany});
}

TEST(ResumedModes, SayThatTheRunGoesOnInAnotherMode) {
  const ScratchDir dir;
  const Args args =
      Args{"train", counting_config(dir)} + set({"job.run_dir=" + (dir / "run"), "cluster.servers=1"});
  const Ended first = run(mpirun(3, args + set({"train.epochs=1"}) + modes()[2].keys));
  ASSERT_EQ(first.code, 0) << first.all();
  EXPECT_NE(
      first.out.find("8 logical workers; SSP(2), dealing dynamic\n  consistency  ssp: values are at most 2"),
      std::string::npos)
      << first.out;
  const Ended rest = run(mpirun(3, args + Args{"--resume"} + set({"train.epochs=2"})));
  ASSERT_EQ(rest.code, 0) << rest.all();
  EXPECT_NE(
      rest.err.find(
          "cluster.consistency: ssp, staleness 2, dealing dynamic in the checkpoint's run, bsp now; the "
          "bits will differ from those of a run that was not changed, and each sample of an epoch is "
          "learnt exactly once all the same"),
      std::string::npos)
      << rest.err;
  EXPECT_NE(rest.out.find("8 logical workers; BSP\n  consistency  bsp: the same bits"), std::string::npos)
      << rest.out;
  EXPECT_EQ(counts_of(dir / "run", dir), std::set<double>{2});
  // In these there are no bits to keep, and with backup workers not every sample counts.
  const Ended again = run(mpirun(
      4, args + Args{"--resume"} + set({"train.epochs=3", "cluster.logical_workers=6"}) + modes()[2].keys));
  ASSERT_EQ(again.code, 0) << again.all();
  EXPECT_NE(again.err.find(
                "bsp in the checkpoint's run, ssp, staleness 2, dealing dynamic now; the run goes on with "
                "it, and each sample of an epoch is learnt exactly once all the same"),
            std::string::npos)
      << again.err;
  EXPECT_NE(again.err.find(
                "the checkpoint was made with 8 logical workers, this job has 6: a step is made of so many "
                "parts; cluster.logical_workers: 8 keeps them"),
            std::string::npos)
      << again.err;
  const Ended dropping =
      run(mpirun(3, args + Args{"--resume"} +
                        set({"train.epochs=4", "cluster.logical_workers=2", "cluster.backup_workers=1"})));
  ASSERT_EQ(dropping.code, 0) << dropping.all();
  EXPECT_NE(
      dropping.err.find("bsp, backup workers 1 now; the bits will differ from those of a run that was not "
                        "changed; what backup workers make late is dropped, and counts in no epoch"),
      std::string::npos)
      << dropping.err;
}

// The others train on; the save that it is missing in is given up, and the next one works.
TEST(StoppedWorker, HoldsNobodyUpForLongerThanASaveMayTake) {
  const ScratchDir dir;
  Job job(mpirun(4, Args{"train", counting_config(dir)} +
                        set({"job.run_dir=" + (dir / "run"), "cluster.servers=1", "train.epochs=4000",
                             "train.max_steps=8000", "checkpoint.every_steps=50", "checkpoint.timeout_s=1",
                             "cluster.consistency=asp"})));
  ASSERT_TRUE(job.wait_until([&] { return job.last_step() >= 100; }, kStartSeconds)) << job.err();
  const std::vector<pid_t> pids = job.rank_pids(4, kStartSeconds);
  ASSERT_EQ(pids.size(), 4U);
  kill(pids[3], SIGSTOP);
  const std::regex named("given up[^\n]*worker 2");
  EXPECT_TRUE(job.wait_until([&] { return std::regex_search(job.out() + job.err(), named); }, kStartSeconds))
      << job.out() << job.err();
  const std::vector<std::int64_t> before = summary_of(job.out()).checkpoints;
  kill(pids[3], SIGCONT);
  const Ended ended = job.wait(120 * kSlowness);
  EXPECT_EQ(ended.code, 0) << ended.all();
  // One of those that are due on the way, and the last one.
  EXPECT_GE(summary_of(ended.out).checkpoints.size(), before.size() + 2) << ended.all();
}

}  // namespace
}  // namespace varscope::testing
