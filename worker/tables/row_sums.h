#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/base/growing_bytes.h"
#include "common/base/tensor.h"
#include "common/placement/row_plan.h"

namespace varscope {

// The gradients of a table's rows in one step of a worker, in the buffers of its LocalSumPlan: of each buffer
// [n rows + 1, units], of which the rows that it has touched say something, and how often their ids occur,
// where the table counts them. The last row is the padding's.
//
//   for each logical worker, in order, with its buffer and merges (LocalSumPlan::Leaf):
//     sums.begin(buffer, n_rows) is what its backward pass adds to; then
//     sums.touch(buffer, ids.touched(v), ids.counts(v)), or without samples sums.touch(buffer, {}, {});
//     for each merge: sums.add(merge.into, merge.from, n_rows);
//
// A row is summed over the leaves that have it; one that only one has is as that has it. After the largest
// step nothing is allocated. Not thread-safe; borrows the table.
class RowSums {
 public:
  RowSums(const RowPlan::Table& table, int n_buffers);

  // Zeros.
  std::byte* begin(int buffer, std::size_t n_rows);
  // `positions` ascend, below n_rows of begin(); `counts` has one for each of them, or is empty where the
  // table does not count.
  void touch(int buffer, std::span<const std::int32_t> positions, std::span<const std::uint32_t> counts);
  void add(int into, int from, std::size_t n_rows);

  std::span<const std::int32_t> touched(int buffer) const { return at(buffer).touched; }  // ascending
  const std::byte* gradients(int buffer) const { return at(buffer).memory.data(); }
  // The squares of the gradients of touched(buffer), in double: a row's are added first, then to the sum of
  // its part, of the table's parts in `of_parts`, in the order of `ids`, which are all rows'. That of RowIds
  // has a part's rows in the order of mix_row_id(), as servers add them.
  void add_squares(int buffer, std::span<const std::uint64_t> ids, std::span<double> of_parts) const;
  // Multiplies the gradients of touched(buffer).
  void scale(int buffer, double factor);
  // By row, of those of touched(); null where the table does not count.
  const std::uint32_t* counts(int buffer) const {
    return table_.counts_ids() ? at(buffer).counts.data() : nullptr;
  }

 private:
  struct Buffer {
    GrowingBytes memory;
    std::vector<std::int32_t> touched;
    std::vector<std::uint32_t> counts;
  };
  Buffer& at(int buffer) { return buffers_[static_cast<std::size_t>(buffer)]; }
  const Buffer& at(int buffer) const { return buffers_[static_cast<std::size_t>(buffer)]; }
  void make_room_for_counts(Buffer& buffer, std::size_t n_rows) const;
  void add_counts(Buffer& left, const Buffer& right) const;

  const RowPlan::Table& table_;
  std::vector<Buffer> buffers_;
  std::vector<std::int32_t> merged_;  // scratch
};

}  // namespace varscope
