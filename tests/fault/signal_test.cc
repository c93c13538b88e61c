// Signals from users and schedulers, to mpirun and to single ranks: SIGUSR1 makes a checkpoint and training
// goes on; SIGUSR2 and SIGTERM make one and end the job so that the resumed run ends in the bits of an
// uninterrupted one.
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr int kStopped = 75;
constexpr int kRanks = 4;
// More than are made until a signal arrives from a test that has to wait for a processor.
constexpr std::int64_t kSteps = 3000;
constexpr double kEndSeconds = 20 * kSlowness;

// No checkpoint is due but those that somebody asks for.
Args arguments(const std::string& run_dir, const Args& more = {}) {
  return Args{"train", config_file("digits_mlp.yaml")} +
         set({"job.run_dir=" + run_dir, "cluster.servers=2", "cluster.logical_workers=2",
              "train.max_steps=" + std::to_string(kSteps), "train.epochs=1000", "train.log_every_steps=10",
              "train.eval_every_epochs=0", "checkpoint.every_steps=1000000", "checkpoint.at_end=false"}) +
         more;
}
Command under_mpirun(const std::string& run_dir, const Args& more = {}) {
  return mpirun(kRanks, arguments(run_dir, more));
}
Command alone(const std::string& run_dir, const Args& more = {}) {
  return varscope(arguments(run_dir, more));
}

// Of any number of workers: cluster.logical_workers is set.
const std::string& uninterrupted_hash() {
  static const std::string hash = [] {
    const ScratchDir dir;
    return train(under_mpirun(dir / "run")).hash;
  }();
  return hash;
}

bool is_training(Job& job) {
  return job.wait_until([&] { return job.last_step() > 0; }, kStartSeconds);
}
std::vector<std::int64_t> checkpoints_of(const Job& job) { return summary_of(job.out()).checkpoints; }

// Waits for the end of a job that was asked to stop, and resumes it.
void expect_stopped_and_resume(Job& job, const std::string& run_dir) {
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, kStopped) << ended.all();
  EXPECT_TRUE(ended.messages().empty()) << ended.all();
  EXPECT_TRUE(ended.noise().empty()) << ended.all();
  EXPECT_NE(ended.out.find("stopped early at step"), std::string::npos) << ended.all();
  const auto saved = summary_of(ended.out).checkpoints;
  ASSERT_FALSE(saved.empty()) << ended.all();
  const Summary resumed = train(under_mpirun(run_dir, {"--resume"}));
  EXPECT_EQ(resumed.first_step, saved.back());
  EXPECT_EQ(resumed.step, kSteps);
  EXPECT_EQ(resumed.hash, uninterrupted_hash());
}

TEST(Sigusr1, ToMpirunMakesACheckpointAndTrainingGoesOn) {
  const ScratchDir dir;
  Job job(under_mpirun(dir / "run"));
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGUSR1);
  EXPECT_TRUE(job.wait_until([&] { return !checkpoints_of(job).empty(); }, kEndSeconds)) << job.out();
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(ended.errors().empty()) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, uninterrupted_hash());
}

TEST(Sigusr1, ToAnyRank) {
  for (std::size_t rank = 0; rank < kRanks; ++rank) {
    SCOPED_TRACE(rank);
    const ScratchDir dir;
    Job job(under_mpirun(dir / "run", set({"train.max_steps=1000000", "train.epochs=1000000"})));
    const std::vector<pid_t> pids = job.rank_pids(kRanks, kStartSeconds);
    ASSERT_EQ(pids.size(), static_cast<std::size_t>(kRanks));
    ASSERT_TRUE(is_training(job)) << job.err();
    for (std::size_t n = 1; n <= 2; ++n) {
      kill(pids[rank], SIGUSR1);
      EXPECT_TRUE(job.wait_until([&] { return checkpoints_of(job).size() >= n; }, kEndSeconds)) << job.out();
    }
    const std::int64_t now = job.last_step();
    EXPECT_TRUE(job.wait_until([&] { return job.last_step() > now; }, kEndSeconds));
  }
}

TEST(Sigusr2, ToMpirunStopsTheJobAndItResumes) {
  const ScratchDir dir;
  Job job(under_mpirun(dir / "run"));
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGUSR2);
  expect_stopped_and_resume(job, dir / "run");
}

TEST(Sigusr2, ToAWorkerOrAServerAndAgainMeanwhile) {
  for (const std::size_t rank : {std::size_t{1}, std::size_t{3}}) {
    SCOPED_TRACE(rank);
    const ScratchDir dir;
    Job job(under_mpirun(dir / "run"));
    const std::vector<pid_t> pids = job.rank_pids(kRanks, kStartSeconds);
    ASSERT_EQ(pids.size(), static_cast<std::size_t>(kRanks));
    ASSERT_TRUE(is_training(job)) << job.err();
    kill(pids[rank], SIGUSR2);
    EXPECT_TRUE(job.wait_until([&] { return job.out().find("a signal asks to stop") != std::string::npos; },
                               kEndSeconds))
        << job.out();
    for (int i = 0; i < 3; ++i) {
      job.send_signal(SIGUSR2);
      job.send_signal(SIGUSR1);
    }
    expect_stopped_and_resume(job, dir / "run");
  }
}

TEST(Sigusr2, WithoutCheckpointsStopsAllTheSame) {
  const ScratchDir dir;
  Job job(under_mpirun(dir / "run", set({"checkpoint.every_steps=0"})));
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGUSR2);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, kStopped) << ended.all();
  EXPECT_NE(ended.out.find("no checkpoint (none are configured)"), std::string::npos) << ended.all();
}

constexpr const char* kGotSigterm = "got SIGTERM: another rank has died, or the job is to end";

// mpirun hands on SIGTERM and SIGKILL, each after this time, in which it reads nothing: the step lines must
// fit into a pipe.
TEST(Sigterm, ToMpirunSavesWhatThereIsTimeFor) {
  const ScratchDir dir;
  Command command = under_mpirun(
      dir / "run", set({"train.max_steps=1000000", "train.epochs=1000000", "train.log_every_steps=500"}));
  command.environment["OMPI_MCA_odls_base_sigkill_timeout"] = "4";
  Job job(command);
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGTERM);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_NE(ended.code, 0) << ended.all();  // mpirun's own
  const std::vector<std::string> saved = names_in(dir / "run/checkpoints");
  ASSERT_EQ(saved.size(), 3U) << ended.all();
  EXPECT_TRUE(saved[2].starts_with("step-")) << saved[2];
  const std::int64_t step = std::atoll(saved[2].c_str() + 5);
  const Summary resumed = train(
      under_mpirun(dir / "run", Args{"--resume"} + set({"train.max_steps=" + std::to_string(step + 50)})));
  EXPECT_EQ(resumed.first_step, step);
  const ScratchDir straight;
  EXPECT_EQ(
      resumed.hash,
      train(under_mpirun(straight / "run", set({"train.max_steps=" + std::to_string(step + 50)}))).hash);
}

TEST(Sigterm, ToARankIsAsSigusr2AndSaysSo) {
  for (const std::size_t rank : {std::size_t{0}, std::size_t{1}, std::size_t{3}}) {
    SCOPED_TRACE(rank);
    const ScratchDir dir;
    Job job(under_mpirun(dir / "run"));
    const std::vector<pid_t> pids = job.rank_pids(kRanks, kStartSeconds);
    ASSERT_EQ(pids.size(), static_cast<std::size_t>(kRanks));
    ASSERT_TRUE(is_training(job)) << job.err();
    kill(pids[rank], SIGTERM);
    kill(pids[rank], SIGTERM);
    const Ended ended = job.wait(kEndSeconds);
    EXPECT_EQ(ended.code, kStopped) << ended.all();
    ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
    EXPECT_NE(ended.messages()[0].find("rank " + std::to_string(rank) + " ("), std::string::npos);
    EXPECT_NE(ended.messages()[0].find(kGotSigterm), std::string::npos);
    const auto saved = summary_of(ended.out).checkpoints;
    ASSERT_EQ(saved.size(), 1U) << ended.all();
    const Summary resumed = train(under_mpirun(dir / "run", {"--resume"}));
    EXPECT_EQ(resumed.first_step, saved.back());
    EXPECT_EQ(resumed.hash, uninterrupted_hash());
  }
}

TEST(LaunchScript, SigtermMakesACheckpointAndStops) {
  const ScratchDir dir;
  const Args all = arguments(dir / "run");  // "train", the config, the rest
  const std::string script = std::string(VARSCOPE_CONFIGS) + "/../launch/run_local.sh";
  Args words{script, "-s", "2", "-w", "2"};
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i] == "cluster.servers=2") {  // -s says so
      words.pop_back();
    } else {
      words.push_back(all[i]);
    }
  }
  Job job({words, {{"VARSCOPE", VARSCOPE_BINARY}}});
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGTERM);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, kStopped) << ended.all();
  EXPECT_NE(ended.err.find("run_local.sh: got SIGTERM: the job makes a checkpoint and ends"),
            std::string::npos)
      << ended.err;
  EXPECT_NE(ended.err.find("to go on from its newest checkpoint: "), std::string::npos) << ended.err;
  const auto saved = summary_of(ended.out).checkpoints;
  ASSERT_EQ(saved.size(), 1U) << ended.all();
  const Summary resumed = train(under_mpirun(dir / "run", {"--resume"}));
  EXPECT_EQ(resumed.first_step, saved.back());
  EXPECT_EQ(resumed.hash, uninterrupted_hash());
}

TEST(OneProcess, SigtermAndSigusr2StopItAndItResumes) {
  for (const int signal : {SIGTERM, SIGUSR2}) {
    SCOPED_TRACE(signal);
    const ScratchDir dir;
    Job job(alone(dir / "run"));
    ASSERT_TRUE(is_training(job)) << job.err();
    job.send_signal(signal);
    job.send_signal(signal);
    expect_stopped_and_resume(job, dir / "run");
  }
}

TEST(OneProcess, Sigusr1MakesACheckpointAndTrainingGoesOn) {
  const ScratchDir dir;
  Job job(alone(dir / "run"));
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGUSR1);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).checkpoints.size(), 1U) << ended.all();
  EXPECT_EQ(summary_of(ended.out).hash, uninterrupted_hash());
}

// As ever: there is nothing to save with.
TEST(OneProcess, SigtermWithoutCheckpointsEndsIt) {
  const ScratchDir dir;
  Job job(alone(dir / "run", set({"checkpoint.every_steps=0"})));
  ASSERT_TRUE(is_training(job)) << job.err();
  job.send_signal(SIGTERM);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, 128 + SIGTERM) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  EXPECT_NE(ended.errors()[0].find("ended by SIGTERM"), std::string::npos);
}

}  // namespace
}  // namespace varscope::testing
