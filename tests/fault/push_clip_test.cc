// optimizer.clip by norm where each push is applied by itself: one worker gives the bits of BSP, each push is
// held to the limit by itself, and a norm that is not finite is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Args kAsp = set({"cluster.consistency=asp"});
const Args kStatic = set({"cluster.dealing=static"});
const Args kSsp = set({"cluster.consistency=ssp", "cluster.staleness=1"});

Args clip(const std::string& type, const std::string& limit) {
  return set({"optimizer.clip.type=" + type, "optimizer.clip.limit=" + limit});
}

std::string hash_of(int n_ranks, const Args& job) {
  const ScratchDir dir;
  return train(mpirun(n_ranks, job + set({"job.run_dir=" + (dir / "run")}))).hash;
}

// The bits of BSP, which are not those without a clip.
void expect_bits_of_bsp(const Args& job, const std::string& limit, const std::vector<Args>& modes) {
  const std::string free = hash_of(2, job);
  for (const std::string type : {"norm", "global_norm"}) {
    SCOPED_TRACE(type);
    const Args clipped = job + clip(type, limit);
    const std::string bulk = hash_of(2, clipped);
    EXPECT_NE(bulk, free);
    for (const Args& mode : modes) EXPECT_EQ(hash_of(2, clipped + mode), bulk) << mode[1];
    EXPECT_EQ(hash_of(4, clipped + modes[0] + set({"cluster.servers=3"})), bulk) << "three servers";
  }
}

TEST(PushClip, OneWorkerAloneGivesTheBitsOfBsp) {
  const Args job = Args{"train", config_file("digits_mlp.yaml")} +
                   set({"train.max_steps=40", "checkpoint.every_steps=0", "train.eval_every_epochs=0"});
  expect_bits_of_bsp(job, "0.1", {kAsp, kSsp, kAsp + kStatic});
}

// A table is one variable beside the others: its rows are scaled by the factor that these are.
TEST(PushClip, OneWorkerAloneGivesTheBitsOfBspWithATable) {
  const Args job =
      Args{"train", config_file("synthetic_ctr.yaml")} +
      set({"train.max_steps=20", "data.train.samples=50000", "data.test.samples=2000", "optimizer.type=sgd"});
  expect_bits_of_bsp(job, "0.002", {kAsp, kSsp});
}

// Variables of several slices and parts, moving averages, which are not clipped, and float64; a ticket of the
// worker's four leaves, some of them empty in the last step of an epoch, is a step.
TEST(PushClip, ATicketOfSeveralLeavesIsClippedAsTheStepThatItIs) {
  const ScratchDir dir;
  write_text(
      dir / "job.yaml",
      "job: {name: t}\n"
      "cluster: {logical_workers: 4}\n"
      "data: {train: {type: digits, samples: 122}}\n"
      "train: {epochs: 2, batch: 20}\n"
      "optimizer: {type: momentum, learning_rate: 0.05}\n"
      "checkpoint: {every_steps: 0}\n"
      "model:\n"
      "  dtype: float64\n"
      "  loss: softmax_cross_entropy\n"
      "  layers:\n"
      "    - {type: flatten}\n"
      "    - {type: dense, scope: hidden, units: 500, activation: relu, partitioner: {type: fixed_size, parts: 3}}\n"
      "    - {type: batch_norm, scope: bn}\n"
      "    - {type: dense, scope: out, units: 10}\n");
  expect_bits_of_bsp({"train", dir / "job.yaml"}, "0.1", {kAsp + kStatic, kSsp + kStatic});
}

// One weight, whose gradient is -1024 by the samples of even rows and -0.25 by those of odd ones, whatever
// its value is; rows alternate, and a batch is one of each. All numbers are exact in float32.
std::string alternating_config(const ScratchDir& dir) {
  std::string rows = "x,y\n";
  for (int i = 0; i < 64; ++i) rows += i % 2 == 0 ? "1024,1000000\n" : "0.25,1000000\n";
  write_text(dir / "rows.csv", rows);
  write_text(dir / "job.yaml",
             "job: {name: t}\n"
             "cluster: {logical_workers: 2}\n"
             "data:\n"
             "  train: {type: csv, files: rows.csv, schema: {label: {column: y, type: number}, features: {x: "
             "{columns: [x]}}}}\n"
             "model:\n"
             "  loss: absolute_error\n"
             "  layers:\n"
             "    - {type: dense, scope: out, units: 1, initializer: zeros, bias: false}\n"
             "optimizer: {type: sgd, learning_rate: 1}\n"
             "train: {batch: 2, epochs: 1, shuffle: false, eval_every_epochs: 0}\n");
  return dir / "job.yaml";
}

std::set<std::string> predictions(const ScratchDir& dir) {
  const Ended e = run(varscope({"predict", dir / "run", "--in", dir / "rows.csv", "--out", dir / "p.csv"}));
  EXPECT_EQ(e.code, 0) << e.all();
  std::ifstream in(dir / "p.csv");
  std::set<std::string> values;
  std::string line;
  for (std::getline(in, line); std::getline(in, line);) values.insert(line.substr(line.rfind(',') + 1));
  return values;
}

// 32 steps. In BSP the mean gradient, of 512.125, is held to 1 in each. Two pushes of half a step each are
// held to 1 and left at 0.25: 0.625 in a step, whoever makes them, and in which order they come.
TEST(PushClip, EachPushIsHeldToTheLimitByItself) {
  for (const std::string type : {"norm", "global_norm"}) {
    const ScratchDir dir;
    const Args job =
        Args{"train", alternating_config(dir)} + clip(type, "1") + set({"job.run_dir=" + (dir / "run")});
    train(mpirun(2, job));
    EXPECT_EQ(predictions(dir), (std::set<std::string>{"32768", "8"}));
    for (const int n_workers : {1, 2}) {
      for (const Args& mode : {kAsp, kSsp}) {
        SCOPED_TRACE(type + ", " + std::to_string(n_workers) + " workers, " + mode[1]);
        std::filesystem::remove_all(dir / "run");
        train(mpirun(1 + n_workers, job + mode));
        EXPECT_EQ(predictions(dir), (std::set<std::string>{"20480", "5"}));
      }
    }
  }
}

// The squares of its gradients are beyond float64, the loss is not.
std::string overflowing_config(const ScratchDir& dir) {
  const std::string path = alternating_config(dir);
  write_text(dir / "rows.csv", "x,y\n1e200,1\n1e200,1\n1e200,1\n1e200,1\n");
  return path;
}

Args overflowing(const ScratchDir& dir, const std::string& type) {
  return Args{"train", overflowing_config(dir)} + clip(type, "1") + kAsp +
         set({"job.run_dir=" + (dir / "run"), "model.dtype=float64", "optimizer.learning_rate=1e-300"});
}

TEST(PushClip, ANormThatIsNotFiniteEndsTheJobAndNamesTheVariable) {
  for (const std::string type : {"norm", "global_norm"}) {
    const ScratchDir dir;
    const Ended e = run(mpirun(2, overflowing(dir, type)));
    EXPECT_EQ(e.code, 6) << e.all();
    ASSERT_EQ(e.errors().size(), 1U) << e.all();
    EXPECT_THAT(
        e.errors()[0],
        AllOf(HasSubstr("(worker 0 on "),
              HasSubstr("): step 1: the norm of the gradient of out/weights is not finite; there is no "
                        "finite checkpoint to go on from: start anew with")));
  }
}

TEST(PushClip, ANormThatIsNotFiniteIsOneWarningAndClipsNothingWhereTheJobGoesOn) {
  const ScratchDir dir;
  const Args job = overflowing(dir, "norm") + set({"train.on_nan=warn"});
  const Ended e = run(mpirun(2, job));
  EXPECT_EQ(e.code, 0) << e.all();
  ASSERT_EQ(e.messages().size(), 1U) << e.all();
  EXPECT_EQ(
      e.messages()[0],
      "varscope: warning: worker 0: step 1: the norm of the gradient of out/weights is not finite, which "
      "clips nothing; training goes on (train.on_nan: warn)");
  EXPECT_EQ(summary_of(e.out).hash,
            hash_of(2, job + set({"optimizer.clip.type=none", "optimizer.clip.limit="})));
}

// The loss is what begins it: the end is that of any job whose loss is not finite.
TEST(PushClip, ALossThatIsNotFiniteIsToldAsWithoutAClip) {
  const ScratchDir dir;
  const Ended e = run(mpirun(2, Args{"train", config_file("digits_mlp.yaml")} + clip("norm", "0.3") + kAsp +
                                    set({"job.run_dir=" + (dir / "run"), "optimizer.learning_rate=1e30"})));
  EXPECT_EQ(e.code, 6) << e.all();
  ASSERT_EQ(e.errors().size(), 1U) << e.all();
  EXPECT_THAT(e.errors()[0], AllOf(HasSubstr("(server 0 on "), HasSubstr("): step 2: the loss is nan; ")));
}

TEST(PushClip, PlanHasNoGradientMemoryOnServersThen) {
  const ScratchDir dir;
  const Args job = Args{"plan", config_file("digits_mlp.yaml"), "--workers", "2"} + clip("norm", "1");
  const std::string words = "(gradients, to clip by norm)";
  EXPECT_THAT(run(varscope(job)).out, HasSubstr(words));
  EXPECT_THAT(run(varscope(job + kAsp)).out, AllOf(HasSubstr("memory: a server"), Not(HasSubstr(words))));
}

}  // namespace
}  // namespace varscope::testing
