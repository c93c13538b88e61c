#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/row_id.h"
#include "ps/tables/table_shard.h"

namespace varscope::bench {

inline constexpr std::int64_t kUnits = 16;
inline constexpr std::size_t kRequest = 8'192;  // rows of a step
enum class Draw : std::uint8_t { uniform, zipf };

OptimizerConfig rowwise_adagrad();
VariableSpec bench_variable(const TableSpec& spec = {});

// The id of row i, in no order.
inline std::uint64_t id_of(std::uint64_t i) { return i * 0x9e3779b97f4a7c15U; }
// Ids of rows [first, end), as steps want them.
std::vector<std::uint64_t> sorted_ids(std::uint64_t first, std::uint64_t end);

// A table on the only server, of rows of 16 float32, updated by rowwise_adagrad.
class BenchTable {
 public:
  explicit BenchTable(const TableSpec& spec = {});
  TableShard& shard() { return *shard_; }
  // A step that pushes to all of them. REQUIRES: ascending by mix_row_id(), at most kRequest.
  void step(std::span<const std::uint64_t> ids);
  // Rows [first, end), by steps of kRequest.
  void fill(std::uint64_t end, std::uint64_t first = 0);

 private:
  VariableTable variables_;
  RowPlan plan_;
  Optimizer optimizer_;
  ReductionTree tree_{{{0, 0}}, 1};
  std::vector<float> gradients_;
  std::vector<std::uint32_t> positions_;
  std::unique_ptr<TableShard> shard_;
};

using Requests = std::vector<std::vector<std::uint64_t>>;
// `n` requests of rows [0, n_rows), unique in each, by mix_row_id() of their ids; as rows.
Requests draw_requests(Draw draw, std::uint64_t n_rows, int n);
Requests ids_of(Requests rows);
std::size_t n_rows_of(const Requests& requests);

// Rows at addresses that the caller knows, in no order.
class PlainRows {
 public:
  PlainRows(std::uint64_t n, std::size_t row_bytes);
  std::byte* row(std::uint64_t i) const { return memory_.get() + i * 0x9e3779b1U % n_ * row_bytes_; }
  std::vector<std::vector<std::byte*>> addresses(const Requests& rows) const;
  std::size_t row_bytes() const { return row_bytes_; }
  // Calls f(i, row) for each, the rows further on being fetched.
  template <class F>
  void each(const std::vector<std::byte*>& rows, const F& f) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i + kAhead < rows.size()) {
        __builtin_prefetch(rows[i + kAhead]);
        __builtin_prefetch(rows[i + kAhead] + row_bytes_ - 1);
      }
      f(i, rows[i]);
    }
  }

 private:
  static constexpr std::size_t kAhead = 16;
  std::uint64_t n_;
  std::size_t row_bytes_;
  AlignedBytes memory_;
};

// Keeps the compiler from leaving out what wrote to memory.
inline void clobber_memory() { asm volatile("" ::: "memory"); }

}  // namespace varscope::bench
