#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/row_plan.h"
#include "common/transport/reports.h"
#include "common/variables/row_layout.h"
#include "ps/update/optimizer.h"

namespace varscope {

// The parts of one table that one server owns: rows by id, with their slots. A row comes into being when a
// step first pushes to it; reading never makes one. Owns its memory. One thread, but for what RowSnapshot
// hands to another.
class TableShard {
 public:
  struct Parts {
    const VariableSpec& variable;  // borrowed; is_table()
    const RowPlan::Table& table;   // borrowed
    ServerId server;
    const Optimizer& optimizer;  // borrowed
    std::uint64_t seed = 0;      // of the first values
  };
  // Throws Error(argument) for a variable or a constraint that rows of a table cannot have.
  explicit TableShard(const Parts& parts);
  ~TableShard();
  TableShard(const TableShard&) = delete;
  TableShard& operator=(const TableShard&) = delete;

  const VariableSpec& variable() const;
  const RowPlan::Table& table() const;
  ServerId server() const;
  const std::string& name() const;
  const RowLayout& layout() const;
  const std::vector<int>& parts() const;  // that are here, ascending
  Clock clock() const;                    // the last step that is applied
  void set_clock(Clock clock);
  // What has not expired after step clock(), whether it still takes memory or not.
  std::int64_t n_rows() const;
  std::int64_t n_rows(int part) const;
  std::int64_t n_waiting() const;  // ids without a row that are counted
  std::int64_t n_waiting(int part) const;
  std::int64_t n_bytes() const;  // all memory that it takes, of rows and index

  // The values of rows `ids`, one behind the other, as step `step` has them (TableSpec::is_expired); of those
  // that are not there what TableSpec::absent says. Makes none. `ids` ascend by mix_row_id(); throws
  // Error(argument) for one of a part that is not here.
  void read(std::span<const std::uint64_t> ids, Clock step, std::byte* out) const;

  // What one leaf, or worker's node of the canonical sum, contributes to a step: gradients of some of the
  // rows of `ids`. Ascending positions; `n_elements` of the gradients are positions.size() * units.
  struct Contribution {
    std::span<const std::uint64_t> ids;        // ascending by mix_row_id()
    std::span<const std::uint32_t> positions;  // in ids, ascending
    const std::byte* gradients = nullptr;      // a row for each position
    // How often each of them occurs; only where TableSpec::entry is above 1, else null: once.
    const std::uint32_t* counts = nullptr;
  };
  // Applies a step, or a push that is a share of one: each row that occurs is summed over the tree, the
  // contributions that do not have it left out, multiplied by `scale`, made if it is not there
  // (TableSpec::entry), updated once, and held to the variable's constraint. Then rows leave parts that have
  // too many. `contributions` are in the order of the leaves, as ReductionTree's; one may be empty. What is
  // not trained is left as it is. Gradients are not changed. Of several pushes of one step each counts as an
  // update of its rows, and none removes a row that another has touched, but for what has expired.
  // REQUIRES: ids and positions are as Contribution says. After a cut at clock() the next clock is a later
  // one, so that what changes since then can be told by it. Throws Error(argument) for a clock that is not
  // after clock(), or of a push (UpdateStep::is_push) that is before it; for a share and a rate as
  // Optimizer::constants() does, and for ids as read() does; Error(data) where a part has more rows than it
  // may hold and none can leave; Error(io) where there is no memory for a row: then the rows before it have
  // been updated.
  void apply(const UpdateStep& step, std::span<const Contribution> contributions, const ReductionTree& tree,
             double scale = 1);

  // What has left since the beginning: rows that were too many; rows that have expired, once their memory is
  // used again; waiting ids that were too many.
  struct TableCounts {
    std::int64_t evicted = 0, expired = 0, waiting_dropped = 0;
  };
  const TableCounts& counts() const;
  TableReport report() const;

  // The first element of the values, and of each slot, that apply() or a restore has made NaN or infinite, by
  // row and column.
  const std::vector<NotFiniteFinding>& not_finite() const;

  // Appends (name, part, RowHashSum) of each part that has rows.
  void add_hashes(HashReport& report) const;
  RowHashSum hash_sum(int part) const;

  // For a restore, before any step and cut: rows as RowLayout has them, one behind the other. Throws
  // Error(checkpoint) for an id of another part or one that is there, and for bytes that are not whole rows.
  // Values only: the slots begin anew.
  void restore(int part, std::span<const std::byte> rows);
  void restore_values(std::uint64_t id, const std::byte* values, std::uint32_t last = 0,
                      std::uint32_t count = 0);

  // Ids that wait for their row (TableSpec::entry), records as PartRows has them. Throws Error(checkpoint) as
  // restore(), and for a count that is none below entry.
  void restore_waiting(int part, std::span<const std::byte> waiting);

  // The rows of each part as they are now, while steps go on: see RowSnapshot (ps/tables/row_snapshot.h).
  // cut() begins one, and copies nothing. On another thread, read_part() then takes the parts one by one,
  // each once, in the order of parts(): what was there at the cut, and is not expired. end_cut() ends it.
  struct SnapshotLimits {
    std::size_t most_bytes = 0;  // of saved rows; 0: as much as the rows have at the cut
    double max_wait_s = 15;      // that updates wait for the reader when that is full, between two resets
  };
  void set_snapshot_limits(const SnapshotLimits& limits);
  void cut();
  void reset_wait_budget();
  // Replaces `rows` by what of the part has changed since step `since`, the cut of a save that has been
  // committed (forget_removed() has not been told of a later one); kAll, or where that is not much less, by
  // all of it. Throws Error(io) when the snapshot was lost: updates could wait no longer.
  static constexpr std::int64_t kAll = -1;
  void read_part(int part, std::int64_t since, PartRows& rows);
  void end_cut();
  // The save that was cut at `cut` is committed, and all later ones will be of changes since it or since a
  // later one: what was removed before need not be remembered. With remember_removed(false), which is how it
  // begins, nothing is, and parts that can lose ids are read in full. The updating thread, between two cuts.
  void remember_removed(bool remember);
  void forget_removed(int part, Clock cut);
  struct SnapshotCosts {
    std::int64_t copy_ns = 0, wait_ns = 0, copied_bytes = 0;
  };
  const SnapshotCosts& snapshot_costs() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscope
