// train.stop: the run ends where evaluations no longer become better, the best checkpoint stays and is
// named, and a run that was killed and resumed ends at the same step with the same bits.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <regex>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

// A net that soon knows 200 noisy digits by heart: its test loss falls, and rises again.
constexpr const char* kJob = R"(
job: {name: stop, seed: 3}
cluster: {servers: 2, logical_workers: 2}
data:
  train: {type: digits, samples: 200, noise: 0.7}
  test: {type: digits, samples: 200, noise: 0.7}
model:
  layers:
    - {type: dense, units: 32, activation: relu}
    - {type: dense, units: 10}
  loss: softmax_cross_entropy
optimizer: {type: adam, learning_rate: 0.003}
train: {epochs: 300, batch: 20, log_every_steps: 1, stop: {metric: loss, patience: 4}}
checkpoint: {keep: 1}
output: {progress: off}
)";

struct End {
  std::int64_t step = 0, best_step = 0;
  std::string best_line, hash;
};

class EarlyStopJob : public ::testing::Test {
 protected:
  void SetUp() override { write_text(dir / "job.yaml", kJob); }
  Command job(const std::string& run, const Args& more = {}) const {
    return mpirun(4, Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / run)}) + more);
  }
  // What the summary says.
  static End end_of(const Ended& e) {
    EXPECT_EQ(e.code, 0) << e.all();
    End end;
    std::smatch m;
    if (std::regex_search(e.out, m,
                          std::regex("finished at step (\\d+) after [^\n]*: loss has not become better in "
                                     "4 evaluations \\(train.stop\\)\n")))
      end.step = std::stoll(m[1]);
    if (std::regex_search(e.out, m,
                          std::regex("  best         (loss \\S+ after step (\\d+)): \\S+/step-0*\\2\n"))) {
      end.best_line = m[1];
      end.best_step = std::stoll(m[2]);
    }
    end.hash = summary_of(e.out).hash;
    EXPECT_GT(end.step, 0) << e.all();
    EXPECT_GT(end.best_step, 0) << e.all();
    return end;
  }
  void expect_the_best_is_kept(const std::string& run, const End& end) const {
    std::vector<std::string> steps;
    for (const std::string& name : names_in(dir / (run + "/checkpoints"))) {
      if (name.starts_with("step-")) steps.push_back(name);
    }
    EXPECT_THAT(steps, ::testing::ElementsAre(fmt::format("step-{:09}", end.best_step),
                                              fmt::format("step-{:09}", end.step)));
  }
  ScratchDir dir;
};

TEST_F(EarlyStopJob, EndsWherePatienceEndsAndKeepsTheBest) {
  const End end = end_of(run(job("a"), 300 * kSlowness));
  EXPECT_EQ(end.step, end.best_step + 4 * 10) << "an evaluation each 10 steps, 4 of them no better";
  EXPECT_LT(end.step, 3000);
  expect_the_best_is_kept("a", end);
  // The best one is what its line says.
  const Ended e = run(varscope({"eval", dir / "job.yaml", "--checkpoint",
                                fmt::format("{}/step-{:09}", dir / "a/checkpoints", end.best_step)}));
  EXPECT_THAT(std::regex_replace(e.out, std::regex(" +"), " "),
              HasSubstr(end.best_line.substr(0, end.best_line.find(" after"))));
  // What has ended so does not go on, until it may.
  const Ended again = run(job("a", {"--resume"}));
  EXPECT_EQ(again.code, 0) << again.all();
  EXPECT_THAT(again.out, HasSubstr("nothing to do: the run had ended at this step already; raise "
                                   "train.stop.patience to go on"));
  EXPECT_EQ(summary_of(again.out).hash, end.hash);
  const Ended more = run(job("a", {"--resume", "--set", "train.stop.patience=6"}));
  EXPECT_EQ(summary_of(more.out).step, end.step + 20) << more.all();
  // Alone the same.
  const Ended alone = run(varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "b")})));
  EXPECT_EQ(end_of(alone).step, end.step);
  EXPECT_EQ(end_of(alone).hash, end.hash);
}

// Other bits each time; what is kept, and what its line says, is the same.
TEST_F(EarlyStopJob, EndsInEveryModeAndTheBestIsWhatItsLineSays) {
  for (const auto& [name, keys] : {std::pair{"ssp", set({"cluster.consistency=ssp", "cluster.staleness=2"})},
                                   {"asp", set({"cluster.consistency=asp", "cluster.dealing=static"})},
                                   {"delay", set({"cluster.delay=1"})},
                                   {"backups", set({"cluster.backup_workers=1"})}}) {
    SCOPED_TRACE(name);
    const Ended e = run(job(name, keys), 300 * kSlowness);
    const End end = end_of(e);
    EXPECT_EQ(end.step, end.best_step + 4 * 10);
    expect_the_best_is_kept(name, end);
    const Ended eval =
        run(varscope({"eval", dir / "job.yaml", "--checkpoint",
                      fmt::format("{}/step-{:09}", dir / name + "/checkpoints", end.best_step)}));
    EXPECT_THAT(std::regex_replace(eval.out, std::regex(" +"), " "),
                HasSubstr(end.best_line.substr(0, end.best_line.find(" after"))));
  }
}

// The last step was saved before it was evaluated: a resume begins with that, and then nothing is to do.
TEST_F(EarlyStopJob, ThatHasComeToItsLastStepIsResumedAndEndsAgainInEveryMode) {
  for (const char* mode : {"bsp", "ssp", "asp"}) {
    SCOPED_TRACE(mode);
    std::vector<std::string> keys{"--set", std::string("cluster.consistency=") + mode, "--set",
                                  "train.max_steps=20"};
    if (mode == std::string("ssp")) keys.insert(keys.end(), {"--set", "cluster.staleness=2"});
    const Ended first = run(job(mode, keys));
    ASSERT_EQ(first.code, 0) << first.all();
    keys.emplace_back("--resume");
    const Ended again = run(job(mode, keys), 60 * kSlowness);
    ASSERT_EQ(again.code, 0) << again.all();
    EXPECT_THAT(again.out, HasSubstr("nothing to do: "));
    EXPECT_EQ(summary_of(again.out).hash, summary_of(first.out).hash);
    // A patience that is over by then ends it all the same.
    keys.insert(keys.end(), {"--set", "train.stop.patience=1"});
    const Ended impatient = run(job(mode, keys), 60 * kSlowness);
    EXPECT_EQ(impatient.code, 0) << impatient.all();
  }
}

TEST_F(EarlyStopJob, KilledAndResumedItEndsAtTheSameStep) {
  const End whole = end_of(run(job("a"), 300 * kSlowness));
  for (const char* every : {"off", "7"}) {
    const std::string name = fmt::format("b{}", every),
                      every_steps = fmt::format("checkpoint.every_steps={}", every);
    std::vector<std::string> more{"--set", every_steps};
    // Killed twice: while it becomes better, and while it no longer does.
    for (const std::int64_t at : {whole.best_step / 2 + 5, whole.best_step + 25}) {
      Job killed(job(name, more));
      const std::vector<pid_t> pids = killed.rank_pids(4, kStartSeconds);
      ASSERT_EQ(pids.size(), 4U) << killed.err();
      ASSERT_TRUE(killed.wait_until([&] { return killed.last_step() >= at; }, kStartSeconds))
          << killed.wait(0).all();
      kill(pids[at % 2 == 0 ? 1 : 3], SIGKILL);
      EXPECT_NE(killed.wait(60 * kSlowness).code, 0);
      more = {"--set", every_steps, "--resume"};
    }
    const Ended ended = run(job(name, more), 300 * kSlowness);
    const End end = end_of(ended);
    EXPECT_EQ(end.step, whole.step) << ended.all();
    EXPECT_EQ(end.best_line, whole.best_line);
    EXPECT_EQ(end.hash, whole.hash);
    expect_the_best_is_kept(name, end);
  }
}

}  // namespace
}  // namespace varscope::testing
