#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/base/tensor.h"
#include "common/base/types.h"
#include "ps/tables/table_part.h"
#include "ps/tables/table_shard.h"

namespace varscope {

// Memory for at most so many rows that an update is about to change, as linked lists. take() and give_back()
// of one row belong to the updating thread, give_back() of a list to the reading one.
class SavedRows {
 public:
  struct Node {
    Node* next = nullptr;
    std::byte* row() { return reinterpret_cast<std::byte*>(this + 1); }
  };
  explicit SavedRows(std::size_t row_bytes) : node_bytes_(sizeof(Node) + row_bytes) {}

  void set_limit(std::size_t most) { most_ = most; }
  std::size_t limit_bytes() const { return most_ * node_bytes_; }
  std::size_t n_bytes() const { return n_bytes_; }
  Node* take();  // nullptr: they are all in use. Throws std::bad_alloc
  void give_back_unused(Node* node);
  void give_back(Node* first, Node* last);
  void clear();  // gives all memory back. REQUIRES: nobody reads

 private:
  std::size_t node_bytes_;
  std::size_t most_ = 0, n_made_ = 0, n_bytes_ = 0;
  std::vector<AlignedBytes> pages_;
  std::size_t left_ = 0;  // nodes in the last page that have not been made
  Node* free_ = nullptr;
  std::mutex mutex_;  // of returned_
  Node* returned_ = nullptr;
};

// The rows of a table at one moment, the cut, while steps go on: copy-on-write by row. A cut copies nothing.
// One thread updates. A row that has not changed since the cut (its `last` is at most the cut's clock T) is
// saved before it is changed or removed, once, unless the reader has its slab already. Another thread reads
// the parts in order: the rows of their slabs with last <= T, and those that have been saved; rows with
// last > T that nobody has saved are new, and so is what a removed row left (RowArena::kFree). When there is
// no room to save one, the update waits for the reader; after `max_wait_s` the snapshot is lost and the
// reader gets Error(io).
//
// Who has which slab is in two words. reading_ is the slab that the reader is at: all before it are drained,
// all behind it untouched, and a bit says whether it is being copied. writing_ is the slab in which a row is
// being changed. Each side writes its own word, then looks at the other's (sequentially consistent: not both
// can miss it). The reader waits for the one row; the updater withdraws and waits for the one slab.
class RowSnapshot {
 public:
  RowSnapshot(const std::string& table, const std::vector<int>& parts, const std::vector<TablePart>& rows,
              std::size_t row_bytes);

  // The updating thread.
  void set_limits(const TableShard::SnapshotLimits& limits) { limits_ = limits; }
  void reset_wait_budget() { budget_used_ns_ = 0; }
  // Rows with a `last` below `least_last` have expired: they are not read. REQUIRES: nobody reads. Throws
  // Error(argument) while another cut is being read.
  void cut(Clock clock, std::uint32_t least_last);
  bool is_active() const { return is_active_.load(std::memory_order_acquire); }
  void release_memory();  // of a cut that has ended
  // Row `handle` of parts[part], or a free place, is about to be changed. True: end_write() must follow.
  bool begin_write(std::size_t part, std::uint32_t handle, const std::byte* row) {
    return is_active() && handle < n_rows_[part] && claim(part, handle, row);
  }
  void end_write() { writing_.store(kNobody, std::memory_order_release); }
  const TableShard::SnapshotCosts& costs() const { return costs_; }
  std::size_t n_bytes() const;

  // The reading thread.
  // Only rows with a `last` of least_last or more; slabs that have none are not touched.
  void read_part(int part, std::uint32_t least_last, std::vector<std::byte>& rows);
  void end();

 private:
  static constexpr std::uint64_t kNobody = ~std::uint64_t{0};
  static constexpr std::int64_t kTimedSaves = 8;  // one of so many is timed
  static std::uint64_t position(std::size_t part, std::uint32_t slab) { return part << 32 | slab; }
  bool claim(std::size_t part, std::uint32_t handle, const std::byte* row);
  SavedRows::Node* wait_for_node(std::uint64_t at);
  void save(SavedRows::Node* node, std::size_t part, const std::byte* row);
  std::span<const std::byte> copy_slab(std::uint64_t at, std::span<const std::byte> slab);
  void pass_slab(std::uint64_t at);
  void copy_part(std::size_t part, std::uint32_t least_last);
  void check_not_lost() const;

  const std::string& table_;
  const std::vector<int>& parts_;
  const std::vector<TablePart>& rows_;
  std::size_t row_bytes_;
  TableShard::SnapshotLimits limits_;
  SavedRows saved_;
  TableShard::SnapshotCosts costs_;
  std::int64_t budget_used_ns_ = 0;
  std::int64_t n_saves_ = 0;

  // Written by cut(), when nobody reads.
  std::uint32_t clock_ = 0, least_last_ = 0;
  std::vector<std::uint32_t> n_rows_;  // places of each part
  // Of each part: the updating thread's until the part is drained, then the reader's.
  std::vector<SavedRows::Node*> lists_;

  std::atomic<bool> is_active_ = false;
  std::atomic<bool> is_lost_ = false;
  alignas(64) std::atomic<std::uint64_t> reading_ = 0;  // 2 * position, + 1: being copied
  alignas(64) std::atomic<std::uint64_t> writing_ = kNobody;

  // The reader's.
  std::size_t next_part_ = 0;
  std::vector<std::byte> found_;
  std::vector<RowArena::SlabView> slabs_;
};

}  // namespace varscope
