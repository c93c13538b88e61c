#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/fs.h"
#include "checkpoint/shard.h"
#include "ps/parameter_shard.h"

namespace varscope {

// What became of one server's part of a checkpoint.
struct ShardOutcome {
  std::string checkpoint_id;
  std::string error;  // empty: written and synced
  ShardReport report;
  std::int64_t stall_ns = 0;  // the copy, while training waited
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& checkpoint_id& error& report& stall_ns;
  }
};

// What a save is called, everywhere: unique per start of the job, step and try, so that a rank of an earlier
// start that lives on, or a server that was given up on, cannot write into a later save's files.
std::string checkpoint_id(Clock clock, const std::string& start_id, std::int64_t retry);
std::string temporary_path(const std::string& dir, const std::string& id);

// Saves one server's shard: cut() copies values and slots into a buffer that is kept (and was touched)
// beforehand, and a disk thread writes the copy; training goes on meanwhile. One save at a time. Used by the
// server's thread; the disk thread sees only the copy and never calls MPI.
class ShardCheckpointer {
 public:
  ShardCheckpointer(ParameterShard& shard, Fs& fs, std::string dir, int n_servers, int n_workers);
  ~ShardCheckpointer();
  ShardCheckpointer(const ShardCheckpointer&) = delete;
  ShardCheckpointer& operator=(const ShardCheckpointer&) = delete;

  // Copies the shard as it is. If an earlier save still writes, nothing is copied and the next poll() says
  // so.
  void cut(Clock clock, const std::string& id);
  // The outcome of a save that has ended since the last call.
  std::optional<ShardOutcome> poll();

 private:
  struct Copied {
    std::string variable, slot;
    std::int64_t slice;
    DType dtype;
    Slice box;
    std::size_t offset, n_bytes;
  };
  ParameterShard& shard_;
  Fs& fs_;
  std::string dir_;
  int n_servers_;
  int n_workers_;
  std::vector<Copied> layout_;
  std::size_t n_bytes_ = 0;
  AlignedBytes buffer_;
  std::future<ShardOutcome> writing_;
  std::optional<ShardOutcome> refused_;
};

}  // namespace varscope
