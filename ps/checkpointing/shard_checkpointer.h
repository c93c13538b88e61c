#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/directory/link_rows.h"
#include "checkpoint/format/row_file.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/restore/names.h"
#include "checkpoint/storage/fs.h"
#include "common/config/job_config.h"
#include "ps/checkpointing/save_base.h"
#include "ps/store/parameter_shard.h"
#include "ps/store/snapshot.h"
#include "ps/tables/table_shards.h"

namespace varscope {

// What became of one server's part of a checkpoint.
struct ShardOutcome {
  std::string checkpoint_id;
  std::string error;  // empty: written and synced
  ShardReport report;
  // What training waited for: the cut, and later for the disk, where updates found the pool full.
  std::int64_t stall_ns = 0;
  std::int64_t wait_ns = 0;       // of it: for the disk
  std::int64_t copy_ns = 0;       // that updates took to save what they were about to overwrite
  std::int64_t copied_bytes = 0;  // so saved
  std::string warning = {};       // why all rows were written although changes were wanted
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& checkpoint_id& error& report& stall_ns& wait_ns& copy_ns& copied_bytes& warning;
  }
};

// What a save is called, everywhere: unique per start of the job, step and try, so that a rank of an earlier
// start that lives on, or a server that was given up on, cannot write into a later save's files.
std::string checkpoint_id(Clock clock, const std::string& start_id, std::int64_t retry);

// Saves what one server has, dense slices and rows of tables: after cut() training goes on, while a disk
// thread writes the state at the cut.
//   cow   the cut copies nothing; updates save what they are about to overwrite (ps/store/snapshot.h)
//   copy  the cut copies values and slots into a buffer; the reference
// Rows are saved copy-on-write in both. Both write the same bytes. Memory is taken, and touched, once. One
// save at a time. Used by the server's thread; the disk thread never calls MPI.
//
// With `incremental` a save writes the rows that have changed since the newest committed save of this start,
// and links the row files of older ones. A part whose changes have grown beyond about half of what all of it
// was is written whole; and where a chain has grown long, a save writes what has changed since an older one,
// in place of its newest pieces, as size-tiered log-structured stores merge [1]. Rows are in memory, so that
// this reads no file. Parts take their turns, so that no save is suddenly large.
//
// [1] O'Neil et al.: The log-structured merge-tree, Acta Informatica 33, 1996
class ShardCheckpointer {
 public:
  struct Options {
    SnapshotMode snapshot = SnapshotMode::cow;
    std::size_t pool_bytes = 0;  // cow; 0: as much as the shard has
    double max_wait_s = 15;      // cow: the wait budget for the disk; once it is used up the save fails
    CheckpointNames names = {};  // what is written, and under which names
    bool incremental = false;    // of tables; then each save needs a SaveBase
  };
  ShardCheckpointer(ParameterShard& shard, TableShards& tables, Fs& fs, std::string dir, int n_servers,
                    int n_workers, const Options& options);
  ~ShardCheckpointer();
  ShardCheckpointer(const ShardCheckpointer&) = delete;
  ShardCheckpointer& operator=(const ShardCheckpointer&) = delete;

  static constexpr std::size_t kMostOfChain = 8;
  // How many pieces of a part's chain a save of this number (SaveBase) keeps; 0: all of the part is written.
  static std::size_t n_kept(const RowPartRecord& chain, std::int64_t number);

  // Cuts the shard as it is. If an earlier save still writes, nothing is cut and the next poll() says so.
  // With `incremental` the cut is written as soon as set_base() has been called for it, before or after.
  void cut(Clock clock, const std::string& id);
  // Forgets what saves before this one's base were. Throws Error(protocol) while a cut of another save waits
  // for its own.
  void set_base(SaveBase base);
  // Updates have just been interrupted by a sign of life to the peers: see Snapshot::reset_wait_budget().
  void reset_wait_budget() {
    if (snapshot_) snapshot_->reset_wait_budget();
    for (TableShard* table : tables_) table->reset_wait_budget();
  }
  // The outcome of a save that has ended since the last call.
  std::optional<ShardOutcome> poll();

 private:
  bool is_writing() const { return writing_.valid() || waiting_; }
  void start_writing(Clock clock);
  ShardOutcome write(Clock clock, const std::string& id, const SavedRowFiles* from, std::int64_t number);
  ShardReport write_slices(Clock clock, const std::string& id, const std::string& path);
  void write_rows(Clock clock, const std::string& id, const std::string& path,
                  const std::optional<RowBase>& base, ShardReport& report);
  void take_totals();
  void forget_removed();
  void copy_all();

  ParameterShard& shard_;
  Fs& fs_;
  std::string dir_;
  int n_servers_;
  int n_workers_;
  CheckpointNames names_;
  std::vector<ShardTensor> tensors_;  // cow: in the shard; copy: in the buffer
  std::size_t n_bytes_ = 0;
  std::optional<Snapshot> snapshot_;             // cow
  std::vector<TableShard*> tables_;              // that are written
  std::vector<RowFileTable> row_tables_;         // what they are called
  AlignedBytes buffer_;                          // copy
  bool incremental_;                             // and there are tables
  std::optional<SaveBase> base_;                 // of the save under way or to come
  std::optional<Clock> waiting_;                 // a cut that has no base yet
  bool is_to_forget_ = false;                    // what was removed, once nothing is being read
  std::vector<std::vector<PartTotals>> totals_;  // at the cut, by table and place of the part
  std::map<std::string, SavedRowFiles> saved_;   // by id: the base, and what was written since
  std::optional<SavedRowFiles> written_;         // by the disk thread, for poll()
  std::atomic<bool> can_link_ = true;            // false: the file system has no links
  std::int64_t cut_ns_ = 0;                      // that the cut under way took
  std::future<ShardOutcome> writing_;
  std::string writing_id_;
  std::optional<ShardOutcome> refused_;
};

}  // namespace varscope
