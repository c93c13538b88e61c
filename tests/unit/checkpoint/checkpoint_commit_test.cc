#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using testing::FaultFs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::save;
using testing::slurp;
using testing::small_model;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;

Digest hash_of_newest(Fs& fs, const std::string& dir) {
  return CheckpointReader::open(fs, newest_checkpoint(fs, dir).path).values_hash();
}

std::vector<std::string> leftovers(Fs& fs, const std::string& dir) {
  std::vector<std::string> names;
  for (const std::string& name : fs.list(dir)) {
    if (name.starts_with(".")) names.push_back(name);
  }
  return names;
}

TEST(CheckpointDirectory, CommitsAndFinds) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir / "run/checkpoints");
  directory.lock("run-7");
  const std::string path = save(fs, directory, small_model(1), 12, 3, "a");
  EXPECT_EQ(path, dir / "run/checkpoints/step-000000012");
  EXPECT_THAT(fs.list(path),
              ElementsAre("MANIFEST", "manifest.json", "shard-00000-of-00003.safetensors",
                          "shard-00001-of-00003.safetensors", "shard-00002-of-00003.safetensors",
                          "worker-00000.state", "worker-00001.state"));
  const FoundCheckpoint found = newest_checkpoint(fs, directory.dir());
  EXPECT_EQ(found.path, path);
  EXPECT_THAT(found.warnings, IsEmpty());
  EXPECT_THAT(directory.warnings(), IsEmpty());
  EXPECT_EQ(slurp(dir / "run/checkpoints/LATEST"),
            "step-000000012 " + digest_of(std::string_view(slurp(path + "/MANIFEST"))).hex() + "\n");
  const auto entries = directory.scan();
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].manifest->id, "a");
  EXPECT_GT(entries[0].manifest->unix_time, 1'600'000'000);
  EXPECT_EQ(values_hash_of(*entries[0].manifest), testing::values_hash_of(small_model(1)));
  EXPECT_THAT(leftovers(fs, directory.dir()), IsEmpty());
}

TEST(CheckpointDirectory, OperationsComeInTheOrderOfTheProtocol) {
  TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  save(fs, directory, tiny_model(1), 1, 1, "a");
  const auto at = [&](const std::string& what) {
    for (std::size_t i = 0; i < fs.log().size(); ++i) {
      if (fs.log()[i] == what) return static_cast<int>(i);
    }
    ADD_FAILURE() << "never: " << what;
    return -1;
  };
  const std::string tmp = dir / ".tmp-a";
  const int rename = at("rename " + tmp + " -> " + (dir / "step-000000001"));
  const int shard = at("fsync " + tmp + "/shard-00000-of-00001.safetensors");
  EXPECT_LT(at("make directory " + tmp), at("fsync directory " + dir.path()));
  EXPECT_LT(shard, at("create " + tmp + "/MANIFEST"));
  EXPECT_LT(at("fsync " + tmp + "/MANIFEST"), at("fsync directory " + tmp));
  EXPECT_LT(at("fsync " + tmp + "/manifest.json"), at("fsync directory " + tmp));
  EXPECT_LT(at("fsync directory " + tmp), rename);
  EXPECT_EQ(fs.log()[static_cast<std::size_t>(rename) + 1], "fsync directory " + dir.path());
  EXPECT_LT(rename, at("create " + (dir / ".tmp-LATEST")));
}

TEST(CheckpointDirectory, RefusesWhatDoesNotMakeAWhole) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  const auto model = tiny_model(1);
  std::string tmp = directory.begin("a");
  Manifest m = testing::make_manifest(model, 3, 2);
  add_report(m, testing::write_part(fs, tmp, model, 3, 0, 2, "a"));
  EXPECT_THAT(error_of([&] { directory.commit("a", m); }),
              HasSubstr("checkpoint a has no shard-00001-of-00002"));
  add_report(m, testing::write_part(fs, tmp, model, 3, 1, 2, "a"));
  std::filesystem::resize_file(tmp + "/" + shard_name(1, 2), 100);
  EXPECT_THAT(error_of([&] { directory.commit("a", m); }),
              AllOf(HasSubstr("checkpoint a is not as its servers reported"),
                    HasSubstr("shard-00001-of-00002.safetensors has 100 bytes instead of")));
  fs.remove_all(tmp + "/" + shard_name(1, 2));
  EXPECT_THAT(error_of([&] { directory.commit("a", m); }),
              HasSubstr("shard-00001-of-00002.safetensors is missing"));
  directory.abandon("a");
  EXPECT_THAT(directory.scan(), IsEmpty());
  EXPECT_THAT(leftovers(fs, dir.path()), IsEmpty());
}

TEST(CheckpointDirectory, IdsAreFileNames) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  EXPECT_THAT(error_of([&] { directory.begin("a"); }), HasSubstr("lock() the checkpoint directory"));
  EXPECT_THAT(error_of([&] { directory.sweep(); }), HasSubstr("argument: lock()"));
  directory.lock("run");
  for (const char* id : {"", "a/b", "a b", "\xff"}) {
    EXPECT_THAT(error_of([&] { directory.begin(id); }), HasSubstr("argument: checkpoint id"));
  }
  directory.abandon("a/b");  // nothing to say
  directory.begin("step-3.attempt_1");
  EXPECT_THAT(error_of([&] { directory.begin("step-3.attempt_1"); }), HasSubstr("File exists"));
}

TEST(CheckpointDirectory, SecondJobIsRefusedAndToldWhoHasIt) {
  TempDir dir;
  PosixFs fs;
  auto first = std::make_unique<CheckpointDirectory>(fs, dir.path());
  first->lock("run-7");
  CheckpointDirectory second(fs, dir.path());
  EXPECT_THAT(error_of([&] { second.lock("run-8"); }),
              AllOf(HasSubstr("checkpoint: the checkpoint directory " + dir.path() +
                              " is in use by another job (run run-7"),
                    HasSubstr("pid " + std::to_string(::getpid())), HasSubstr("choose another directory")));
  first.reset();
  second.lock("run-8");
  EXPECT_THAT(slurp(dir / "LOCK"), HasSubstr("run-8"));
}

TEST(CheckpointDirectory, KilledJobFreesTheLock) {
  TempDir dir;
  PosixFs fs;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("doomed");
    [[maybe_unused]] const auto n = ::write(ready[1], "x", 1);
    while (true) ::pause();
  }
  char c;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  CheckpointDirectory directory(fs, dir.path());
  EXPECT_THAT(error_of([&] { directory.lock("next"); }),
              HasSubstr("run doomed pid " + std::to_string(child)));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  directory.lock("next");
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(CheckpointDirectory, RetentionKeepsTheNewest) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  for (int step : {1, 2, 3, 4}) save(fs, directory, tiny_model(step), step, 1, "id-" + std::to_string(step));
  EXPECT_THAT(directory.retain(0), IsEmpty());
  EXPECT_THAT(directory.retain(9), IsEmpty());
  EXPECT_THAT(directory.retain(2), ElementsAre("step-000000002", "step-000000001"));
  EXPECT_THAT(fs.list(dir.path()), ElementsAre("LATEST", "LOCK", "step-000000003", "step-000000004"));
  EXPECT_THAT(error_of([&] { directory.retain(-1); }), HasSubstr("cannot keep -1 checkpoints"));
}

TEST(CheckpointDirectory, RetentionDoesNotCountDamagedOnes) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  for (int step : {1, 2, 3}) save(fs, directory, tiny_model(step), step, 1, "id-" + std::to_string(step));
  std::filesystem::remove(dir / "step-000000003/MANIFEST");
  EXPECT_THAT(directory.retain(1), ElementsAre("step-000000001"));
  EXPECT_EQ(newest_checkpoint(fs, dir.path()).path, dir / "step-000000002");
}

TEST(CheckpointDirectory, SweepRemovesWhatKilledRunsLeft) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  save(fs, directory, tiny_model(1), 1, 1, "a");
  testing::write_part(fs, directory.begin("dead"), tiny_model(1), 2, 0, 1, "dead");
  fs.make_dirs(dir / ".trash/step-000000000");
  spit(dir / ".tmp-LATEST", "torn");
  spit(dir / "notes.txt", "the user's own");
  directory.sweep();
  EXPECT_THAT(fs.list(dir.path()), ElementsAre("LATEST", "LOCK", "notes.txt", "step-000000001"));
}

TEST(CheckpointDirectory, SameStepAgainSetsTheOldOneAside) {
  for (const bool exchange : {true, false}) {
    TempDir dir;
    PosixFs posix;
    FaultFs fs(posix);
    if (!exchange) fs.no_exchange();
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    for (unsigned seed : {1, 2, 3}) save(fs, directory, tiny_model(seed), 5, 1, "id-" + std::to_string(seed));
    EXPECT_EQ(hash_of_newest(fs, dir.path()), testing::values_hash_of(tiny_model(3)));
    std::vector<std::string> aside;
    for (const std::string& name : fs.list(dir.path())) {
      if (name.starts_with("superseded-step-000000005-")) aside.push_back(name);
    }
    ASSERT_EQ(aside.size(), 2U);
    for (const std::string& name : aside) EXPECT_THAT(verify_checkpoint(fs, dir / name), IsEmpty());
    EXPECT_EQ(directory.scan().size(), 1U);
    EXPECT_THAT(leftovers(fs, dir.path()), IsEmpty());
  }
}

TEST(CheckpointDirectory, LatestIsOnlyAHint) {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  save(fs, directory, tiny_model(1), 1, 1, "a");
  const std::string stale = slurp(dir / "LATEST");
  const std::string path = save(fs, directory, tiny_model(2), 2, 1, "b");
  const std::string good = slurp(dir / "LATEST");
  std::string other_hash = good;
  other_hash[20] = other_hash[20] == '0' ? '1' : '0';
  const std::vector<std::pair<std::string, std::string>> cases = {
      {stale, "is stale: it names step-000000001, the newest is step-000000002"},
      {good.substr(0, 20), "cannot be used"},
      {"", "is torn"},
      {good + "x", "is torn"},
      {other_hash, "with another MANIFEST"},
      {std::string(5000, 'x'), "cannot be used"},
  };
  for (const auto& [text, words] : cases) {
    spit(dir / "LATEST", text);
    const FoundCheckpoint found = newest_checkpoint(fs, dir.path());
    EXPECT_EQ(found.path, path);
    ASSERT_EQ(found.warnings.size(), 1U) << text;
    EXPECT_THAT(found.warnings[0], HasSubstr(words));
  }
  fs.remove_all(dir / "LATEST");
  EXPECT_THAT(newest_checkpoint(fs, dir.path()).warnings,
              ElementsAre(dir / "LATEST is missing; step-000000002 was found by scanning"));
}

}  // namespace
}  // namespace varscope
