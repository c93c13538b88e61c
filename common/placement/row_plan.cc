#include "common/placement/row_plan.h"

namespace varscope {

std::vector<int> RowPlan::Table::parts_of(ServerId server) const {
  std::vector<int> parts;
  for (std::size_t p = 0; p < owner.size(); ++p) {
    if (owner[p] == server) parts.push_back(static_cast<int>(p));
  }
  return parts;
}

RowPlan RowPlan::make(const VariableTable& variables, int n_servers) {
  RowPlan plan;
  for (std::size_t i = 0; i < variables.size(); ++i) {
    const VariableSpec& v = variables[i];
    if (!v.is_table()) continue;
    Table table{
        plan.tables_.next_id(), static_cast<int>(i), v.name, v.dtype, v.shape[1], *v.table, v.trainable};
    table.has_parts.assign(n_servers, false);
    for (int p = 0; p < v.table->parts; ++p) {
      table.owner.push_back(v.owner(p, n_servers));
      table.has_parts[table.owner.back()] = true;
    }
    plan.tables_.push_back(std::move(table));
  }
  return plan;
}

const RowPlan::Table* RowPlan::of_variable(int variable) const {
  for (const Table& table : tables_) {
    if (table.variable == variable) return &table;
  }
  return nullptr;
}

}  // namespace varscope
