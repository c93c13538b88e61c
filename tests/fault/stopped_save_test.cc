// SIGSTOP of a server or worker in the middle of a save: shorter than the limits, nothing happens; longer
// than checkpoint.timeout_s, this save is given up and the next one works; longer than
// cluster.stall_timeout_s, the job ends and resumes from the save before.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>

#include "tests/support/failure_matrix.h"
#include "tests/support/jobs/points_job.h"
#include "tests/support/jobs/tiny_job.h"

namespace varscope::testing {
namespace {

FailureMatrix& matrix =
    FailureMatrix::install("processes: stopped during a save", VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr double kEndSeconds = 20 * kSlowness;

constexpr std::int64_t kEvery = 500;
constexpr const char* kBeforeItsFsync = "before fsync shard";
constexpr const char* kBeforeTheSave = "before mkdir tmp";
constexpr const char* kBeforeTheRename = "before rename step";

bool is_stopped(pid_t pid) { return state_of(pid) == 'T'; }

// A job whose rank `victim` is stopped when rank `at` comes to a point of the second save (of step `saving`).
class StoppedJob {
 public:
  StoppedJob(int at, const std::string& point, int victim, const Args& more)
      : victim_(victim),
        job_(tiny_mpirun(dir_ / "run", longer() +
                                           set({"checkpoint.every_steps=" + std::to_string(kEvery),
                                                "checkpoint.max_failures=10"}) +
                                           more),
             {{at, 2, point, "stop " + std::to_string(victim)}}, Syncs::left_out) {
    const auto hit = job_.wait_for_hit(at, 1, kStartSeconds);
    const auto stopped = [&] { return is_stopped(job_.pid(victim_)); };
    if (!hit || !job_->wait_until(stopped, kStartSeconds))
      throw std::runtime_error("nobody was stopped\n" + job_->wait(0).all());
    saving = hit->saving;
  }
  Job* operator->() { return job_.operator->(); }
  std::string run_dir() const { return dir_ / "run"; }
  void go_on() { kill(job_.pid(victim_), SIGCONT); }
  bool warns_of(const std::string& words) {
    return job_->wait_until([&] { return job_->err().find(words) != std::string::npos; }, kEndSeconds);
  }
  // On the disk; the announcement needs messages, which may wait for one that a stopped rank has begun to
  // send.
  bool commits() {
    const std::string name = fmt::format("step-{:09d}", saving);
    return job_->wait_until([&] { return read_text(run_dir() + "/checkpoints/LATEST").starts_with(name); },
                            kEndSeconds);
  }
  static bool is_among(std::int64_t step, const std::vector<std::int64_t>& steps) {
    return std::find(steps.begin(), steps.end(), step) != steps.end();
  }
  std::int64_t saving = 0;

 private:
  ScratchDir dir_;
  int victim_;
  PointsJob job_;
};

void wait_for(StoppedJob& job, double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  EXPECT_FALSE(
      job->wait_until([&] { return std::chrono::steady_clock::now() >= until && job->ended(); }, seconds));
}

// To the end, in the right bits; with a checkpoint of the save's step, or without.
void expect_end(StoppedJob& job, bool with_save) {
  const Ended ended = job->wait(kEndSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.errors().empty()) << ended.all();
  const Summary s = summary_of(ended.out);
  EXPECT_EQ(s.step, kLongerSteps);
  EXPECT_EQ(s.hash, tiny_hash(kLongerSteps));
  EXPECT_EQ(StoppedJob::is_among(job.saving, s.checkpoints), with_save) << ended.all();
  EXPECT_TRUE(StoppedJob::is_among(kLongerSteps, s.checkpoints)) << ended.all();
  EXPECT_EQ(ended.messages().empty(), with_save) << ended.all();
  for (const std::string& name : names_in(job.run_dir() + "/checkpoints"))
    EXPECT_FALSE(name.starts_with(".")) << name;
}

struct Stop {
  const char* name;
  int at, victim;
  const char* point;
  const char* who;
  const char* where;
};
constexpr Stop kServerOne{
    "Server1", 1, 1, kBeforeItsFsync, "SIGSTOP of server 1", "before the fsync of its shard"};
constexpr Stop kServerZero{
    "Server0", 0, 0, kBeforeTheRename, "SIGSTOP of server 0", "before the rename that commits"};
constexpr Stop kWorkerLate{
    "Worker0", 0, 2, kBeforeTheRename, "SIGSTOP of worker 0", "before the rename that commits"};
constexpr Stop kWorkerEarly{"Worker0", 0, 2, kBeforeTheSave, "SIGSTOP of worker 0", "before the cut"};

class ShortStop : public ::testing::TestWithParam<Stop> {};

TEST_P(ShortStop, ChangesNothing) {
  const Stop& stop = GetParam();
  StoppedJob job(stop.at, stop.point, stop.victim, {});
  wait_for(job, 1);
  job.go_on();
  expect_end(job, true);
  matrix.add({stop.who, stop.where, "1 s, shorter than all limits", "0; the save is committed; same bits"});
}
INSTANTIATE_TEST_SUITE_P(Ranks, ShortStop, ::testing::Values(kServerOne, kServerZero, kWorkerEarly),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(StoppedWorker, DoesNotHoldUpASaveThatHasItsState) {
  StoppedJob job(kWorkerLate.at, kWorkerLate.point, kWorkerLate.victim, {});
  EXPECT_TRUE(job.commits()) << job->err();
  job.go_on();
  expect_end(job, true);
  matrix.add({kWorkerLate.who, kWorkerLate.where, "until the save is committed",
              "0; it is committed while the worker stands still; same bits"});
}

const Args kShortTimeout = set({"checkpoint.timeout_s=1", "cluster.stall_timeout_s=60"});

TEST(StoppedServer, IsNamedWhenItsSaveIsGivenUp) {
  StoppedJob job(kServerOne.at, kServerOne.point, kServerOne.victim, kShortTimeout);
  EXPECT_TRUE(job.warns_of("the checkpoint of step " + std::to_string(job.saving) +
                           " was given up: no report from server 1"))
      << job->err();
  job.go_on();
  expect_end(job, false);
  matrix.add({kServerOne.who, kServerOne.where, "longer than checkpoint.timeout_s",
              "0; `no report from server 1 ... within ...`; the next save works; same bits"});
}

TEST(StoppedWorker, IsNamedWhenTheSaveIsGivenUp) {
  StoppedJob job(kWorkerEarly.at, kWorkerEarly.point, kWorkerEarly.victim, kShortTimeout);
  EXPECT_TRUE(job.warns_of(
      "the checkpoint of step " + std::to_string(job.saving) +
      " was given up: no report from server 0, server 1 and no step report from worker 0 within 1 s "
      "(checkpoint.timeout_s)"))
      << job->err();
  job.go_on();
  expect_end(job, false);
  matrix.add({kWorkerEarly.who, kWorkerEarly.where, "longer than checkpoint.timeout_s",
              "0; `... no step report from worker 0 within ...`; the next save works; same bits"});
}

class LongStop : public ::testing::TestWithParam<Stop> {};

TEST_P(LongStop, EndsTheJobThatThenResumes) {
  const Stop& stop = GetParam();
  StoppedJob job(stop.at, stop.point, stop.victim, set({"cluster.stall_timeout_s=2"}));
  const Ended ended = job->wait(kEndSeconds);
  EXPECT_TRUE(ended.in_time) << ended.all();
  EXPECT_EQ(ended.code, 13) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  const std::string who = std::string(stop.who).substr(std::string("SIGSTOP of ").size());
  EXPECT_NE(ended.errors()[0].find("no sign of life from " + who), std::string::npos) << ended.all();
  // mpirun continues stopped ranks to end them: a commit may get that far, and not to the hint behind it.
  const bool may_commit = std::string(stop.point) == kBeforeTheRename;
  const Summary s =
      train(tiny_alone(job.run_dir(), longer() + Args{"--resume"}), may_commit ? "LATEST is stale" : "");
  EXPECT_TRUE((s.first_step < job.saving && s.first_step >= kEvery) ||
              (may_commit && s.first_step == job.saving))
      << s.first_step;
  EXPECT_EQ(s.hash, tiny_hash(kLongerSteps));
  matrix.add({stop.who, stop.where, "longer than cluster.stall_timeout_s",
              "13; `no sign of life from " + who + " ...`; resumes from the save before" +
                  (may_commit ? " or this one" : "") + "; same bits"});
}
INSTANTIATE_TEST_SUITE_P(Ranks, LongStop, ::testing::Values(kServerOne, kServerZero, kWorkerEarly),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace varscope::testing
