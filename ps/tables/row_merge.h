#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/tensor.h"
#include "common/placement/canonical_sum.h"
#include "ps/tables/table_shard.h"

namespace varscope {

// The sums of a step's row gradients: a merge of the contributions' ascending ids, and for each id the sum
// over ReductionTree of those that have it. A node of which one half lacks the id is the other half, so that
// the sum depends on the leaves that have the id and on their gradients, not on who added what. Ids come in
// batches, so that the rows of one can be fetched together. Borrows contributions from begin() on. One
// thread; memory is kept from step to step.
class RowMerge {
 public:
  static constexpr std::size_t kBatch = 64;

  RowMerge(DType dtype, std::int64_t units);

  // Throws Error(protocol) when there are not as many as the tree has leaves and nodes to begin with.
  void begin(std::span<const TableShard::Contribution> contributions, const ReductionTree& tree);
  // Goes on to the next batch of different ids; how many there are. 0: there are no more.
  std::size_t next();
  std::uint64_t id(std::size_t i) const { return ids_[i]; }
  std::uint64_t mixed(std::size_t i) const { return mixed_[i]; }
  // The sum of the batch's i-th id: `units` elements that the caller may overwrite, until the next call.
  std::byte* sum(std::size_t i);
  // How often it occurs in the step, all contributions' counts together.
  std::uint64_t count(std::size_t i) const { return counts_[i]; }
  std::size_t n_bytes() const;

 private:
  struct Cursor {
    std::uint64_t head = 0;  // the mixed id at the position; the greatest number at the end
    bool is_done = true;
    const std::uint32_t *position = nullptr, *end = nullptr;
    const std::uint64_t* ids = nullptr;
    const std::byte* gradient = nullptr;
    const std::uint32_t* count = nullptr;  // null: once each
  };
  struct Entry {
    std::uint32_t contribution = 0;
    const std::byte* gradient = nullptr;
  };
  bool before(std::uint32_t a, std::uint32_t b) const;
  std::uint32_t child(std::size_t node) const {
    return node < n_leaves_ ? winners_[node] : static_cast<std::uint32_t>(node - n_leaves_);
  }
  std::uint32_t first() const { return n_leaves_ == 1 ? 0 : winners_[1]; }
  void play(std::size_t node) {
    const std::uint32_t left = child(2 * node), right = child(2 * node + 1);
    winners_[node] = before(right, left) ? right : left;
  }
  void set_head(Cursor& cursor) const;
  void advance(std::uint32_t contribution);
  std::byte* sum_by_tree(std::span<const Entry> entries);
  void join_top();
  std::byte* scratch(std::size_t depth);

  DType dtype_;
  std::size_t row_bytes_;
  std::size_t n_leaves_ = 1;  // of the tournament: a power of two
  std::vector<Cursor> cursors_;
  std::vector<std::uint32_t> winners_;  // by node, from 1: the cursor that is first below it
  // Where contributions i - 1 and i meet: a number that rises towards the root.
  std::vector<std::uint32_t> joins_;

  std::array<std::uint64_t, kBatch> mixed_{}, ids_{}, counts_{};
  std::array<std::size_t, kBatch + 1> begin_{};  // of each id's entries
  std::vector<Entry> entries_;

  // While one id is summed: what waits for its right half, and where each meets the one before it.
  std::vector<const std::byte*> stack_;
  std::vector<std::uint32_t> meets_;
  std::vector<AlignedBytes> scratch_;
};

}  // namespace varscope
