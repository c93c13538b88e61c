#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/placement/canonical_sum.h"
#include "common/placement/row_plan.h"
#include "common/variables/constraint.h"
#include "ps/tables/row_merge.h"
#include "ps/tables/table_shard.h"

namespace varscope {

// A table's share of the norms that gradients are clipped by: of each part the sum of the squares, in double,
// of its rows' summed gradients, a row's first, then the rows' in the order of mix_row_id(). It depends on
// the leaves' gradients alone. Sums rows as TableShard::apply() does later, so that none of these sums need
// be kept. Owns its memory; borrows the table. One thread.
class RowSquares {
 public:
  explicit RowSquares(const RowPlan::Table& table);
  // By part, of all parts; 0 of those without a row in these contributions, and of those of other servers.
  // Until the next call. Throws Error(protocol) as RowMerge::begin() does.
  std::span<const double> sum(std::span<const TableShard::Contribution> contributions,
                              const ReductionTree& tree);

 private:
  const RowPlan::Table& table_;
  RowMerge merge_;
  std::vector<double> sums_;
};

// Multiplies a row's `units` values, of float32 or float64, by Constraint::scale() of their norm, in double
// as the values of a dense variable with this constraint. REQUIRES rule.is_by_row(). False when the norm is
// not finite: then the values stay as they are.
bool constrain_row(const Constraint& rule, DType dtype, std::byte* values, std::int64_t units);

}  // namespace varscope
