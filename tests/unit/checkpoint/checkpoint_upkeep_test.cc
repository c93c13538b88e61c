// Rollback, pins and pruning of a directory of checkpoints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/rollback_pin.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::save;
using testing::slurp;
using testing::TempDir;
using testing::tiny_model;

// Checkpoints of steps 1 .. n; each with values of its own. Nobody holds the lock.
class CheckpointUpkeep : public ::testing::Test {
 protected:
  void fill(int n) {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    for (int step = 1; step <= n; ++step)
      save(fs, directory, tiny_model(static_cast<unsigned>(step)), step, 1, "id-" + std::to_string(step));
  }
  std::string path(std::int64_t step) const { return dir / step_name(step); }
  std::vector<std::int64_t> steps() {
    std::vector<std::int64_t> all;
    for (const CheckpointEntry& e : scan_checkpoints(fs, dir.path())) all.push_back(e.step);
    return all;
  }
  std::string rollback(std::int64_t step, Fs& on) {
    std::string out;
    rollback_tool(on, dir.path(), step, ToolFormat::text, out);
    return out;
  }
  std::string pin(std::int64_t step, PinChange change = PinChange::pin) {
    std::string out;
    pin_tool(fs, dir.path(), step, change, ToolFormat::text, out);
    return out;
  }
  std::string prune(int keep, PruneMode mode = PruneMode::remove, ToolFormat format = ToolFormat::text) {
    std::string out;
    prune_tool(fs, dir.path(), {.keep = keep}, mode, format, out);
    return out;
  }
  std::string latest_warning() { return latest_problem(fs, dir.path(), scan_checkpoints(fs, dir.path())); }

  TempDir dir;
  PosixFs fs;
};

TEST_F(CheckpointUpkeep, RollbackSetsNewerOnesAsideAndRecordsIt) {
  fill(4);
  EXPECT_EQ(rollback(2, fs),
            "step-000000004 set aside\nstep-000000003 set aside\nstep-000000002 is the newest checkpoint\n");
  EXPECT_THAT(steps(), ElementsAre(2, 1));
  EXPECT_EQ(newest_checkpoint(fs, dir.path()).path, path(2));
  EXPECT_EQ(latest_warning(), "");
  const auto event = nlohmann::json::parse(slurp(dir / "LINEAGE"));
  EXPECT_EQ(event.at("event"), "rollback");
  EXPECT_EQ(event.at("to"), "step-000000002");
  EXPECT_EQ(event.at("set_aside"), nlohmann::json({"step-000000004", "step-000000003"}));
  std::string aside;
  for (const std::string& name : fs.list(dir.path())) {
    if (name.starts_with("superseded-step-000000004-")) aside = name;
  }
  EXPECT_THAT(verify_checkpoint(fs, dir / aside), IsEmpty()) << "not deleted, and whole";
  EXPECT_THAT(list_text(fs, dir.path()),
              AllOf(HasSubstr("set aside: " + aside), HasSubstr("rollback to step-000000002\n")));
}

TEST_F(CheckpointUpkeep, RollbackToTheNewestOnlyMendsLatest) {
  fill(2);
  testing::spit(dir / "LATEST", "torn");
  EXPECT_EQ(rollback(2, fs), "step-000000002 is the newest checkpoint already: nothing was set aside\n");
  EXPECT_EQ(latest_warning(), "");
  EXPECT_FALSE(fs.exists(dir / "LINEAGE"));
}

TEST_F(CheckpointUpkeep, RollbackRefusesWhatIsNotThereOrDamaged) {
  fill(2);
  EXPECT_EQ(error_of([&] { rollback(7, fs); }),
            fmt::format("checkpoint: there is no checkpoint of step 7 in {}; it holds step-000000002, "
                        "step-000000001",
                        dir.path()));
  testing::flip_bit(path(1) + "/" + shard_name(0, 1), 4099);
  EXPECT_THAT(error_of([&] { rollback(1, fs); }),
              AllOf(HasSubstr("which is damaged"), HasSubstr("nothing was changed")));
  EXPECT_THAT(steps(), ElementsAre(2, 1));
  std::string out;
  EXPECT_THAT(error_of([&] { rollback_tool(fs, dir / "none", 1, ToolFormat::text, out); }),
              HasSubstr("there is no checkpoint directory"));
  EXPECT_FALSE(fs.exists(dir / "none"));
}

TEST_F(CheckpointUpkeep, RollbackCanBeRepeatedAfterAnyFailure) {
  for (const FsOp op : testing::kMutatingOps) {
    for (int n = 1;; ++n) {
      SCOPED_TRACE(fmt::format("{} {}", testing::to_string(op), n));
      for (const std::string& name : fs.list(dir.path())) fs.remove_all(dir / name);
      fill(4);
      FaultFs faulty(fs);
      faulty.fail_nth(op, n, EIO);
      const bool failed = error_of([&] { rollback(2, faulty); }) != "no error";
      for (const std::int64_t step : steps()) EXPECT_THAT(verify_checkpoint(fs, path(step)), IsEmpty());
      rollback(2, fs);
      EXPECT_THAT(steps(), ElementsAre(2, 1));
      EXPECT_EQ(latest_warning(), "");
      EXPECT_THAT(slurp(dir / "LINEAGE"), HasSubstr("\"to\":\"step-000000002\""));
      if (!failed) break;
    }
  }
}

TEST_F(CheckpointUpkeep, PinnedOnesOutliveRetentionAndPrune) {
  fill(5);
  EXPECT_EQ(pin(1), "step-000000001 is pinned: it is never removed\n");
  EXPECT_EQ(pin(1), "step-000000001 is pinned: it is never removed\n");
  pin(5);
  EXPECT_THAT(verify_checkpoint(fs, path(1)), IsEmpty());
  EXPECT_THAT(list_text(fs, dir.path()), HasSubstr("committed, pinned"));
  {
    CheckpointDirectory directory(fs, dir.path());
    directory.lock("run");
    EXPECT_THAT(directory.retain(2), ElementsAre("step-000000002")) << "pinned ones do not count";
  }
  EXPECT_THAT(steps(), ElementsAre(5, 4, 3, 1));
  pin(1, PinChange::unpin);
  pin(1, PinChange::unpin);
  prune(1);
  EXPECT_THAT(steps(), ElementsAre(5, 4));
  EXPECT_THAT(error_of([&] { pin(1); }), HasSubstr("there is no checkpoint of step 1"));
}

TEST_F(CheckpointUpkeep, APinStaysWithACheckpointThatIsSetAside) {
  fill(2);
  pin(2);
  rollback(1, fs);
  for (const std::string& name : fs.list(dir.path())) {
    if (name.starts_with("superseded-")) {
      EXPECT_TRUE(fs.exists(dir / name + "/PINNED"));
    }
  }
}

TEST_F(CheckpointUpkeep, PruneTellsFirstAndThenRemoves) {
  fill(4);
  EXPECT_THAT(
      prune(3, PruneMode::dry_run),
      AllOf(HasSubstr("step-000000002 stays: newest\nstep-000000001 would be removed\n1 checkpoint, "),
            HasSubstr("a dry run")));
  EXPECT_THAT(steps(), ElementsAre(4, 3, 2, 1));
  const auto json = nlohmann::json::parse(prune(2, PruneMode::remove, ToolFormat::json));
  EXPECT_EQ(json.at("removed"), nlohmann::json({"step-000000002", "step-000000001"}));
  EXPECT_GT(json.at("bytes"), 2 * 4096);
  EXPECT_THAT(steps(), ElementsAre(4, 3));
  EXPECT_FALSE(fs.exists(dir / ".trash"));
  EXPECT_EQ(prune(2), "0 checkpoints, 0 bytes\n");
  EXPECT_EQ(prune(9), "0 checkpoints, 0 bytes\n");
  EXPECT_THAT(error_of([&] { prune(0); }), HasSubstr("keep 1 or more"));
}

TEST_F(CheckpointUpkeep, EveryToolRefusesWhileAJobWrites) {
  fill(3);
  CheckpointDirectory job(fs, dir.path());
  job.lock("run-9");
  for (const auto& tool : {std::function<void()>([&] { rollback(1, fs); }),
                           std::function<void()>([&] { pin(1); }), std::function<void()>([&] { prune(1); }),
                           std::function<void()>([&] { prune(1, PruneMode::dry_run); })}) {
    EXPECT_THAT(error_of(tool), AllOf(HasSubstr("is in use by another job"), HasSubstr("run run-9")));
  }
  EXPECT_THAT(steps(), ElementsAre(3, 2, 1));
}

TEST_F(CheckpointUpkeep, ATornLineageLosesOnlyItsLastLine) {
  fill(3);
  rollback(2, fs);
  const std::string first = slurp(dir / "LINEAGE");
  testing::spit(dir / "LINEAGE", first + "not json\n{\"event\": \"rollb");
  rollback(1, fs);
  const std::string text = slurp(dir / "LINEAGE");
  EXPECT_TRUE(text.starts_with(first + "not json\n{\"event\":\"rollback\"")) << text;
  const auto json = nlohmann::json::parse(list_text(fs, dir.path(), ToolFormat::json));
  EXPECT_EQ(json.at("lineage").size(), 2U);
}

}  // namespace
}  // namespace varscope
