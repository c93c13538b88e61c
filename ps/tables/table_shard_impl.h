#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "ps/tables/removed_ids.h"
#include "ps/tables/row_merge.h"
#include "ps/tables/row_store.h"
#include "ps/tables/table_shard.h"

namespace varscope {

// The inside of a TableShard. What a step does to a row is in table_shard.cc, which rows there are in
// table_life.cc, what goes into and comes from files in table_saves.cc.
struct TableShard::Impl {
  static constexpr std::size_t kBatch = RowMerge::kBatch;
  using Batch = std::array<LocatedRow, kBatch>;

  explicit Impl(const Parts& p);

  std::size_t part_at(int part) const;
  void locate(const std::uint64_t* ids, const std::uint64_t* mixed, std::size_t n, std::size_t n_bytes,
              LocatedRow* found) const;
  void absent_values(std::uint64_t id, std::byte* out) const;
  void first_values(std::uint64_t id, std::byte* out) const;
  void set_slots(std::byte* row);
  void update(LocatedRow at, const LocatedRow& waits, std::size_t i, const PushConstants& push, double scale);
  void check_order(const UpdateStep& step) const;
  void look(const std::byte* row, std::int64_t clock);
  void look_at(const std::byte* row, int slot, std::int64_t clock);
  void note_bad_norm(std::int64_t clock);
  std::span<const std::byte> values(const std::byte* row) const {
    return {row + RowLayout::kValuesAt, layout.value_bytes()};
  }

  // Which rows there are.
  bool is_expired(const std::byte* record, Clock step) const {
    return spec.is_expired(RowLayout::last_of(record), step.value);
  }
  // What occurred last in an earlier step has expired in this one.
  std::uint32_t least_last(Clock step) const;
  void locate_waiting(std::size_t n, const Batch& found, Batch& waits) const;
  bool enters(LocatedRow waits, std::uint64_t id, std::uint64_t count, Clock step);
  RowWrite make(RowStore& store, LocatedRow& at, std::uint64_t id, Clock step);
  void remove_row(const LocatedRow& at);
  void sweep(RowStore& store, std::size_t part, Clock step);
  void sweep_some(Clock step);
  void end_part(std::size_t part, Clock step);
  void limit_rows(std::size_t part, Clock step);
  void limit_waiting(std::size_t part, Clock step);
  void evict(RowStore& store, std::size_t part, std::size_t n, WhenFull order, std::uint32_t before);
  [[noreturn]] void fail_full(std::size_t part, Clock step) const;
  std::int64_t n_live(const RowStore& store, std::size_t part, Clock step) const;
  RowHashSum live_hash(std::size_t part) const;

  // Files.
  void release_memory();
  static void leave_out(std::vector<std::uint64_t>& ids, std::span<const std::byte> records,
                        std::size_t record_bytes);
  LocatedRow place_of_restored(std::uint64_t id, int expected_part, bool is_new) const;
  LocatedRow new_restored(std::uint64_t id, int part, std::uint32_t last, bool is_new);
  void finish_restored(const LocatedRow& at);
  void check_records(int part, std::size_t n_bytes, std::size_t record_bytes, const char* what) const;

  const VariableSpec& variable;
  const RowPlan::Table& table;
  const TableSpec& spec;
  ServerId server;
  const Optimizer& optimizer;
  RowLayout layout;
  InitialValues initial;
  Shape row_shape;
  int part_bits;
  std::vector<int> parts;
  std::vector<std::int32_t> at_of_part;  // in `parts`; -1: not here
  RowStore rows;
  std::optional<RowStore> waiting;  // where ids wait: entry above 1
  RemovedIds removed;
  Clock clock{0};
  RowMerge merge;
  std::vector<std::byte*> slots;  // of the row that is being updated
  std::vector<NotFiniteFinding> not_finite;
  std::vector<bool> has_finding;  // of the values, then of each slot
  TableCounts counts;
  std::int64_t sweep_credit = 0;  // parts times steps
  std::size_t next_swept = 0;
  mutable SnapshotCosts costs;
};

}  // namespace varscope
