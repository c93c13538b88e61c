#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/config/job_config.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"

namespace varscope {

// What a checkpoint of a job is made of; exact but for rows of tables.
struct CheckpointSize {
  std::int64_t total_bytes = 0;          // values and slots of all servers
  std::int64_t largest_shard_bytes = 0;  // of the server that has most
  std::int64_t largest_host_bytes = 0;   // of the servers of one host, where it is most
  std::int64_t snapshot_bytes = 0;       // memory for the snapshot, on the server that has most
  // `hosts`: by rank. `holds(i)`: whether checkpoints hold variable i of the table; without it they hold all.
  static CheckpointSize of(const BucketPlan& plan, const ClusterMap& cluster,
                           const std::vector<std::string>& hosts, std::int64_t n_slots,
                           const CheckpointConfig& checkpoint, const std::function<bool(int)>& holds = {});
  // Rows of tables, dealt to the servers evenly.
  void add_rows(std::int64_t n_bytes, const ClusterMap& cluster, const std::vector<std::string>& hosts);
};

// Of this host and of the file system that holds the checkpoints, at one moment.
struct MachineSpeed {
  double memcpy_bytes_s = 0;  // warm memory
  double write_bytes_s = 0;   // one file, its fsync included
  double sync_s = 0;          // a file of 4 KiB: created, written, fsynced
  double thread_s = 0;        // until a thread has been started
  // Writes and removes a file of at most 32 MiB, .tmp-probe, in `dir`, a few times. Throws Error(io).
  static MachineSpeed measure(Fs& fs, const std::string& dir, std::int64_t shard_bytes);
};

// What one checkpoint of the run will cost. Seconds.
struct CheckpointForecast {
  double stall_s =
      0;  // training waits for the cut (and for the disk, where the pool is smaller than the shard)
  double copy_s = 0;      // that updates take once to save what they overwrite
  double flush_s = 0;     // from the cut to the commit, the servers of a host sharing its disk
  double interval_s = 0;  // of checkpoints that loses least (ps/checkpointing/checkpoint_interval.h)
  double mtbf_s = 0;      // assumed for it
  static CheckpointForecast of(const CheckpointSize& size, const MachineSpeed& speed, int n_files,
                               const CheckpointConfig& checkpoint);
};

// Where checkpoint.mean_time_between_failures_s is not given: a day.
inline constexpr double kAssumedMtbf_s = 86400;

// "": `free_bytes` suffice for what is going to be kept. Else a warning with the numbers and what to do.
std::string space_warning(std::int64_t free_bytes, std::int64_t checkpoint_bytes, std::int64_t n_present,
                          const CheckpointConfig& checkpoint, const std::string& dir);

}  // namespace varscope
