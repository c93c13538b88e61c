// Jobs whose loss or values become NaN or infinite: words, code, checkpoints and files; and figures on the
// way there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kConfig =
    "job: {name: t}\n"
    "data: {train: {type: digits, samples: 200}, test: {type: digits, samples: 60}}\n"
    "train: {epochs: 4, batch: 20, log_every_steps: 2}\n"
    "optimizer: {type: momentum, learning_rate: 0.05}\n"
    "checkpoint: {every_steps: 4, keep: 3, when_busy: queue}\n"
    "model:\n"
    "  loss: softmax_cross_entropy\n"
    "  layers:\n"
    "    - {type: flatten}\n"
    "    - {type: dense, scope: hidden, units: 12, activation: relu}\n"
    "    - {type: dense, scope: out, units: 10}\n";

class NotFiniteJob : public ::testing::Test {
 protected:
  void SetUp() override { write_text(file, kConfig); }
  // 20 good steps with three checkpoints, whatever the disk does: each run ends with one.
  void train_well() {
    train(varscope(train_args({"train.max_steps=8"})));
    train(varscope(train_args({"train.max_steps=14"}, {"--resume"})));
    ASSERT_EQ(train(varscope(train_args({"train.max_steps=20"}, {"--resume"}))).step, 20);
    ASSERT_EQ(checkpoints_there().size(), 3U);
  }
  // And then a rate that no model bears.
  Args train_args(std::initializer_list<std::string> assignments, const Args& more = {}) const {
    return Args{"train", file} + more + set({"job.run_dir=" + run_dir}) + set(assignments);
  }
  Ended diverge(const std::string& on_nan = "stop") const {
    return run(
        varscope(train_args({"optimizer.learning_rate=1e30", "train.on_nan=" + on_nan}, {"--resume"})));
  }
  std::vector<std::string> checkpoints_there() const {
    std::vector<std::string> names;
    for (const std::string& name : names_in(checkpoints)) {
      if (name.starts_with("step-")) names.push_back(name);
    }
    return names;
  }
  std::string path(const std::string& name) const { return checkpoints + "/" + name; }
  bool is_finite(const std::string& name) const {
    return json::parse(read_text(path(name) + "/manifest.json"))["finite"].get<bool>();
  }
  // One event of metrics.jsonl; every line is JSON, which has no NaN.
  std::vector<json> events(const std::string& name) const {
    std::vector<json> found;
    for (const std::string& line : lines_of(read_text(run_dir + "/metrics.jsonl"))) {
      const json event = json::parse(line);
      if (event["event"] == name) found.push_back(event);
    }
    return found;
  }

  ScratchDir dir;
  std::string file = dir / "job.yaml", run_dir = dir / "run", checkpoints = dir / "run/checkpoints";
};

TEST_F(NotFiniteJob, StopsAtOnceAndNamesStepVariableAndTheCommandThatGoesOn) {
  train_well();
  const Ended e = diverge();
  EXPECT_EQ(e.code, 6) << e.all();
  ASSERT_EQ(e.errors().size(), 1U) << e.all();
  std::smatch found;
  const std::regex words(
      "step (2[1-9]): .*(hidden|out)/(weights|biases).*; the newest finite checkpoint is (\\S+) "
      "\\(step (\\d+)\\); go on from it with a lower optimizer.learning_rate or with optimizer.clip: "
      "(\\S*varscope train [^;]* --resume=\\S+); --check-numerics names the op.*");
  const std::string line = e.errors()[0];
  ASSERT_TRUE(std::regex_search(line, found, words)) << line;
  for (const std::string& name : checkpoints_there()) EXPECT_TRUE(is_finite(name)) << name;
  EXPECT_EQ(found[4].str(), path(checkpoints_there().back()));
  ASSERT_EQ(events("not_finite").size(), 1U);
  EXPECT_EQ(events("not_finite")[0]["step"], std::stoi(found[1].str()));
  EXPECT_FALSE(events("not_finite")[0]["variables"].empty());

  const Ended resumed = run(varscope(train_args({}, {"--resume=" + found[4].str()})));
  EXPECT_EQ(resumed.code, 0) << resumed.all();
}

TEST_F(NotFiniteJob, StopsOnManyRanksWithTheSameCode) {
  const Ended e = run(mpirun(4, train_args({"optimizer.learning_rate=1e30", "cluster.servers=2"})));
  EXPECT_EQ(e.code, 6) << e.all();
  ASSERT_EQ(e.errors().size(), 1U) << e.all();
  EXPECT_THAT(e.errors()[0], AllOf(HasSubstr("varscope: rank 0 (server 0 on "), HasSubstr("): step "),
                                   HasSubstr("there is no finite checkpoint to go on from: start anew")));
}

TEST_F(NotFiniteJob, WarnGoesOnAndKeepsTheFiniteCheckpoints) {
  train_well();
  const Ended e = diverge("warn");
  EXPECT_EQ(e.code, 0) << e.all();
  ASSERT_EQ(e.messages().size(), 2U) << e.all();
  EXPECT_THAT(e.messages()[0], HasSubstr("optimizer.learning_rate: 0.05 in the checkpoint's run, 1e+30 now"));
  EXPECT_THAT(e.messages()[1],
              AllOf(HasSubstr("warning: step 2"), HasSubstr("; training goes on (train.on_nan: warn)")));
  EXPECT_THAT(e.out + e.err,
              AllOf(Not(HasSubstr("-nan")), HasSubstr("loss nan"), HasSubstr("  not finite   since step 2")));
  const std::vector<std::string> left = checkpoints_there();
  EXPECT_EQ(left.size(), 4U) << "three finite ones and the newest";
  EXPECT_EQ(std::count_if(left.begin(), left.end(), [&](const std::string& name) { return is_finite(name); }),
            3);
  EXPECT_FALSE(is_finite(left.back()));
  EXPECT_EQ(events("finish").back()["step"], 40);
  EXPECT_EQ(events("step").back()["loss"], nullptr);
}

TEST_F(NotFiniteJob, WhateverReadsSuchACheckpointSaysSo) {
  train_well();
  ASSERT_EQ(diverge("warn").code, 0);
  const std::string bad = path(checkpoints_there().back());
  const std::string told = "checkpoint " + bad + " is not finite: ";

  const Ended inspected = run(varscope({"checkpoint", "inspect", bad}));
  EXPECT_EQ(inspected.code, 0) << inspected.all();
  EXPECT_THAT(inspected.out, AllOf(HasSubstr("finite      NO: "), Not(HasSubstr("-nan"))));
  EXPECT_THAT(run(varscope({"checkpoint", "list", checkpoints})).out, HasSubstr("committed, not finite"));
  EXPECT_THAT(run(varscope({"checkpoint", "verify", bad})).out, HasSubstr("  not finite: "));
  const Ended exported = run(varscope({"checkpoint", "export", bad, dir / "x.npz"}));
  EXPECT_EQ(exported.code, 0);
  EXPECT_THAT(exported.out, HasSubstr("warning: " + told));
  const Ended evaluated = run(varscope({"eval", file, "--checkpoint", bad}));
  EXPECT_EQ(evaluated.code, 0) << evaluated.all();
  EXPECT_THAT(evaluated.err, HasSubstr("varscope: warning: " + told));
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr("loss          nan"), Not(HasSubstr("-nan"))));

  const Ended resumed = run(varscope(train_args({"train.epochs=6"}, {"--resume"})));
  EXPECT_EQ(resumed.code, 6) << resumed.all();
  ASSERT_EQ(resumed.errors().size(), 1U);
  EXPECT_THAT(resumed.errors()[0],
              AllOf(HasSubstr(told), HasSubstr("nothing was started (train.on_nan: stop); the newest "
                                               "finite checkpoint is ")));
  const Ended goes_on = run(varscope(train_args({"train.epochs=5", "train.on_nan=warn"}, {"--resume"})));
  EXPECT_EQ(goes_on.code, 0) << goes_on.all();
  EXPECT_THAT(goes_on.err, HasSubstr("warning: " + told));

  const std::string newest = path(checkpoints_there().back());
  const Ended warm = run(
      varscope(Args{"train", file} + set({"job.run_dir=" + (dir / "warm"), "warm_start.from=" + newest})));
  EXPECT_EQ(warm.code, 6) << warm.all();
  EXPECT_THAT(warm.err, HasSubstr("checkpoint " + newest + " is not finite: "));
  EXPECT_TRUE(names_in(dir / "warm/checkpoints").empty());
}

TEST_F(NotFiniteJob, FirstValuesThatAreNotFiniteEndTheJob) {
  const Ended e = run(varscope(train_args({"model.initializer={type: constant, value: 1e39}"})));
  EXPECT_EQ(e.code, 6) << e.all();
  ASSERT_EQ(e.errors().size(), 1U) << e.all();
  EXPECT_THAT(e.errors()[0],
              HasSubstr("the values that the run starts from have inf in hidden/weights (element 0), "
                        "out/weights (element 0); there is no finite checkpoint"));
}

TEST_F(NotFiniteJob, FiguresStayShortAndSharesAreShares) {
  const Ended e =
      run(varscope(train_args({"optimizer.learning_rate=1e9", "model.loss=mean_squared_error",
                               "optimizer.type=sgd", "train.on_nan=warn", "train.log_every_steps=1"})));
  ASSERT_EQ(e.code, 0) << e.all();
  EXPECT_FALSE(std::regex_search(e.out + e.err, std::regex("\\d{12}"))) << e.all();
  std::smatch found;
  ASSERT_TRUE(std::regex_search(
      e.out, found,
      std::regex("workers      compute (\\d+) %, data (\\d+) %, communication (\\d+) %, waiting (\\d+) %")))
      << e.out;
  int sum = 0;
  for (std::size_t i = 1; i < found.size(); ++i) sum += std::stoi(found[i].str());
  EXPECT_GE(sum, 98);
  EXPECT_LE(sum, 102);
}

// 5 GB, if memory followed what is asked for.
TEST_F(NotFiniteJob, MemoryFollowsTheSamplesThereAre) {
#ifdef VARSCOPE_SANITIZED
  GTEST_SKIP() << "needs a program without sanitizers, which reserve address space";
#endif
  const Ended e = run({{"/bin/bash", "-c", "ulimit -v 1500000; exec \"$0\" \"$@\"", VARSCOPE_BINARY, "train",
                        file, "--set", "train.batch=20000000", "--set", "job.run_dir=" + run_dir}});
  EXPECT_EQ(e.code, 0) << e.all();
  const Ended plan = run(varscope({"plan", file, "--set", "train.batch=20000000"}));
  EXPECT_EQ(plan.code, 0) << plan.all();
  EXPECT_THAT(plan.out, AllOf(HasSubstr("(activations of 200 samples)"), HasSubstr("(evaluation)"),
                              HasSubstr("(data)")));
}

}  // namespace
}  // namespace varscope::testing
