// One failure, one message: whatever goes wrong, the job ends within seconds, with the exit code of its kind
// and one line that says what, where and what to do. And what need not end a job does not.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

constexpr double kEndSeconds = 10 * kSlowness;      // from the failure on
constexpr double kRefusedSeconds = 20 * kSlowness;  // starting included
const std::string kDigits = config_file("digits_mlp.yaml");

// Fast to start; would train for hours.
const Args kSmall = set({"data.train.samples=640", "data.test.samples=100", "train.epochs=1000000",
                         "train.log_every_steps=10", "train.eval_every_epochs=0", "checkpoint.at_end=false"});
Args train_small(const ScratchDir& dir, const Args& more = {}) {
  return Args{"train", kDigits} + kSmall + set({"job.run_dir=" + (dir / "run")}) + more;
}

// One message of ours, with these words, the exit code, in time; and not a line of anybody else. A message of
// several lines has its last, unindented one among the words.
void expect_failure(const Ended& ended, int code, const std::vector<std::string>& words) {
  EXPECT_TRUE(ended.in_time) << ended.all();
  EXPECT_EQ(ended.code, code) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  for (const std::string& line : ended.noise()) {
    EXPECT_NE(std::find(words.begin(), words.end(), line), words.end()) << line << "\n" << ended.all();
  }
  for (const std::string& word : words)
    EXPECT_NE(ended.err.find(word), std::string::npos) << word << "\n" << ended.all();
}

// --- refused before the first step
// ------------------------------------------------------------------------------------

struct Refusal {
  const char* name;
  int code;
  std::vector<std::string> words;
  std::function<Command(const ScratchDir&)> command;
};

Command three_ranks(const ScratchDir& dir, const Args& more) { return mpirun(3, train_small(dir, more)); }

// Three steps and a checkpoint of the last one.
void make_checkpoint(const ScratchDir& dir) {
  const Summary s = train(mpirun(3, train_small(dir, set({"train.max_steps=3", "checkpoint.at_end=true"}))));
  ASSERT_EQ(s.checkpoints, std::vector<std::int64_t>{3});
}

std::string edited_digits(const ScratchDir& dir, const std::string& from, const std::string& to) {
  std::string text = read_text(kDigits);
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  write_text(dir / "job.yaml", text.replace(at, from.size(), to));
  return dir / "job.yaml";
}

// IDX files of `n` samples of 8 x 8 pixels and ten classes.
void write_idx(const std::string& folder, int n) {
  std::filesystem::create_directories(folder);
  const char count = static_cast<char>(n);
  const std::string pixels(static_cast<std::size_t>(n) * 64, '\x11');
  std::string labels(static_cast<std::size_t>(n), '\0');
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<char>(i % 10);
  write_text(folder + "/images",
             std::string("\0\0\x08\x03\0\0\0", 7) + count + std::string("\0\0\0\x08\0\0\0\x08", 8) + pixels);
  write_text(folder + "/labels", std::string("\0\0\x08\x01\0\0\0", 7) + count + labels);
}
const Args kIdx = set({"data={train: {type: idx, images: images, labels: labels}}"});

const Refusal kRefusals[] = {
    {"MisspeltKey",
     2,
     {"job.yaml:31:3", "train.bacth", "did you mean \"batch\""},
     [](const ScratchDir& dir) {
       return mpirun(3, {"train", edited_digits(dir, "batch: 64", "bacth: 64")});
     }},
    {"WrongType",
     2,
     {"job.yaml:31:10", "train.batch", "expected an integer", "\"many\""},
     [](const ScratchDir& dir) {
       return mpirun(3, {"train", edited_digits(dir, "batch: 64", "batch: many")});
     }},
    {"OverrideWithoutValue",
     2,
     {"--set train.batch", "there is no =", "--set train.epochs=3"},
     [](const ScratchDir& dir) {
       return three_ranks(dir, {"--set", "train.batch"});
     }},
    {"OverrideOfNoKey",
     2,
     {"--set train.bacth=3", "train.bacth", "unknown key"},
     [](const ScratchDir& dir) {
       return three_ranks(dir, {"--set", "train.bacth=3"});
     }},
    {"NoConfig",
     2,
     {"none.yaml", "No such file"},
     [](const ScratchDir& dir) {
       return mpirun(3, {"train", dir / "none.yaml"});
     }},
    {"NoData",
     3,
     {"folder: fashion-mnist: no such file", "searched as", "/fashion-mnist and ", "VARSCOPE_DATA"},
     [](const ScratchDir& dir) {
       Command c =
           mpirun(3, {"train", config_file("fashion_mlp.yaml"), "--set", "job.run_dir=" + (dir / "run")});
       c.environment["VARSCOPE_DATA"] = dir.path();
       return c;
     }},
    {"TruncatedData",
     3,
     {"images", "truncated: 2984 of 6400 bytes"},
     [](const ScratchDir& dir) {
       write_idx(dir / "data", 100);
       std::filesystem::resize_file(dir / "data/images", 3000);
       Command c = three_ranks(dir, kIdx);
       c.environment["VARSCOPE_DATA"] = dir / "data";
       return c;
     }},
    {"OtherDataOnOneRank",
     10,
     {"rank 2", "80 against 100 training samples", "the same on every host"},
     [](const ScratchDir& dir) {
       write_idx(dir / "data", 100);
       write_idx(dir / "other", 80);
       const Args args = train_small(dir, kIdx);
       Command c = mpirun({{2, {}, args}, {1, {"/usr/bin/env", "VARSCOPE_DATA=" + (dir / "other")}, args}});
       c.environment["VARSCOPE_DATA"] = dir / "data";
       return c;
     }},
    {"OtherVersionOnOneRank",
     10,
     {"rank 2 runs varscope 99.1.2", "the same version on every host"},
     [](const ScratchDir& dir) {
       const Args args = train_small(dir);
       return mpirun({{2, {}, args}, {1, {"/usr/bin/env", "VARSCOPE_PRETEND_VERSION=99.1.2"}, args}});
     }},
    {"OtherCommandLineOnOneRank",
     2,
     {"rank 2 was started with", "job.seed=3", "start all ranks alike"},
     [](const ScratchDir& dir) {
       return mpirun({{2, {}, train_small(dir)}, {1, {}, train_small(dir, set({"job.seed=3"}))}});
     }},
    {"NoWorkerLeft",
     2,
     {"cluster.servers is 3", "3 ranks", "lower cluster.servers"},
     [](const ScratchDir& dir) { return three_ranks(dir, set({"cluster.servers=3"})); }},
    {"MoreServersThanRanks",
     2,
     {"cluster.servers is 7", "3 ranks", "start 8 ranks"},
     [](const ScratchDir& dir) { return three_ranks(dir, set({"cluster.servers=7"})); }},
    {"FewerLogicalWorkersThanWorkers",
     2,
     {"cluster.logical_workers is 1", "2 workers"},
     [](const ScratchDir& dir) { return three_ranks(dir, set({"cluster.logical_workers=1"})); }},
    {"NothingToResume",
     4,
     {"run/checkpoints", "nothing to resume from"},
     [](const ScratchDir& dir) { return three_ranks(dir, {"--resume"}); }},
    {"NothingToResumeAtPath",
     4,
     {"cannot resume from", "elsewhere: it does not exist",
      "name a checkpoint, or a directory of checkpoints"},
     [](const ScratchDir& dir) { return three_ranks(dir, {"--resume=" + (dir / "elsewhere")}); }},
    {"NothingToResumeInADirectory",
     4,
     {"cannot resume from", "it holds no checkpoint"},
     [](const ScratchDir& dir) {
       return varscope(train_small(dir, {"--resume", dir.path()}));
     }},
    {"DamagedCheckpointByPath",
     4,
     {"cannot resume from", "shard-00000-of-00001.safetensors", "CRC block 0"},
     [](const ScratchDir& dir) {
       make_checkpoint(dir);
       const std::string path = dir / "run/checkpoints/step-000000003";
       flip_byte(path + "/shard-00000-of-00001.safetensors", 9000);
       return three_ranks(dir, {"--resume=" + path});
     }},
    {"AllCheckpointsDamaged",
     4,
     {"step-000000003", "MANIFEST"},
     [](const ScratchDir& dir) {
       make_checkpoint(dir);
       flip_byte(dir / "run/checkpoints/step-000000003/MANIFEST", 200);
       return three_ranks(dir, {"--resume"});
     }},
    {"OtherModel",
     4,
     {"step-000000003", "hidden1/weights", "[256, 128]", "[256, 64]", "hidden2/weights",
      "nothing was restored; use the config it was made with, or start a new run in another job.run_dir"},
     [](const ScratchDir& dir) {
       make_checkpoint(dir);
       return three_ranks(dir, Args{"--resume"} + set({"model.layers.0.units=64"}));
     }},
    {"OtherBatchThanTheCheckpoint",
     4,
     {"cannot resume", "train.batch: 64 in the checkpoint, 32 in the config",
      "nothing was restored; use the config it was made with, or start a new run in another job.run_dir"},
     [](const ScratchDir& dir) {
       make_checkpoint(dir);
       return three_ranks(dir, Args{"--resume"} + set({"train.batch=32"}));
     }},
    {"EarlierRunNeitherResumedNorSetAside",
     4,
     {"step-000000003", "--resume", "--fresh"},
     [](const ScratchDir& dir) {
       make_checkpoint(dir);
       return three_ranks(dir, {});
     }},
    {"RunDirBelowAFile",
     11,
     {"cannot make the run's directory", "job.run_dir"},
     [](const ScratchDir& dir) {
       write_text(dir / "file", "");
       return three_ranks(dir, set({"job.run_dir=" + (dir / "file/run")}));
     }},
    {"MetricsCannotBeWritten",
     11,
     {"run/metrics.jsonl", "output.metrics"},
     [](const ScratchDir& dir) {
       std::filesystem::create_directories(dir / "run/metrics.jsonl");
       return three_ranks(dir, {});
     }},
    {"CheckpointDirIsAFile",
     11,
     {"run/checkpoints"},
     [](const ScratchDir& dir) {
       std::filesystem::create_directories(dir / "run");
       write_text(dir / "run/checkpoints", "");
       return three_ranks(dir, set({"checkpoint.every_steps=5"}));
     }},
    {"AloneWithAMisspeltKey",
     2,
     {"train.bacth"},
     [](const ScratchDir& dir) {
       return varscope({"train", edited_digits(dir, "batch: 64", "bacth: 64")});
     }},
    {"AloneWithoutCheckpoints",
     4,
     {"nothing to resume from"},
     [](const ScratchDir& dir) { return varscope(train_small(dir, {"--resume"})); }},
    {"ResumeAndFresh",
     2,
     {"--fresh", "--resume"},
     [](const ScratchDir& dir) {
       return varscope(train_small(dir, {"--resume", "--fresh"}));
     }},
    {"UnknownCommand",
     2,
     {"\"trian\" is not a command", "did you mean \"train\""},
     [](const ScratchDir&) {
       return varscope({"trian", kDigits});
     }},
    {"UnknownCommandUnderMpirun",
     2,
     {"\"trian\" is not a command"},
     [](const ScratchDir&) {
       return mpirun(3, {"trian", kDigits});
     }},
    {"UnknownOption",
     2,
     {"--resmue", "did you mean"},
     [](const ScratchDir&) {
       return varscope({"train", kDigits, "--resmue"});
     }},
    {"NoCommand", 2, {"subcommand is required", "--help"}, [](const ScratchDir&) { return varscope({}); }},
    {"NoCheckpointCommand",
     2,
     {"subcommand is required"},
     [](const ScratchDir&) { return varscope({"checkpoint"}); }},
    {"TrainWithoutConfigUnderMpirun",
     2,
     {"config is required"},
     [](const ScratchDir&) { return mpirun(3, {"train"}); }},
    {"BadCommandLineOnOneRank",
     2,
     {"rank 2", "--resmue"},
     [](const ScratchDir& dir) {
       return mpirun({{2, {}, train_small(dir)}, {1, {}, train_small(dir, {"--resmue"})}});
     }},
    {"EvalWithoutCheckpoint",
     4,
     {"run/checkpoints"},
     [](const ScratchDir& dir) {
       return varscope({"eval", kDigits, "--set", "job.run_dir=" + (dir / "run")});
     }},
    {"VerifyOfNothing",
     4,
     {"there is no checkpoint at"},
     [](const ScratchDir& dir) {
       return varscope({"checkpoint", "verify", dir / "none"});
     }},
};

class Refused : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refused, WithOneMessage) {
  const Refusal& r = GetParam();
  const ScratchDir dir;
  const Command command = r.command(dir);
  if (HasFailure()) return;
  expect_failure(run(command, kRefusedSeconds), r.code, r.words);
}

INSTANTIATE_TEST_SUITE_P(Failures, Refused, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) { return std::string(info.param.name); });

// Root, too, may not write anywhere without that capability.
TEST(Refused, UnwritableRunDirectory) {
  const ScratchDir dir;
  std::filesystem::create_directories(dir / "closed");
  ASSERT_EQ(chmod((dir / "closed").c_str(), 0555), 0);
  Command command = three_ranks(dir, set({"job.run_dir=" + (dir / "closed/run")}));
  if (geteuid() == 0) {
    command.argv =
        Args{"/usr/bin/setpriv", "--bounding-set", "-dac_override,-dac_read_search"} + command.argv;
  }
  const Ended ended = run(command, kEndSeconds);
  expect_failure(ended, 11, {"cannot make the run's directory", "Permission denied"});
}

// --- while it trains
// --------------------------------------------------------------------------------------------------

// A job that would train for hours, at some step.
class Training {
 public:
  Training(const ScratchDir& dir, int n_ranks, const Args& more)
      : job(mpirun(n_ranks, train_small(dir, more))) {
    pids = job.rank_pids(n_ranks, kStartSeconds);
    if (pids.empty() || !job.wait_until([&] { return job.last_step() > 0; }, kStartSeconds)) {
      ADD_FAILURE() << "the job did not start\n" << job.out() << job.err();
      pids.assign(static_cast<std::size_t>(n_ranks), 0);
    }
  }
  void send(int rank, int signal) {
    if (const pid_t pid = pids[static_cast<std::size_t>(rank)]; pid > 0) kill(pid, signal);
  }
  bool goes_on() {
    const std::int64_t now = job.last_step();
    return job.wait_until([&] { return job.last_step() > now; }, kStartSeconds);
  }
  Job job;
  std::vector<pid_t> pids;
};

// Checkpoints are configured, but the first is far off.
const Args kNoneDue = set({"checkpoint.every_steps=1000000000"});

TEST(DeadRank, EndsTheJobWithOneMessage) {
  for (const int rank : {0, 1, 2}) {
    SCOPED_TRACE(rank);
    const ScratchDir dir;
    Training t(dir, 3, kNoneDue);
    t.send(rank, SIGKILL);
    const std::string role = rank == 0 ? "server 0 on " : "worker " + std::to_string(rank - 1) + " on ";
    const Ended ended = t.job.wait(kEndSeconds);
    expect_failure(
        ended, 128 + SIGKILL,
        {"): " + role, "(rank " + std::to_string(rank) + ") has died (killed, crashed or out of memory)"});
    EXPECT_EQ(ended.err.find("--resume"), std::string::npos) << "there is no checkpoint\n" << ended.all();
  }
}

TEST(DeadRank, EndsTheJobWithOneMessageInEveryMode) {
  for (const auto& [mode, rank, name] :
       {std::tuple{"ssp", 0, "server 0"}, {"ssp", 1, "worker 0"}, {"asp", 2, "worker 1"}}) {
    SCOPED_TRACE(std::string(mode) + ", " + name);
    const ScratchDir dir;
    Training t(dir, 3,
               kNoneDue + set({std::string("cluster.consistency=") + mode}) +
                   (mode == std::string("ssp") ? set({"cluster.staleness=2"}) : Args{}));
    t.send(rank, SIGKILL);
    expect_failure(t.job.wait(kEndSeconds), 128 + SIGKILL,
                   {std::string("): ") + name + " on ",
                    "(rank " + std::to_string(rank) + ") has died (killed, crashed or out of memory)"});
  }
}

TEST(DeadRank, IsToldWithTheCommandThatGoesOn) {
  const ScratchDir dir;
  Training t(dir, 3, set({"checkpoint.every_steps=5"}));
  ASSERT_TRUE(t.job.wait_until([&] { return !summary_of(t.job.out()).checkpoints.empty(); }, kStartSeconds));
  t.send(1, SIGKILL);
  const Ended ended = t.job.wait(kEndSeconds);
  const std::string command =
      std::string(VARSCOPE_MPIEXEC) + " --quiet -n 3 " + VARSCOPE_BINARY + " train " + kDigits;
  expect_failure(ended, 128 + SIGKILL,
                 {"(rank 1) has died", "; go on with: " + command, " --set job.run_dir=" + (dir / "run"),
                  "checkpoint.every_steps=5 --resume\n"});
}

const Args kShortStall = set({"cluster.stall_timeout_s=2"});

TEST(StoppedRank, ServerIsNamed) {
  const ScratchDir dir;
  Training t(dir, 3, kShortStall);
  t.send(0, SIGSTOP);
  expect_failure(t.job.wait(kEndSeconds), 13,
                 {"no sign of life from server 0", "(rank 0)", "cluster.stall_timeout_s"});
}

TEST(StoppedRank, SecondServerIsNamed) {
  const ScratchDir dir;
  Training t(dir, 4, kShortStall + set({"cluster.servers=2"}));
  t.send(1, SIGSTOP);
  expect_failure(t.job.wait(kEndSeconds), 13,
                 {"no sign of life from server 1", "(rank 1)", "cluster.stall_timeout_s"});
}

TEST(StoppedRank, WorkerIsNamed) {
  const ScratchDir dir;
  Training t(dir, 3, kShortStall);
  t.send(2, SIGSTOP);
  expect_failure(t.job.wait(kEndSeconds), 13,
                 {"no sign of life from worker 1", "(rank 2)", "Look at that host"});
}

// Where the others need not wait for it, and go on for as long.
TEST(StoppedRank, IsNamedInEveryMode) {
  for (const auto& [mode, rank, name] :
       {std::tuple{"ssp", 2, "worker 1"}, {"asp", 2, "worker 1"}, {"asp", 0, "server 0"}}) {
    SCOPED_TRACE(std::string(mode) + ", " + name);
    const ScratchDir dir;
    Training t(dir, 3,
               kShortStall + set({std::string("cluster.consistency=") + mode}) +
                   (mode == std::string("ssp") ? set({"cluster.staleness=2"}) : Args{}));
    t.send(rank, SIGSTOP);
    expect_failure(t.job.wait(kEndSeconds), 13,
                   {std::string("no sign of life from ") + name, "(rank " + std::to_string(rank) + ")",
                    "cluster.stall_timeout_s"});
  }
}

TEST(StoppedRank, GoesOnWhenContinuedInTime) {
  const ScratchDir dir;
  Training t(dir, 3, set({"cluster.stall_timeout_s=20"}));
  for (const int rank : {0, 2}) {
    t.send(rank, SIGSTOP);
    // Still for a second: the steps already on their way have been printed long since.
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    EXPECT_TRUE(t.job.wait_until([&] { return std::chrono::steady_clock::now() >= until; }, kStartSeconds));
    t.send(rank, SIGCONT);
    EXPECT_TRUE(t.goes_on()) << t.job.err();
  }
}

// What is saved before the end: signal_test.
TEST(Launcher, SigtermEndsTheJobWithOneMessage) {
  const ScratchDir dir;
  Training t(dir, 3, kNoneDue);
  t.job.send_signal(SIGTERM);
  const Ended ended = t.job.wait(kEndSeconds);
  EXPECT_NE(ended.code, 0);
  if (!ended.errors().empty()) expect_failure(ended, ended.code, {"SIGTERM"});
  // mpirun may end without reading what its ranks said last: the failure file has it all the same.
  std::vector<std::string> failures;
  for (const std::string& name : names_in(dir / "run")) {
    if (name.starts_with("failure-")) failures.push_back(read_text(dir / "run/" + name));
  }
  ASSERT_EQ(failures.size(), 1U) << ended.all();
  EXPECT_NE(failures[0].find("got SIGTERM: the job is to end; it saves a checkpoint first"),
            std::string::npos)
      << failures[0];
  EXPECT_EQ(failures[0].find("--resume"), std::string::npos) << "there is no checkpoint: " << failures[0];
}

// There is nothing to save: the ranks end by themselves.
TEST(Launcher, SigtermWithoutCheckpointsEndsTheJob) {
  const ScratchDir dir;
  Training t(dir, 3, set({"checkpoint.every_steps=0", "checkpoint.at_end=false"}));
  t.job.send_signal(SIGTERM);
  const Ended ended = t.job.wait(kEndSeconds);
  EXPECT_NE(ended.code, 0);
  std::string said;
  for (const std::string& name : names_in(dir / "run")) {
    EXPECT_EQ(name.find("-sigterm"), std::string::npos) << name;
    if (name.starts_with("failure-")) said += read_text(dir / "run/" + name);
  }
  EXPECT_NE(said.find("ended by SIGTERM: the launcher ended the job"), std::string::npos)
      << said << ended.all();
}

TEST(Launcher, KilledLauncherLeavesNoRankBehind) {
  const ScratchDir dir;
  Training t(dir, 3, {});
  t.job.send_signal(SIGKILL);
  EXPECT_EQ(t.job.wait(kEndSeconds).code, 128 + SIGKILL);
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const auto all_gone = [&] { return std::none_of(t.pids.begin(), t.pids.end(), is_alive); };
  while (!all_gone() && seconds() < kEndSeconds) usleep(10000);
  EXPECT_TRUE(all_gone());
  for (pid_t pid : t.pids) {
    if (is_alive(pid)) kill(pid, SIGKILL);
  }
}

// --- checkpoints that cannot be written
// -------------------------------------------------------------------------------

class LostCheckpointDir {
 public:
  explicit LostCheckpointDir(const ScratchDir& dir) : path_(dir / "run/checkpoints"), away_(dir / "away") {
    std::filesystem::rename(path_, away_);
    write_text(path_, "in the way");
  }
  void give_back() {
    std::filesystem::remove(path_);
    std::filesystem::rename(away_, path_);
  }

 private:
  std::string path_, away_;
};

TEST(FailingCheckpoints, EndTheJobAfterMaxFailures) {
  const ScratchDir dir;
  Training t(dir, 3, set({"checkpoint.every_steps=5", "checkpoint.max_failures=3"}));
  const LostCheckpointDir lost(dir);
  const Ended ended = t.job.wait(kEndSeconds);
  expect_failure(
      ended, 11,
      {"rank 0", "3 checkpoints in a row have failed", "checkpoint.max_failures", "run/checkpoints"});
  const std::vector<std::string> messages = ended.messages();
  // A checkpoint that was just being committed may have warnings of its own.
  EXPECT_EQ(std::count_if(messages.begin(), messages.end(),
                          [](const std::string& m) { return m.find("was given up") != std::string::npos; }),
            3)
      << ended.all();
}

TEST(FailingCheckpoints, TrainingGoesOnAndSoDoCheckpoints) {
  const ScratchDir dir;
  Training t(dir, 3, set({"checkpoint.every_steps=5", "checkpoint.max_failures=1000000"}));
  LostCheckpointDir lost(dir);
  ASSERT_TRUE(
      t.job.wait_until([&] { return t.job.err().find("was given up") != std::string::npos; }, kStartSeconds));
  EXPECT_TRUE(t.goes_on());
  lost.give_back();
  const std::size_t before = summary_of(t.job.out()).checkpoints.size();
  EXPECT_TRUE(t.job.wait_until([&] { return summary_of(t.job.out()).checkpoints.size() > before + 1; },
                               kStartSeconds))
      << t.job.err();
  EXPECT_FALSE(t.job.ended());
}

// In a mount namespace of this process and its children, so that no mount can be left behind.
bool mount_small_disk(const std::string& at, const char* size) {
  std::filesystem::create_directories(at);
  return unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("tmpfs", at.c_str(), "tmpfs", 0, size) == 0;
}

TEST(FullDisk, EndsTheJobAfterMaxFailures) {
  const ScratchDir dir;
  if (!mount_small_disk(dir / "run", "size=200k")) GTEST_SKIP() << "cannot mount a small file system here";
  {
    Job job(mpirun(3, train_small(dir, set({"checkpoint.every_steps=20", "checkpoint.max_failures=2"}))));
    expect_failure(
        job.wait(kRefusedSeconds), 11,
        {"rank 0", "2 checkpoints in a row have failed", "No space left on device", "shard-00000-of-00001"});
    for (const std::string& name : names_in(dir / "run/checkpoints")) {
      EXPECT_FALSE(name.starts_with(".tmp-") || name.starts_with("step-")) << name;
    }
  }
  umount((dir / "run").c_str());
}

// --- two jobs, one directory
// ------------------------------------------------------------------------------------------

TEST(TwoJobs, TheSecondIsRefusedAndTheFirstGoesOn) {
  const ScratchDir dir, other;
  const Args shared =
      set({"checkpoint.dir=" + (dir / "shared"), "checkpoint.every_steps=5", "output.metrics=false"});
  Training first(dir, 3, shared);
  ASSERT_TRUE(
      first.job.wait_until([&] { return !summary_of(first.job.out()).checkpoints.empty(); }, kStartSeconds));
  const std::vector<std::string> words = {dir / "shared", "in use by another job", "pid"};
  expect_failure(run(mpirun(3, train_small(other, shared + Args{"--resume"})), kRefusedSeconds), 4, words);
  expect_failure(run(varscope(train_small(other, shared + Args{"--resume"})), kRefusedSeconds), 4, words);
  expect_failure(run(mpirun(3, train_small(other, shared + Args{"--fresh"})), kRefusedSeconds), 4, words);
  EXPECT_TRUE(first.goes_on()) << first.job.err();
  const std::size_t before = summary_of(first.job.out()).checkpoints.size();
  EXPECT_TRUE(first.job.wait_until([&] { return summary_of(first.job.out()).checkpoints.size() > before; },
                                   kStartSeconds))
      << first.job.err();
  EXPECT_TRUE(messages_in(first.job.err()).empty()) << first.job.err();
}

// --- a damaged newest checkpoint is passed over
// -------------------------------------------------------------------------

TEST(DamagedNewest, IsPassedOverWithAWarning) {
  const ScratchDir dir;
  make_checkpoint(dir);
  const Args six = set({"train.max_steps=6", "checkpoint.at_end=true"});
  EXPECT_EQ(train(mpirun(3, train_small(dir, six + Args{"--resume"}))).first_step, 3);
  flip_byte(dir / "run/checkpoints/step-000000006/worker-00001.state", 60);
  const Ended ended = run(mpirun(3, train_small(dir, six + Args{"--resume"})));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(summary_of(ended.out).first_step, 3) << ended.all();
  ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
  EXPECT_NE(ended.messages()[0].find("warning: "), std::string::npos);
  EXPECT_NE(ended.messages()[0].find("step-000000006"), std::string::npos);
  EXPECT_NE(ended.err.find("worker-00001.state"), std::string::npos);
}

}  // namespace
}  // namespace varscope::testing
