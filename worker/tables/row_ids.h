#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/tensor.h"
#include "common/placement/row_plan.h"

namespace varscope {

// One place of a model that looks up rows of a table.
struct RowLookup {
  std::string input;                          // the name of its ids, for messages
  std::optional<std::uint64_t> padding = {};  // the id that stands for nothing
  // False: a position for each id; the padding's is that of the row of zeros, RowIds::size(). True: bags of
  // positions, without the padding and without ids of weight 0.
  bool in_bags = false;
  bool positive_weights = false;  // a weight below 0 is an error: mean, sqrtn
};

// What a lookup reads of one logical worker's batch; borrowed for the call.
struct RowInput {
  TensorView ids;                          // int32 or int64: [n, ...], or [total] with offsets
  std::optional<TensorView> offsets = {};  // int64 [n + 1]: bag r is ids[offsets[r]] .. offsets[r + 1] - 1
  std::optional<TensorView> weights = {};  // float32 or float64, one for each id
};

// The same in positions: what the graph's lookup is fed. Views into the RowIds.
struct RowFeeds {
  TensorView positions;                    // int32: of the shape of the ids, or [total] in bags
  std::optional<TensorView> offsets = {};  // in bags: int64 [n + 1], from 0
  std::optional<TensorView> weights = {};  // in bags, where there are weights: [total]
};

// The ids of one table in a step of one worker: those of all its lookups and logical workers, each once, in
// the order in which servers are asked, by (server, mix_row_id); and where each of them went. The rows of a
// step are an arena of size() rows in this order, and one of zeros.
//
//   rows.clear();
//   for each logical worker v, and each of its lookups k: rows.add(v, k, {ids, offsets, weights});
//   rows.finish();
//   for each server s: ask for rows.ids(s), which are positions rows.first(s) ...
//   for each logical worker v: rows.feeds(v, k); then push the gradients of rows.touched(v)
//
// Padding, and ids of weight 0 in bags, are as if they were not there: not asked for, touched or counted.
// After the largest step nothing is allocated. Owns its memory; borrows the table. Not thread-safe.
class RowIds {
 public:
  static constexpr std::int64_t kMostIds = 2147483646;  // of all lookups of a step: positions are int32
  RowIds(const RowPlan::Table& table, std::vector<RowLookup> lookups, int n_logical_workers);

  void clear();
  // Logical workers, from 0, and the lookups of each come in ascending order; what has no samples is left
  // out. Throws Error(data): more than kMostIds ids, offsets that do not ascend or end behind the ids,
  // another number of weights than of ids, a weight that is not finite or, with positive_weights, below 0.
  // The message has the input, the row of the batch and the position in its bag.
  void add(int logical_worker, std::size_t lookup, const RowInput& input);
  void finish();

  // After finish().
  std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }
  std::span<const std::uint64_t> ids() const { return ids_; }
  std::span<const std::uint64_t> ids(ServerId server) const;
  std::int64_t first(ServerId server) const { return first_[static_cast<std::size_t>(server.value)]; }
  // The positions that a logical worker's lookups have, ascending, each once; those of one server. The views
  // are good until clear().
  std::span<const std::int32_t> touched(int logical_worker) const;
  std::span<const std::int32_t> touched(int logical_worker, ServerId server) const;
  // How often each of touched(logical_worker) occurs in its lookups; empty where the table does not count its
  // ids (RowPlan::Table::counts_ids()).
  std::span<const std::uint32_t> counts(int logical_worker) const;
  // REQUIRES that it has been added.
  RowFeeds feeds(int logical_worker, std::size_t lookup) const;

 private:
  struct Added {  // a lookup of a logical worker: where it is in positions_, offsets_ and weights_
    bool is_here = false;
    std::size_t positions = 0, n_positions = 0;
    std::size_t offsets = 0, n_offsets = 0;
    std::size_t weights = 0;  // bytes
    std::optional<DType> weights_dtype = {};
    Shape shape = {};
  };
  struct Key {  // of one id that has come
    std::uint64_t mixed;
    std::uint32_t entry;  // in positions_
  };
  struct Bags {                             // checked
    const std::int64_t* offsets = nullptr;  // null: each row has `width` ids
    std::int64_t n = 0, width = 0;
    std::int64_t begin(std::int64_t row) const { return offsets != nullptr ? offsets[row] : row * width; }
  };
  Bags bags_of(const RowLookup& lookup, const RowInput& input) const;
  void check_size(const RowLookup& lookup, std::int64_t n) const;
  template <class Id>
  void add_each(const RowLookup& lookup, const Id* ids, std::int64_t n);
  template <class Id, class T>
  void add_bags(const RowLookup& lookup, const Bags& bags, const Id* ids, const T* weights);
  void push(std::uint64_t id);
  void sort();
  void count_by_server();
  void rank();
  void mark_touched();
  void mark(std::int32_t& position);
  void list_touched();
  std::size_t server_of(std::uint64_t mixed) const;

  const RowPlan::Table& table_;
  std::vector<RowLookup> lookups_;
  std::vector<Added> added_;             // by logical worker, then lookup
  int logical_worker_ = 0;               // that is being added
  std::vector<Key> keys_, sorted_;       // of all ids; by mixed id
  std::vector<std::uint32_t> buckets_;   // where each begins in sorted_
  std::vector<std::uint64_t> ids_;       // by position
  std::vector<std::int64_t> first_;      // by server, and the end
  std::vector<std::int64_t> next_;       // by server
  std::vector<std::int32_t> positions_;  // of all lookups; until finish() -1 for padding
  std::vector<std::size_t> ends_;        // by logical worker: in positions_
  std::vector<std::int64_t> offsets_;
  std::vector<std::byte> weights_;
  std::vector<std::int32_t> touched_;      // of all logical workers
  std::vector<std::size_t> touched_ends_;  // by logical worker
  std::vector<std::uint64_t> marks_;       // bits by position
  std::vector<std::uint32_t> counts_;      // of each of touched_
  std::vector<std::uint32_t> n_of_;        // by position, of the logical worker whose marks are set
};

}  // namespace varscope
