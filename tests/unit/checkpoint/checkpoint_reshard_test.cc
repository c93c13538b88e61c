// A checkpoint written anew for another number of servers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "checkpoint/tools/diff.h"
#include "checkpoint/tools/reshard.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Model;
using testing::partitioned;
using testing::Saved;
using testing::small_model;
using testing::TempDir;
using testing::tiny_model;

std::string reshard(Fs& fs, const std::string& path, const std::string& dir, int servers) {
  std::string out;
  reshard_tool(fs, path, dir, servers, ToolFormat::json, out);
  return nlohmann::json::parse(out).at("path");
}

TEST(CheckpointReshard, PlacesEverySliceAsAJobOfThatManyServers) {
  for (const Model& model : {small_model(4), partitioned(small_model(4), {3, 1})}) {
    Saved saved(model, 2);
    const Manifest before = load_manifest(saved.fs, saved.path).manifest;
    for (const int servers : {1, 2, 3, 7}) {
      SCOPED_TRACE(servers);
      TempDir dir;
      const std::string path = reshard(saved.fs, saved.path, dir / "new", servers);
      EXPECT_EQ(path, dir / "new/step-000000005");
      EXPECT_THAT(verify_checkpoint(saved.fs, path), IsEmpty());
      const Manifest after = load_manifest(saved.fs, path).manifest;
      EXPECT_EQ(after.servers, servers);
      EXPECT_EQ(after.values_hash, before.values_hash);
      EXPECT_EQ(after.tensors.size(), before.tensors.size());
      for (const TensorRecord& t : after.tensors) {
        EXPECT_EQ(server_of_shard(after.files[t.file].name),
                  model.table.find(t.variable)->owner(t.slice, servers).value)
            << t.variable << " " << t.slice;
      }
      EXPECT_EQ(after.run_id, before.run_id);
      EXPECT_EQ(after.unix_time, before.unix_time);
      EXPECT_EQ(after.worker_clocks, before.worker_clocks);
      EXPECT_EQ(after.coordinator_state, before.coordinator_state);
      EXPECT_NE(after.id, before.id);
      CheckpointReader reader = CheckpointReader::open(saved.fs, path);
      EXPECT_EQ(reader.read_file(worker_state_name(0)), "position of worker 0");
      EXPECT_EQ(reader.read_file(worker_state_name(1)), "");
      EXPECT_TRUE(diff_checkpoints(saved.fs, saved.path, path).equal());
      EXPECT_EQ(newest_checkpoint(saved.fs, dir / "new").path, path);
    }
  }
}

TEST(CheckpointReshard, GoesThereAndBack) {
  Saved saved(small_model(5), 3);
  TempDir dir;
  const std::string one = reshard(saved.fs, saved.path, dir / "a", 1);
  const std::string three = reshard(saved.fs, one, dir / "b", 3);
  EXPECT_EQ(reshard(saved.fs, three, dir / "a", 3), one) << "the same step replaces what was there";
  EXPECT_TRUE(diff_checkpoints(saved.fs, saved.path, one).equal());
  EXPECT_EQ(load_manifest(saved.fs, one).manifest.servers, 3);
}

TEST(CheckpointReshard, RefusesDamageAndALockedDirectory) {
  Saved saved(tiny_model(1), 1);
  EXPECT_THAT(error_of([&] { reshard(saved.fs, saved.path, saved.dir.path(), 2); }),
              HasSubstr("in use by another job"));
  testing::flip_bit(saved.shard(0, 1), 4096 + 5);
  TempDir dir;
  EXPECT_THAT(error_of([&] { reshard(saved.fs, saved.path, dir.path(), 2); }),
              AllOf(HasSubstr("is damaged: CRC block 0")));
  EXPECT_THAT(scan_checkpoints(saved.fs, dir.path()), IsEmpty());
  for (const std::string& name : saved.fs.list(dir.path()))
    EXPECT_EQ(name, "LOCK") << "nothing is left behind";
}

TEST(CheckpointReshard, OfAnOlderStepLeavesLatestAtTheNewest) {
  testing::MemoryFs fs;
  fs.make_dir("/c");
  std::string older, newer;
  {
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    older = testing::save(fs, directory, tiny_model(1), 4, 2, "id-4");
    newer = testing::save(fs, directory, tiny_model(2), 5, 2, "id-5");
  }
  const std::string latest = fs.bytes("/c/LATEST");
  EXPECT_THAT(latest, HasSubstr("step-000000005"));
  EXPECT_EQ(reshard(fs, older, "/c", 1), older);
  EXPECT_EQ(fs.bytes("/c/LATEST"), latest);
  const FoundCheckpoint found = newest_checkpoint(fs, "/c");
  EXPECT_EQ(found.path, newer);
  EXPECT_THAT(found.warnings, IsEmpty());
}

TEST(CheckpointReshard, IsDoneThoughLatestCouldNotBeWritten) {
  Saved saved(tiny_model(1), 1);
  TempDir dir;
  FaultFs faulty(saved.fs);
  faulty.fail_nth(FsOp::replace, 1, EIO);
  std::string out;
  reshard_tool(faulty, saved.path, dir.path(), 2, ToolFormat::json, out);
  EXPECT_EQ(faulty.struck(), 1);
  const nlohmann::json json = nlohmann::json::parse(out);
  EXPECT_EQ(json.at("path"), dir / "step-000000005");
  ASSERT_EQ(json.at("warnings").size(), 1U) << out;
  EXPECT_THAT(json.at("warnings")[0].get<std::string>(),
              HasSubstr("step-000000005 is committed, but LATEST still names an older one: "));
  EXPECT_THAT(verify_checkpoint(saved.fs, dir / "step-000000005"), IsEmpty());
}

TEST(CheckpointReshard, LeavesNothingBehindWhenTheDiskFails) {
  Saved saved(tiny_model(1), 1);
  for (const FsOp op : {FsOp::create, FsOp::write, FsOp::sync, FsOp::rename}) {
    SCOPED_TRACE(testing::to_string(op));
    TempDir dir;
    FaultFs faulty(saved.fs);
    faulty.fail_nth(op, 1, ENOSPC);
    EXPECT_THAT(error_of([&] { reshard(faulty, saved.path, dir.path(), 2); }), HasSubstr("No space left"));
    EXPECT_THAT(scan_checkpoints(saved.fs, dir.path()), IsEmpty());
    for (const std::string& name : saved.fs.list(dir.path())) EXPECT_EQ(name, "LOCK");
  }
}

}  // namespace
}  // namespace varscope
