#include "launch/observe/checkpoint_forecast.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/placement/cluster.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::make_variable;
using testing::TempDir;

constexpr std::int64_t kMiB = 1 << 20;

// 2 servers on one host, another one elsewhere, one worker.
CheckpointSize size_of_job(const CheckpointConfig& checkpoint, std::int64_t n_slots = 2) {
  const VariableTable variables({make_variable("a/w", DType::float32, {1024, 1024}),
                                 make_variable("b/w", DType::float32, {1024, 512}),
                                 make_variable("c/mean", DType::float64, {1000}, false)});
  const std::vector<std::string> hosts = {"n1", "n1", "n2", "n2"};
  const ClusterMap cluster = assign_roles(hosts, 3, 0);
  const BucketPlan plan = BucketPlan::make(variables, 3);
  return CheckpointSize::of(plan, cluster, hosts, n_slots, checkpoint);
}

TEST(CheckpointForecast, CountsValuesAndSlotsOfWhatIsTrained) {
  const CheckpointSize size = size_of_job({});
  EXPECT_EQ(size.total_bytes, 3 * (4 * kMiB + 2 * kMiB) + 8000);
  EXPECT_EQ(size_of_job({}, 0).total_bytes, 6 * kMiB + 8000);
  EXPECT_LE(size.largest_shard_bytes, size.largest_host_bytes);
  EXPECT_LE(size.largest_host_bytes, size.total_bytes);
  EXPECT_GE(size.largest_shard_bytes, size.total_bytes / 3);
}

TEST(CheckpointForecast, CountsRowsOfTables) {
  CheckpointSize size{300, 100, 200, 100};
  const std::vector<std::string> hosts = {"n1", "n1", "n2", "n2"};
  size.add_rows(3001, assign_roles(hosts, 3, 0), hosts);
  EXPECT_EQ(size.total_bytes, 3301);
  EXPECT_EQ(size.largest_shard_bytes, 1101);
  EXPECT_EQ(size.largest_host_bytes, 2202);  // two servers of three
}

TEST(CheckpointForecast, ThePoolIsTheSnapshotsMemory) {
  CheckpointConfig checkpoint;
  EXPECT_EQ(size_of_job(checkpoint).snapshot_bytes, size_of_job(checkpoint).largest_shard_bytes);
  checkpoint.pool_mib = 3;
  EXPECT_EQ(size_of_job(checkpoint).snapshot_bytes, 3 * kMiB);
  checkpoint.snapshot = SnapshotMode::copy;  // has no pool
  EXPECT_EQ(size_of_job(checkpoint).snapshot_bytes, size_of_job(checkpoint).largest_shard_bytes);
}

TEST(CheckpointForecast, FollowsFromSizeAndSpeed) {
  const CheckpointSize size{400 * kMiB, 100 * kMiB, 200 * kMiB, 100 * kMiB};
  const MachineSpeed speed{1000.0 * kMiB, 100.0 * kMiB, 0.01, 0.0001};
  CheckpointConfig checkpoint;
  checkpoint.snapshot = SnapshotMode::copy;
  CheckpointForecast f = CheckpointForecast::of(size, speed, 2, checkpoint);
  EXPECT_DOUBLE_EQ(f.stall_s, 0.1001);
  EXPECT_EQ(f.copy_s, 0);
  EXPECT_DOUBLE_EQ(f.flush_s, 2 + 10 * 0.01);  // the disk of the host with most
  EXPECT_EQ(f.mtbf_s, kAssumedMtbf_s);

  checkpoint.snapshot = SnapshotMode::cow;
  checkpoint.mean_time_between_failures_s = 3600;
  f = CheckpointForecast::of(size, speed, 2, checkpoint);
  EXPECT_DOUBLE_EQ(f.stall_s, 0.0001);
  EXPECT_DOUBLE_EQ(f.copy_s, 0.1);
  EXPECT_EQ(f.mtbf_s, 3600);
  EXPECT_NEAR(f.interval_s, std::sqrt(2 * 0.1001 * 3600), 0.2);  // Young; Daly's terms are small here

  // A pool of a quarter: the rest waits for the disk.
  const CheckpointSize small_pool{400 * kMiB, 100 * kMiB, 200 * kMiB, 25 * kMiB};
  EXPECT_NEAR(CheckpointForecast::of(small_pool, speed, 2, checkpoint).stall_s, 0.75, 0.001);
}

TEST(CheckpointForecast, AnIntervalIsNeverShorterThanAFlush) {
  const CheckpointSize size{100 * kMiB, 100 * kMiB, 100 * kMiB, 100 * kMiB};
  CheckpointConfig checkpoint;
  checkpoint.mean_time_between_failures_s = 1;
  const CheckpointForecast f = CheckpointForecast::of(size, {1e12, 1.0 * kMiB, 0.01, 0.0001}, 2, checkpoint);
  EXPECT_GE(f.interval_s, f.flush_s);
}

TEST(CheckpointForecast, MeasuresAndLeavesNothingBehind) {
  const TempDir dir;
  PosixFs fs;
  for (const std::int64_t bytes : {std::int64_t{0}, std::int64_t{1}, 5 * kMiB}) {
    const MachineSpeed speed = MachineSpeed::measure(fs, dir.path(), bytes);
    EXPECT_GT(speed.memcpy_bytes_s, 0);
    EXPECT_GT(speed.write_bytes_s, 0);
    EXPECT_GT(speed.sync_s, 0);
    EXPECT_GT(speed.thread_s, 0);
    EXPECT_TRUE(fs.list(dir.path()).empty());
  }
}

TEST(CheckpointForecast, SaysWhyItCannotMeasure) {
  const TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  fs.fail_nth(FsOp::write, 1, ENOSPC);
  EXPECT_THAT(testing::error_of([&] { MachineSpeed::measure(fs, dir.path(), kMiB); }),
              HasSubstr("No space left on device"));
  EXPECT_TRUE(posix.list(dir.path()).empty());
}

TEST(SpaceWarning, ComparesWithWhatIsGoingToBeKept) {
  CheckpointConfig checkpoint;
  checkpoint.keep = 3;
  EXPECT_EQ(space_warning(40, 10, 0, checkpoint, "c"), "");
  const std::string words = space_warning(39, 10, 0, checkpoint, "c");
  EXPECT_THAT(words, HasSubstr("c has 39 B free; a checkpoint takes 10 B, and room for 4 more is needed"));
  EXPECT_THAT(words, HasSubstr("lower checkpoint.keep"));
  EXPECT_EQ(space_warning(20, 10, 2, checkpoint, "c"), "");
  EXPECT_EQ(space_warning(10, 10, 9, checkpoint, "c"), "");
  EXPECT_NE(space_warning(9, 10, 9, checkpoint, "c"), "");  // the new one comes before an old one goes
  checkpoint.keep = 0;
  EXPECT_EQ(space_warning(20, 10, 0, checkpoint, "c"), "");
  EXPECT_NE(space_warning(19, 10, 0, checkpoint, "c"), "");
}

}  // namespace
}  // namespace varscope
