// Signals from users and schedulers, to mpirun and to single ranks: SIGUSR1 makes a checkpoint and training
// goes on; SIGUSR2 and SIGTERM make one and end the job so that the resumed run ends in the bits of an
// uninterrupted one.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <functional>
#include <utility>

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

constexpr const char* kGotSigterm = "got SIGTERM: the job is to end";

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

// The same job by the script.
Command by_script(const std::string& run_dir, const Args& more = {}) {
  Args words{std::string(VARSCOPE_CONFIGS) + "/../launch/run_local.sh", "-s", "2", "-w", "2"};
  const Args all = arguments(run_dir, more);  // "train", the config, the rest
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i] == "cluster.servers=2") {  // -s says so
      words.pop_back();
    } else {
      words.push_back(all[i]);
    }
  }
  return {words, {{"VARSCOPE", VARSCOPE_BINARY}}};
}

// How often `text` has `words`.
int count_of(const std::string& text, const std::string& words) {
  int n = 0;
  for (std::size_t at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++n;
  return n;
}

TEST(LaunchScript, SigtermSigintAndSighupMakeACheckpointAndStop) {
  const std::pair<int, std::string> signals[] = {
      {SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};
  for (const auto& [signal, name] : signals) {
    SCOPED_TRACE(name);
    const ScratchDir dir;
    Job job(by_script(dir / "run"));
    ASSERT_TRUE(is_training(job)) << job.err();
    job.send_signal(signal);
    const Ended ended = job.wait(kEndSeconds);
    EXPECT_EQ(ended.code, kStopped) << ended.all();
    EXPECT_NE(ended.err.find("run_local.sh: got " + name + ": the job makes a checkpoint and ends"),
              std::string::npos)
        << ended.err;
    EXPECT_EQ(count_of(ended.all(), "--resume"), 1) << ended.all();
    EXPECT_NE(ended.err.find("to go on from its newest checkpoint: "), std::string::npos) << ended.err;
    const auto saved = summary_of(ended.out).checkpoints;
    ASSERT_EQ(saved.size(), 1U) << ended.all();
    const Summary resumed = train(under_mpirun(dir / "run", {"--resume"}));
    EXPECT_EQ(resumed.first_step, saved.back());
    EXPECT_EQ(resumed.hash, uninterrupted_hash());
  }
}

TEST(LaunchScript, ASecondSigintEndsTheJob) {
  const ScratchDir dir;
  // Steps of a second or so: there is time for a second signal.
  Job job(by_script(dir / "run", set({"data.train.samples=40000", "train.batch=40000"})));
  ASSERT_TRUE(
      job.wait_until([&] { return job.out().find("  start        ") != std::string::npos; }, kStartSeconds))
      << job.err();
  job.send_signal(SIGINT);
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("got SIGINT") != std::string::npos; }, kEndSeconds));
  job.send_signal(SIGINT);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_TRUE(ended.in_time) << ended.all();
  EXPECT_EQ(ended.code, 1) << ended.all();
  EXPECT_NE(ended.err.find("run_local.sh: got SIGINT: the job ends now"), std::string::npos) << ended.err;
  // The ranks may have been quick enough.
  const bool has_saved = names_in(dir / "run/checkpoints").size() > 1;
  EXPECT_EQ(count_of(ended.err, "--resume"), has_saved ? 1 : 0) << ended.err;
}

TEST(LaunchScript, NamesTheRankThatWasKilledAndTellsHowToGoOn) {
  for (const bool saves : {false, true}) {
    const ScratchDir dir;
    Job job(by_script(dir / "run", set({saves ? "checkpoint.every_steps=5" : "checkpoint.every_steps=1000000",
                                        "train.max_steps=1000000", "train.epochs=1000000"})));
    const std::vector<pid_t> pids = job.rank_pids(kRanks, kStartSeconds);
    ASSERT_EQ(pids.size(), static_cast<std::size_t>(kRanks));
    ASSERT_TRUE(job.wait_until(
        [&] { return job.last_step() > 0 && (!saves || !checkpoints_of(job).empty()); }, kStartSeconds))
        << job.err();
    kill(pids[2], SIGKILL);
    const Ended ended = job.wait(kEndSeconds);
    EXPECT_EQ(ended.code, 128 + SIGKILL) << ended.all();
    EXPECT_NE(ended.err.find("run_local.sh: rank 2 (worker 0 on "), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find(") was killed by signal 9 (Killed)"), std::string::npos) << ended.err;
    EXPECT_TRUE(ended.messages().empty()) << ended.err;
    EXPECT_EQ(count_of(ended.err, "--resume"), saves ? 1 : 0) << ended.err;
    EXPECT_EQ(count_of(ended.err, "it has no checkpoint to go on from"), saves ? 0 : 1) << ended.err;
  }
}

// Whoever reads standard output may go: `| head`.
TEST(LaunchScript, AReaderThatGoesAwayDoesNotEndTheJob) {
  const ScratchDir dir;
  const Command script = by_script(dir / "run", set({"train.max_steps=200"}));
  const Command alone_too = alone(dir / "alone", set({"train.max_steps=200"}));
  for (const Command& command : {script, alone_too}) {
    Args words{"/bin/bash", "-c", "(\"$@\"; echo \"code $?\" >&2) | head -1", "bash"};
    const Ended ended = run({words + command.argv, command.environment});
    EXPECT_NE(ended.err.find("code 0\n"), std::string::npos) << ended.all();
    EXPECT_EQ(count_of(ended.err, "cannot write to standard output: Broken pipe"), 1) << ended.all();
  }
  EXPECT_FALSE(names_in(dir / "run").empty());
}

// One line that is drawn again and again, which the job's other lines replace.
TEST(LaunchScript, DrawsProgressOnATerminal) {
  if (!std::filesystem::exists("/usr/bin/script")) GTEST_SKIP() << "needs script";
  const ScratchDir dir;
  Command command = by_script(dir / "run");
  std::string line;
  for (const std::string& word : command.argv) line += "'" + word + "' ";
  const Ended ended = run({{"/usr/bin/script", "-qec", line, "/dev/null"}, command.environment});
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_GE(count_of(ended.out, "\r\x1b[Kstep "), 2) << ended.all();
  EXPECT_GE(count_of(ended.out, " left"), 2) << ended.all();
  EXPECT_NE(ended.out.find("\r\x1b[Kepoch "), std::string::npos) << ended.all();
  EXPECT_EQ(ended.out.find(" leftepoch"), std::string::npos) << ended.all();
}

TEST(OneProcess, SigintAndSighupStopItWithOneLine) {
  const std::pair<int, std::string> signals[] = {{SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};
  for (const auto& [signal, name] : signals) {
    SCOPED_TRACE(name);
    const ScratchDir dir;
    Job job(alone(dir / "run"));
    ASSERT_TRUE(is_training(job)) << job.err();
    job.send_signal(signal);
    const Ended ended = job.wait(kEndSeconds);
    EXPECT_EQ(ended.code, kStopped) << ended.all();
    ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
    EXPECT_NE(
        ended.messages()[0].find("got " + name + ": the job ends after its next step, with a checkpoint"),
        std::string::npos);
    // The very command, once.
    const std::string command = std::string(VARSCOPE_BINARY) + " train " + config_file("digits_mlp.yaml");
    EXPECT_EQ(count_of(ended.all(), "go on with: " + command), 1) << ended.all();
    EXPECT_NE(ended.out.find("--set job.run_dir=" + (dir / "run")), std::string::npos) << ended.all();
    const Summary resumed = train(alone(dir / "run", {"--resume"}));
    EXPECT_EQ(resumed.first_step, summary_of(ended.out).checkpoints.back());
    EXPECT_EQ(resumed.hash, uninterrupted_hash());
  }
}

TEST(OneProcess, ASecondSigintEndsIt) {
  const ScratchDir dir;
  Job job(alone(dir / "run", set({"data.train.samples=40000", "train.batch=40000"})));
  ASSERT_TRUE(
      job.wait_until([&] { return job.out().find("  start        ") != std::string::npos; }, kStartSeconds))
      << job.err();
  job.send_signal(SIGINT);
  ASSERT_TRUE(job.wait_until([&] { return job.err().find("got SIGINT") != std::string::npos; }, kEndSeconds));
  job.send_signal(SIGINT);
  const Ended ended = job.wait(kEndSeconds);
  EXPECT_EQ(ended.code, 128 + SIGINT) << ended.all();
  EXPECT_NE(ended.err.find("varscope: ended by a second SIGINT\n"), std::string::npos) << ended.err;
}

// A limit for files is a disk that is full: the save is given up, and told; three in a row end the job.
TEST(OneProcess, ALimitForFilesIsAsAFullDisk) {
  const ScratchDir dir;
  const Command command =
      alone(dir / "run", set({"train.max_steps=30", "checkpoint.every_steps=20", "checkpoint.at_end=true"}));
  const Ended ended = run({Args{"/bin/bash", "-c", "ulimit -f 100; \"$@\"", "bash"} + command.argv, {}});
  EXPECT_EQ(ended.code, 11) << ended.all();
  EXPECT_NE(ended.err.find("the checkpoint of step 20 was given up"), std::string::npos) << ended.all();
  EXPECT_NE(ended.err.find("File too large; it would be larger than the limit for files (ulimit -f)"),
            std::string::npos)
      << ended.all();
  EXPECT_NE(ended.err.find("3 checkpoints in a row have failed"), std::string::npos) << ended.all();
  EXPECT_EQ(ended.all().find("--resume"), std::string::npos) << "there is no checkpoint\n" << ended.all();
}

TEST(LaunchScript, RefusesALimitForFilesWithWhichOpenMpiHangs) {
  const ScratchDir dir;
  const Command command = by_script(dir / "run");
  const Ended ended =
      run({Args{"/bin/bash", "-c", "ulimit -f 1000; \"$@\"", "bash"} + command.argv, command.environment});
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("the limit for files is 1000 KiB (ulimit -f)"), std::string::npos) << ended.all();
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
