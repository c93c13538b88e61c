// A disk that is really full, and calls that really fail with EIO: the save is given up and reported,
// training goes on to the same bits, and the next save works.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <functional>

#include "tests/support/failure_matrix.h"
#include "tests/support/fs/small_disk.h"
#include "tests/support/jobs/points_job.h"
#include "tests/support/jobs/tiny_job.h"

namespace varscope::testing {
namespace {

FailureMatrix& matrix =
    FailureMatrix::install("disks: full, and calls that fail", VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr int kDiskMib = 8;
constexpr int kWorkerRank = 2;
constexpr long kRoomLeft = 8192;  // bytes: for a directory, not for a shard

constexpr const char* kBeforeTheSave = "before mkdir tmp";

std::string step_directory(std::int64_t step) { return fmt::format("step-{:09d}", step); }
bool holds(const std::string& dir, const std::string& name) {
  return std::filesystem::exists(dir + "/" + name);
}
// Nothing but whole checkpoints and what belongs beside them.
void expect_tidy(const std::string& dir) {
  for (const std::string& name : names_in(dir)) EXPECT_FALSE(name.starts_with(".")) << name;
}

// Training with saves held at `point` of the second and before the third: `break_disk` at the one,
// `mend_disk` at the other. Expects that the second save was given up with `words`, and all else as if
// nothing had been.
void expect_one_save_given_up(const Command& command, const std::string& checkpoints,
                              const std::function<void(PointsJob&)>& break_disk,
                              const std::function<void(PointsJob&)>& mend_disk,
                              const std::vector<std::string>& words,
                              const std::string& point = kBeforeTheSave) {
  PointsJob job(command, {{0, 2, point, "wait"}, {0, 3, kBeforeTheSave, "wait"}});
  const auto second = job.wait_for_hit(0, 1, kStartSeconds);
  ASSERT_TRUE(second) << job->wait(0).all();
  break_disk(job);
  if (::testing::Test::IsSkipped()) return;
  job.go_on(0, 1);
  const auto third = job.wait_for_hit(0, 2, kStartSeconds);
  ASSERT_TRUE(third) << job->wait(0).all();
  EXPECT_TRUE(holds(checkpoints, step_directory(kFirstSave)));
  EXPECT_FALSE(holds(checkpoints, step_directory(second->saving)));
  expect_tidy(checkpoints);
  mend_disk(job);
  job.go_on(0, 2);
  const Ended ended = job->wait(kStartSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  ASSERT_EQ(ended.messages().size(), 1U) << ended.all();
  for (const std::string& word : words)
    EXPECT_NE(ended.messages()[0].find(word), std::string::npos) << word << "\n" << ended.all();
  const std::string given_up =
      fmt::format("warning: the checkpoint of step {} was given up: ", second->saving);
  EXPECT_NE(ended.messages()[0].find(given_up), std::string::npos) << ended.all();
  const Summary s = summary_of(ended.out);
  EXPECT_EQ(s.hash, tiny_hash());
  for (const std::int64_t step : {kFirstSave, third->saving, kTinySteps})
    EXPECT_NE(std::find(s.checkpoints.begin(), s.checkpoints.end(), step), s.checkpoints.end())
        << ended.all();
}

Args on_disk(const SmallDisk& disk) { return set({"checkpoint.dir=" + disk.path() + "/checkpoints"}); }

struct DiskKind {
  const char* name;
  std::unique_ptr<SmallDisk> (*make)(const std::string&, int);
};
const DiskKind kDisks[] = {{"tmpfs", SmallDisk::in_memory}, {"ext4", SmallDisk::ext4}};

class FullDisk : public ::testing::TestWithParam<DiskKind> {};

TEST_P(FullDisk, GivesUpTheSaveAndTheNextWorksOnceThereIsRoom) {
  const ScratchDir dir;
  const auto disk = GetParam().make(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  expect_one_save_given_up(
      tiny_mpirun(dir / "run", on_disk(*disk) + saving_always() + set({"checkpoint.keep=2"})),
      disk->path() + "/checkpoints", [&](PointsJob&) { disk->fill_up(kRoomLeft); },
      [&](PointsJob&) { disk->make_room(); },
      {"No space left on device", "free some space or choose another directory", "training goes on"});
  matrix.add({"ENOSPC", fmt::format("a full {}, second save", GetParam().name), "1",
              "this save is given up, the one before stays; with room again the next works; same bits"});
}

TEST_P(FullDisk, EndsTheJobAfterMaxFailuresAndItResumes) {
  const ScratchDir dir;
  const auto disk = GetParam().make(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  PointsJob job(
      tiny_mpirun(dir / "run", on_disk(*disk) + saving_always() + set({"checkpoint.max_failures=2"})),
      {{0, 2, kBeforeTheSave, "wait"}});
  ASSERT_TRUE(job.wait_for_hit(0, 1, kStartSeconds)) << job->wait(0).all();
  disk->fill_up(kRoomLeft);
  job.go_on(0, 1);
  const Ended ended = job->wait(kStartSeconds);
  EXPECT_EQ(ended.code, 11) << ended.all();
  ASSERT_EQ(ended.errors().size(), 1U) << ended.all();
  EXPECT_NE(ended.errors()[0].find("2 checkpoints in a row have failed"), std::string::npos) << ended.all();
  EXPECT_NE(ended.errors()[0].find("No space left on device"), std::string::npos) << ended.all();
  EXPECT_EQ(ended.err.find("still writes"), std::string::npos) << ended.all();
  disk->make_room();
  const Summary s = train(tiny_alone(dir / "run", on_disk(*disk) + Args{"--resume"}));
  EXPECT_EQ(s.first_step, kFirstSave);
  EXPECT_EQ(s.hash, tiny_hash());
  expect_tidy(disk->path() + "/checkpoints");
  matrix.add({"ENOSPC", fmt::format("a full {}, second save and all after it", GetParam().name),
              "checkpoint.max_failures: 2", "11; with room again resumes from the save before; same bits"});
}

// A save that comes while another server still writes its part of the one given up would be refused, and the
// reason would be lost.
TEST_P(FullDisk, TheNextSaveWaitsForAServerThatStillWritesTheOneGivenUp) {
  const ScratchDir dir;
  const auto disk = GetParam().make(dir / "disk", kDiskMib);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  PointsJob job(tiny_mpirun(dir / "run", on_disk(*disk) + longer() + saving_always() +
                                             set({"checkpoint.max_failures=2", "train.log_every_steps=10"})),
                {{0, 2, "before create shard", "wait"}, {1, 2, "before create shard", "wait"}},
                Syncs::left_out);
  const auto second = job.wait_for_hit(0, 1, kStartSeconds);
  ASSERT_TRUE(second && job.wait_for_hit(1, 1, kStartSeconds)) << job->wait(0).all();
  kill(job.pid(kWorkerRank), SIGSTOP);  // filling takes longer than all of training
  disk->fill_up(kRoomLeft);
  job.go_on(0, 1);
  const auto warned = [&] { return job->err().find("was given up") != std::string::npos; };
  ASSERT_TRUE(job->wait_until(warned, kStartSeconds)) << job->wait(0).all();
  disk->make_room();
  kill(job.pid(kWorkerRank), SIGCONT);
  const std::int64_t now = job->last_step();
  EXPECT_TRUE(job->wait_until([&] { return job->last_step() >= now + 10 * kFirstSave; }, kStartSeconds));
  job.go_on(1, 1);
  const Ended ended = job->wait(kStartSeconds);
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.messages().size(), 1U) << ended.all();
  const Summary s = summary_of(ended.out);
  EXPECT_EQ(s.hash, tiny_hash(kLongerSteps));
  ASSERT_GE(s.checkpoints.size(), 2U) << ended.all();
  EXPECT_GT(s.checkpoints[1], second->saving + 5 * kFirstSave) << ended.all();
  expect_tidy(disk->path() + "/checkpoints");
  matrix.add({"ENOSPC",
              fmt::format("a full {}, server 0 only; server 1 writes for 50 steps more", GetParam().name),
              "1", "this save is given up; the next one waits for server 1 and works; same bits"});
}

INSTANTIATE_TEST_SUITE_P(Disks, FullDisk, ::testing::ValuesIn(kDisks),
                         [](const auto& info) { return std::string(info.param.name); });

// --- calls that fail by strace

constexpr const char* kStrace = "/usr/bin/strace";

// True when every thread of the process has a tracer, or none has.
bool all_traced(pid_t pid, bool traced) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  const std::vector<std::string> threads = names_in(tasks);
  return !threads.empty() && std::all_of(threads.begin(), threads.end(), [&](const std::string& thread) {
    const std::string status = read_text(tasks + "/" + thread + "/status");
    return (status.find("TracerPid:\t0\n") == std::string::npos) == traced;
  });
}

// While it lives, these system calls of the process fail; where files are named, only those on them.
class FailingCalls {
 public:
  FailingCalls(pid_t pid, const std::string& calls, const std::string& error, const Args& files)
      : pid_(pid),
        strace_({Args{kStrace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + calls, "-e",
                      "inject=" + calls + ":error=" + error, "-p", std::to_string(pid)} +
                 only(files)}) {
    works_ = strace_.wait_until([&] { return all_traced(pid_, true); }, kStartSeconds);
  }
  ~FailingCalls() {
    strace_.send_signal(SIGTERM);
    strace_.wait(kStartSeconds);
    EXPECT_TRUE(all_traced(pid_, false));
  }
  bool works() const { return works_; }

 private:
  static Args only(const Args& files) {
    Args words;
    for (const std::string& file : files) words = words + Args{"-P", file};
    return words;
  }
  pid_t pid_;
  Job strace_;
  bool works_ = false;
};

struct FailingCall {
  const char* name;
  const char* calls;
  const char* error;
  const char* text;   // strerror
  const char* point;  // from which on
  const char* words;
  const char* where;
};
constexpr const char* kInTheShard = "within write shard";
constexpr FailingCall kCalls[] = {
    {"Fsync", "fsync", "EIO", "Input/output error", kBeforeTheSave, "cannot fsync", "every fsync of a save"},
    {"Rename", "renameat2", "EIO", "Input/output error", kBeforeTheSave, "cannot rename",
     "the rename that commits"},
    {"Mkdir", "mkdir", "EIO", "Input/output error", kBeforeTheSave, "cannot make directory",
     "the mkdir of its directory"},
    {"Write", "write", "EIO", "Input/output error", kInTheShard, "cannot write",
     "the second half of a shard's write"},
    {"WriteBeyondTheQuota", "write", "EDQUOT", "Disk quota exceeded; free some space", kInTheShard,
     "cannot write", "the second half of a shard's write"},
};

// The files that are being written in a directory of checkpoints.
Args files_under_way(const std::string& checkpoints) {
  Args files;
  for (const std::string& name : names_in(checkpoints)) {
    if (!name.starts_with(".tmp-")) continue;
    for (const std::string& file : names_in(checkpoints + "/" + name))
      files.push_back(checkpoints + "/" + name + "/" + file);
  }
  return files;
}

class FailingCallTest : public ::testing::TestWithParam<FailingCall> {};

TEST_P(FailingCallTest, GivesUpTheSaveAndTheNextWorks) {
  if (!std::filesystem::exists(kStrace)) GTEST_SKIP() << "needs " << kStrace;
  const ScratchDir dir;
  std::unique_ptr<FailingCalls> failing;
  expect_one_save_given_up(
      tiny_alone(dir / "run", saving_always() + set({"checkpoint.keep=2"})), dir / "run/checkpoints",
      [&](PointsJob& job) {
        failing = std::make_unique<FailingCalls>(job.pid(0), GetParam().calls, GetParam().error,
                                                 files_under_way(dir / "run/checkpoints"));
        if (!failing->works()) GTEST_SKIP() << "strace may not trace here";
      },
      [&](PointsJob&) { failing.reset(); }, {GetParam().words, GetParam().text, "training goes on"},
      GetParam().point);
  if (IsSkipped()) return;
  matrix.add({GetParam().error, std::string("one process, second save, ") + GetParam().where, "1",
              "this save is given up, the one before stays; the next works; same bits"});
}

INSTANTIATE_TEST_SUITE_P(Calls, FailingCallTest, ::testing::ValuesIn(kCalls),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace varscope::testing
