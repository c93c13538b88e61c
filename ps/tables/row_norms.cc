#include "ps/tables/row_norms.h"

#include <algorithm>
#include <cmath>

#include "common/base/row_id.h"
#include "ps/update/update_kernels.h"

namespace varscope {

RowSquares::RowSquares(const RowPlan::Table& table)
    : table_(table), merge_(table.dtype, table.units), sums_(static_cast<std::size_t>(table.spec.parts)) {}

std::span<const double> RowSquares::sum(std::span<const TableShard::Contribution> contributions,
                                        const ReductionTree& tree) {
  std::ranges::fill(sums_, 0.0);
  merge_.begin(contributions, tree);
  while (const std::size_t n = merge_.next()) {
    for (std::size_t i = 0; i < n; ++i) {
      double& sum = sums_[static_cast<std::size_t>(row_part(merge_.mixed(i), table_.spec.parts))];
      with_real(table_.dtype, [&]<class T>(T) {
        sum += kernels::sum_of_squares(reinterpret_cast<const T*>(merge_.sum(i)), table_.units);
      });
    }
  }
  return sums_;
}

bool constrain_row(const Constraint& rule, DType dtype, std::byte* values, std::int64_t units) {
  bool is_finite = true;
  with_real(dtype, [&]<class T>(T) {
    T* const v = reinterpret_cast<T*>(values);
    const double squares = kernels::sum_of_squares(v, units);
    is_finite = std::isfinite(squares);
    const double scale = is_finite ? rule.scale(std::sqrt(squares)) : 1;
    if (scale != 1) kernels::scale_columns(v, &scale, 1, units);
  });
  return is_finite;
}

}  // namespace varscope
