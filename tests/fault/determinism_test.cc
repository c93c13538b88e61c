// In BSP mode a run is a function of config, seed and data: the hash of its final values does not depend on
// timing, on the number of servers, on being interrupted, nor, with cluster.logical_workers, on the number of
// workers.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

// 450 samples in batches of 64: the eighth batch of an epoch has 2, so that some logical workers get none;
// and the 20 steps see three epochs.
constexpr std::int64_t kSteps = 20;
const Args kFewSteps = set({"data.train.samples=450", "train.eval_every_epochs=0", "output.metrics=false"});

struct Cluster {
  int servers, workers;
  int logical_workers = 0;
  static constexpr int kOneProcess = 0;  // as `workers`
};

Command train_on(const Cluster& c, const std::string& run_dir, const Args& more = {}) {
  const Args args = Args{"train", config_file("digits_mlp.yaml")} + kFewSteps +
                    set({"job.run_dir=" + run_dir, "cluster.servers=" + std::to_string(c.servers),
                         "cluster.logical_workers=" + std::to_string(c.logical_workers),
                         "train.max_steps=" + std::to_string(kSteps)}) +
                    more;
  return c.workers == Cluster::kOneProcess ? varscope(args) : mpirun(c.servers + c.workers, args);
}

std::string hash_on(const Cluster& c, const Args& more = {}) {
  SCOPED_TRACE(::testing::Message() << c.servers << " servers, " << c.workers << " workers");
  const ScratchDir dir;
  const Summary s = train(train_on(c, dir / "run", more));
  EXPECT_EQ(s.step, kSteps);
  return s.hash;
}

// Stops after `first_steps` on one cluster and goes on from the checkpoint on another.
std::string hash_in_two_parts(const Cluster& first, const Cluster& second, std::int64_t first_steps,
                              const Args& more = {}) {
  const ScratchDir dir;
  const Summary a =
      train(train_on(first, dir / "run", more + set({"train.max_steps=" + std::to_string(first_steps)})));
  EXPECT_EQ(a.step, first_steps);
  const Summary b = train(train_on(second, dir / "run", more + Args{"--resume"}));
  EXPECT_EQ(b.first_step, first_steps);
  EXPECT_EQ(b.step, kSteps);
  EXPECT_NE(a.hash, b.hash) << "the second part has changed nothing";
  return b.hash;
}

TEST(Determinism, RepeatedRunsAgree) {
  const std::string first = hash_on({1, 2});
  EXPECT_EQ(hash_on({1, 2}), first);
  EXPECT_EQ(hash_on({1, 2}), first);
}

TEST(Determinism, OtherSeedsDtypesAndLogicalWorkersGiveOtherBits) {
  const std::string one = hash_on({1, Cluster::kOneProcess, 4});
  EXPECT_NE(hash_on({1, Cluster::kOneProcess, 4}, set({"job.seed=2"})), one);
  EXPECT_NE(hash_on({1, Cluster::kOneProcess, 4}, set({"model.dtype=float64"})), one);
  EXPECT_NE(hash_on({1, Cluster::kOneProcess, 1}), one);
}

TEST(Determinism, TheNumberOfServersDoesNotMatter) {
  const std::string one = hash_on({1, 2});
  EXPECT_EQ(hash_on({2, 2}), one);
  EXPECT_EQ(hash_on({3, 2}), one);
}

// Layers of megabytes: their buckets travel in several chunks, the last of which is short.
TEST(Determinism, NorWhereBucketsHaveManyChunks) {
  const Args large = set({"model.layers.0.units=1024", "model.layers.1.units=768", "train.max_steps=8"});
  const ScratchDir dir;
  const std::string one = train(train_on({1, 2}, dir / "one", large)).hash;
  EXPECT_EQ(train(train_on({2, 2}, dir / "two", large)).hash, one);
  EXPECT_EQ(train(train_on({3, 1, 2}, dir / "three", large)).hash, one);
  EXPECT_EQ(train(train_on({2, Cluster::kOneProcess, 2}, dir / "threads", large)).hash, one);
}

TEST(Determinism, FourLogicalWorkersOnAnyNumberOfWorkers) {
  const std::string one = hash_on({1, 1, 4});
  EXPECT_EQ(hash_on({1, 2, 4}), one);
  EXPECT_EQ(hash_on({1, 3, 4}), one);
  EXPECT_EQ(hash_on({1, 4, 4}), one);
  EXPECT_EQ(hash_on({2, 3, 4}), one);
  EXPECT_EQ(hash_on({1, Cluster::kOneProcess, 4}), one);
  EXPECT_EQ(hash_on({3, Cluster::kOneProcess, 4}), one);
}

TEST(Determinism, ThreeLogicalWorkersOnAnyNumberOfWorkers) {
  const std::string one = hash_on({1, 1, 3});
  EXPECT_EQ(hash_on({1, 2, 3}), one);
  EXPECT_EQ(hash_on({2, 3, 3}), one);
  EXPECT_EQ(hash_on({1, Cluster::kOneProcess, 3}), one);
}

TEST(Determinism, AnInterruptedRunEndsInTheSameBits) {
  const std::string whole = hash_on({1, 2});
  EXPECT_EQ(hash_in_two_parts({1, 2}, {1, 2}, 5), whole);  // inside an epoch
  EXPECT_EQ(hash_in_two_parts({1, 2}, {1, 2}, 8), whole);  // between two epochs
  EXPECT_EQ(hash_in_two_parts({1, 2}, {1, 2}, 19), whole);
}

TEST(Determinism, AKilledRunEndsInTheSameBits) {
  const ScratchDir dir;
  const std::string checkpoints = dir / "run/checkpoints";
  const auto newest = [&] {
    const std::vector<std::string> names = names_in(checkpoints);
    return !names.empty() && names.back().starts_with("step-") ? names.back() : std::string();
  };
  {
    // Would not end by itself.
    Job job(train_on({1, 2}, dir / "run",
                     set({"checkpoint.every_steps=6", "train.max_steps=0", "train.epochs=1000000"})));
    const std::vector<pid_t> pids = job.rank_pids(3, 20 * kSlowness);
    ASSERT_EQ(pids.size(), 3U);
    ASSERT_TRUE(job.wait_until([&] { return !newest().empty(); }, 20 * kSlowness)) << job.wait(0).all();
    kill(pids[2], SIGKILL);
    EXPECT_NE(job.wait(10 * kSlowness).code, 0);
  }
  const std::int64_t step = std::stoll(newest().substr(5));
  const Args until = set({"train.epochs=1000000", "train.max_steps=" + std::to_string(step + 10)});
  const ScratchDir other;
  const Summary whole = train(train_on({1, 2}, other / "run", until));
  const Summary resumed = train(train_on({1, 2}, dir / "run", until + Args{"--resume"}));
  EXPECT_EQ(resumed.first_step, step);
  EXPECT_EQ(resumed.step, step + 10);
  EXPECT_EQ(resumed.hash, whole.hash);
}

TEST(Determinism, ResumesOnAnotherNumberOfServers) {
  const std::string whole = hash_on({1, 2});
  EXPECT_EQ(hash_in_two_parts({1, 2}, {3, 2}, 9), whole);
  EXPECT_EQ(hash_in_two_parts({3, 2}, {1, 2}, 9), whole);
  EXPECT_EQ(hash_in_two_parts({2, 2}, {3, 2}, 9), whole);
}

TEST(Determinism, ResumesOnAnotherNumberOfWorkers) {
  const std::string whole = hash_on({1, Cluster::kOneProcess, 4});
  EXPECT_EQ(hash_in_two_parts({1, 4, 4}, {1, 1, 4}, 9), whole);
  EXPECT_EQ(hash_in_two_parts({1, 1, 4}, {2, 3, 4}, 9), whole);
  EXPECT_EQ(hash_in_two_parts({2, 2, 4}, {1, Cluster::kOneProcess, 4}, 9), whole);
  EXPECT_EQ(hash_in_two_parts({2, Cluster::kOneProcess, 4}, {1, 2, 4}, 9), whole);
}

// With other logical workers the bits differ, but each sample of the interrupted epoch is still used exactly
// once: with a learning rate that changes nothing, the epoch's loss is a sum over its samples alone, in which
// one that were missing or used twice would show.
TEST(Determinism, OtherLogicalWorkersUseEverySampleExactlyOnce) {
  const Args still =
      set({"output.metrics=true", "train.epochs=2", "optimizer={type: sgd, learning_rate: 1.0e-30}"});
  const auto epochs = [](const std::string& run_dir) {
    std::vector<std::pair<std::int64_t, double>> all;  // samples, loss
    for (const std::string& line : lines_of(read_text(run_dir + "/metrics.jsonl"))) {
      const nlohmann::json j = nlohmann::json::parse(line);
      if (j.at("event") == "epoch") all.emplace_back(j.at("samples"), j.at("loss"));
    }
    return all;
  };
  const ScratchDir dir;
  train(train_on({1, 2}, dir / "whole", still));
  const auto due = epochs(dir / "whole");
  ASSERT_EQ(due.size(), 2U);
  EXPECT_EQ(due[0].first, 450);
  EXPECT_NEAR(due[0].second, due[1].second, 1e-6 * due[0].second);  // another order, the same samples
  const std::vector<std::pair<Cluster, Cluster>> changes = {{{1, 2}, {1, 3}}, {{2, 3}, {1, 1}}};
  for (const auto& [first, second] : changes) {
    const std::string run_dir = dir / (std::to_string(first.workers) + "-" + std::to_string(second.workers));
    train(train_on(first, run_dir, still + set({"train.max_steps=5"})));  // of 8 in an epoch
    const Ended ended = run(train_on(second, run_dir, still + Args{"--resume"}));
    ASSERT_EQ(ended.code, 0) << ended.all();
    EXPECT_NE(ended.err.find("gradients are summed in another order"), std::string::npos) << ended.err;
    const auto got = epochs(run_dir);
    ASSERT_EQ(got.size(), 2U);
    for (std::size_t e = 0; e < 2; ++e) {
      EXPECT_EQ(got[e].first, 450);
      EXPECT_NEAR(got[e].second, due[e].second, 1e-6 * due[e].second);
    }
  }
}

TEST(Determinism, DoublePrecisionAndAdamToo) {
  const Args more = set({"model.dtype=float64", "optimizer={type: adam, learning_rate: 0.002}"});
  const std::string whole = hash_on({1, 2, 4}, more);
  EXPECT_EQ(hash_on({3, 1, 4}, more), whole);
  EXPECT_EQ(hash_on({1, Cluster::kOneProcess, 4}, more), whole);
  EXPECT_EQ(hash_in_two_parts({1, 2, 4}, {2, 3, 4}, 9, more), whole);
}

}  // namespace
}  // namespace varscope::testing
