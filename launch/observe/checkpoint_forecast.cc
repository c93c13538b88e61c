#include "launch/observe/checkpoint_forecast.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <map>

#include "checkpoint/directory/scan.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/tensor.h"
#include "common/base/text.h"
#include "common/placement/cluster.h"
#include "common/transport/transport.h"
#include "ps/checkpointing/checkpoint_interval.h"

namespace varscope {
namespace {

constexpr std::int64_t kMostProbeBytes = 32 << 20;

template <class Work>
double seconds_of(const Work& work) {
  const std::int64_t started = now_ns();
  work();
  return std::max(1e-9, static_cast<double>(now_ns() - started) * 1e-9);
}

// The middle one of three takes, the longer of two where they take long. One take alone may meet somebody
// else's writes.
template <class Take>
double typical_seconds(const Take& take) {
  constexpr double kEnough_s = 0.5;
  std::vector<double> takes;
  double sum = 0;
  while (takes.size() < 3 && sum < kEnough_s) {
    takes.push_back(take());
    sum += takes.back();
  }
  std::sort(takes.begin(), takes.end());
  return takes[takes.size() / 2];
}

double write_seconds(Fs& fs, const std::string& path, std::span<const std::byte> bytes) {
  fs.remove_all(path);
  try {
    const double seconds = seconds_of([&] {
      const auto file = fs.create_exclusive(path);
      for (std::size_t at = 0; at < bytes.size(); at += 1 << 20)
        file->write(bytes.subspan(at, std::min<std::size_t>(1 << 20, bytes.size() - at)));
      file->sync();
      file->close();
    });
    fs.remove_all(path);
    return seconds;
  } catch (const Error&) {
    fs.remove_all(path);
    throw;
  }
}

}  // namespace

CheckpointSize CheckpointSize::of(const BucketPlan& plan, const ClusterMap& cluster,
                                  const std::vector<std::string>& hosts, std::int64_t n_slots,
                                  const CheckpointConfig& checkpoint, const std::function<bool(int)>& holds) {
  std::map<int, std::int64_t> by_server;
  for (const Bucket& b : plan.buckets()) {
    const auto item = static_cast<std::int64_t>(size_of(b.dtype));
    for (const BucketSlice& slice : b.slices) {
      if (!holds || holds(slice.variable))
        by_server[b.server.value] += slice.n_elements * item * (b.trainable ? 1 + n_slots : 1);
    }
  }
  CheckpointSize size;
  std::map<std::string, std::int64_t> by_host;
  for (const auto& [server, n_bytes] : by_server) {
    size.total_bytes += n_bytes;
    size.largest_shard_bytes = std::max(size.largest_shard_bytes, n_bytes);
    std::int64_t& host = by_host[hosts[static_cast<std::size_t>(cluster.rank_of(ServerId(server)).value)]];
    host += n_bytes;
    size.largest_host_bytes = std::max(size.largest_host_bytes, host);
  }
  const bool has_pool = checkpoint.snapshot == SnapshotMode::cow && checkpoint.pool_mib > 0;
  size.snapshot_bytes = has_pool ? checkpoint.pool_mib << 20 : size.largest_shard_bytes;
  return size;
}

void CheckpointSize::add_rows(std::int64_t n_bytes, const ClusterMap& cluster,
                              const std::vector<std::string>& hosts) {
  const std::int64_t of_server = (n_bytes + cluster.n_servers() - 1) / cluster.n_servers();
  std::map<std::string, std::int64_t> servers_of;
  std::int64_t most = 0;
  for (const ServerId s : IdRange<ServerId>(cluster.n_servers()))
    most = std::max(most, ++servers_of[hosts[static_cast<std::size_t>(cluster.rank_of(s).value)]]);
  total_bytes += n_bytes;
  largest_shard_bytes += of_server;
  largest_host_bytes += of_server * most;
}

MachineSpeed MachineSpeed::measure(Fs& fs, const std::string& dir, std::int64_t shard_bytes) {
  const auto n = static_cast<std::size_t>(std::clamp<std::int64_t>(shard_bytes, 4 << 10, kMostProbeBytes));
  const AlignedBytes from = allocate_aligned(n), to = allocate_aligned(n);
  std::memset(from.get(), 1, n);
  std::memset(to.get(), 2, n);
  MachineSpeed speed;
  const double copy_s =
      typical_seconds([&] { return seconds_of([&] { std::memcpy(to.get(), from.get(), n); }); });
  speed.memcpy_bytes_s = static_cast<double>(n) / copy_s;
  const std::string path = join_path(dir, std::string(kTmpPrefix) + "probe");
  speed.sync_s = typical_seconds([&] { return write_seconds(fs, path, {from.get(), 4 << 10}); });
  const double seconds = typical_seconds([&] { return write_seconds(fs, path, {to.get(), n}); });
  // A small file takes as long as its fsync: nothing is learnt about the rate.
  speed.write_bytes_s = static_cast<double>(n) / std::max(seconds - speed.sync_s, seconds / 8);
  speed.thread_s =
      typical_seconds([] { return seconds_of([] { std::async(std::launch::async, [] {}).wait(); }); });
  return speed;
}

CheckpointForecast CheckpointForecast::of(const CheckpointSize& size, const MachineSpeed& speed, int n_files,
                                          const CheckpointConfig& checkpoint) {
  CheckpointForecast f;
  const double copy_s = static_cast<double>(size.largest_shard_bytes) / speed.memcpy_bytes_s;
  f.stall_s = speed.thread_s;
  if (checkpoint.snapshot == SnapshotMode::copy) {
    f.stall_s += copy_s;
  } else {
    f.copy_s = copy_s;
    const std::int64_t beyond_pool =
        std::max<std::int64_t>(0, size.largest_shard_bytes - size.snapshot_bytes);
    f.stall_s += static_cast<double>(beyond_pool) / speed.write_bytes_s;
  }
  // Shards are synced side by side; the other files, the directories and LATEST one after the other.
  constexpr int kOtherSyncs = 8;
  f.flush_s = static_cast<double>(size.largest_host_bytes) / speed.write_bytes_s +
              speed.sync_s * (n_files + kOtherSyncs);
  f.mtbf_s =
      checkpoint.mean_time_between_failures_s > 0 ? checkpoint.mean_time_between_failures_s : kAssumedMtbf_s;
  f.interval_s = best_checkpoint_interval(f.stall_s + f.copy_s, f.mtbf_s, f.flush_s);
  return f;
}

std::string space_warning(std::int64_t free_bytes, std::int64_t checkpoint_bytes, std::int64_t n_present,
                          const CheckpointConfig& checkpoint, const std::string& dir) {
  // One more than is kept: the oldest goes when the newest is whole.
  const std::int64_t wanted =
      checkpoint.keep == 0 ? 2 : std::max<std::int64_t>(1, checkpoint.keep + 1 - n_present);
  if (free_bytes / std::max<std::int64_t>(1, checkpoint_bytes) >= wanted) return "";
  return fmt::format(
      "{} has {} free; a checkpoint takes {}, and room for {} more is needed (checkpoint.keep is {}): saves "
      "will be given up when the disk is full; free some space, lower checkpoint.keep or choose another "
      "directory",
      dir, bytes_text(free_bytes), bytes_text(checkpoint_bytes), wanted, checkpoint.keep);
}

}  // namespace varscope
