#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ps/tables/row_arena.h"
#include "ps/tables/row_index.h"
#include "ps/tables/row_snapshot.h"
#include "ps/tables/table_part.h"

namespace varscope {

// Where a record is, or where it would be.
struct LocatedRow {
  std::size_t part = 0;  // position among the parts that are here
  RowPlace place;
  std::uint32_t handle = RowIndex::kNone;
  std::byte* row = nullptr;  // null: there is none
};

// While it lives, the snapshot's reader waits for the row that is being changed. One at a time: who holds
// one may wait for nobody.
class RowWrite {
 public:
  explicit RowWrite(RowSnapshot* snapshot) : snapshot_(snapshot) {}
  RowWrite(RowWrite&& other) noexcept : snapshot_(std::exchange(other.snapshot_, nullptr)) {}
  RowWrite(const RowWrite&) = delete;
  RowWrite& operator=(const RowWrite&) = delete;
  ~RowWrite() {
    if (snapshot_ != nullptr) snapshot_->end_write();
  }

 private:
  RowSnapshot* snapshot_;
};

// Records of one size that begin as RowLayout says (id, last, count), by part and id: the rows of a table, or
// the ids that wait for theirs. Memory, indices, and the snapshot of it all. What is removed leaves a place
// for what comes next, so that memory follows the greatest number of records that there were. One thread,
// but for what RowSnapshot hands to another. Borrows names and part numbers.
class RowStore {
 public:
  // `part_bits`: of a mixed id that name its part.
  RowStore(const std::string& table, const std::vector<int>& parts, std::size_t record_bytes, int part_bits);

  const std::vector<TablePart>& parts() const { return parts_; }
  TablePart& part(std::size_t at) { return parts_[at]; }
  const TablePart& part(std::size_t at) const { return parts_[at]; }
  std::uint32_t n_rows(std::size_t part) const { return parts_[part].index.n_rows(); }
  std::int64_t n_rows() const;
  std::size_t record_bytes() const { return pool_.row_bytes(); }
  std::size_t n_bytes() const;  // all memory, but for sizeof(RowStore)
  RowSnapshot& snapshot() { return snapshot_; }
  const RowSnapshot& snapshot() const { return snapshot_; }

  // Sets handle and row of the n `found`, whose part and place are set. n_bytes: of a record's beginning that
  // will be needed.
  void locate(const std::uint64_t* ids, std::size_t n, std::size_t n_bytes, LocatedRow* found) const;
  void locate(std::uint64_t id, LocatedRow& at) const;
  // Whether the row that locate() has found for `id` is still there: others may have been removed since, and
  // their places may have been taken.
  static bool is_still(const LocatedRow& at, std::uint64_t id) {
    return at.row != nullptr && RowLayout::id_of(at.row) == id && !RowArena::is_free(at.row);
  }

  // Must precede any change of a record, and live until its end.
  RowWrite write(const LocatedRow& at) {
    return RowWrite(snapshot_.begin_write(at.part, at.handle, at.row) ? &snapshot_ : nullptr);
  }
  // A record of zeros but for its id, being written; it is there once its `last` is set and told to added().
  // Throws std::bad_alloc; then nothing has changed. REQUIRES: there is none with this id.
  RowWrite make(LocatedRow& at, std::uint64_t id);
  // Room in the index for so many records of a part, which are about to come. Throws std::bad_alloc; then
  // nothing has changed.
  void reserve(std::size_t part, std::size_t n);
  // Tell of a record's `last`: a greater one; that of a new record.
  void touched(const LocatedRow& at, std::uint32_t last) { parts_[at.part].arena.touch(at.handle, last); }
  void added(const LocatedRow& at, std::uint32_t last) {
    touched(at, last);
    oldest_[at.part] = std::min(oldest_[at.part], last);
  }
  void remove(const LocatedRow& at);
  // The next make() in this part builds the index anew: worth a look for what can be removed first.
  bool is_full(std::size_t part) const { return parts_[part].index.is_full_for(n_rows(part) + 1); }

  // Whether a part may have records with a `last` below this one.
  bool may_have_below(std::size_t part, std::uint32_t last) const { return oldest_[part] < last; }
  // f(LocatedRow) before each record of a part with a `last` below this one is removed.
  template <class F>
  void remove_below(std::size_t part, std::uint32_t last, const F& f) {
    if (!may_have_below(part, last)) return;
    std::uint32_t oldest = kNoStep;
    for_each(part, [&](const LocatedRow& at) {
      const std::uint32_t its = RowLayout::last_of(at.row);
      if (its >= last) {
        oldest = std::min(oldest, its);
        return;
      }
      f(at);
      remove(at);
    });
    oldest_[part] = oldest;
  }
  // f(LocatedRow) of all records of a part; f may remove them.
  template <class F>
  void for_each(std::size_t part, const F& f) const {
    parts_[part].arena.for_each([&](std::uint32_t handle, std::byte* row) {
      f(LocatedRow{part, RowPlace::of(mix_row_id(RowLayout::id_of(row)), part_bits_), handle, row});
    });
  }

 private:
  static constexpr std::uint32_t kNoStep = ~std::uint32_t{0};
  int part_bits_;
  SlabPool pool_;
  std::vector<TablePart> parts_;
  std::vector<std::uint32_t> oldest_;  // of each part: no record's `last` is below
  RowSnapshot snapshot_;
};

}  // namespace varscope
