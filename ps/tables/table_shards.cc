#include "ps/tables/table_shards.h"

namespace varscope {

TableShards make_table_shards(const VariableTable& variables, const RowPlan& plan, ServerId server,
                              const Optimizer& optimizer, std::uint64_t seed) {
  TableShards shards(plan.size());
  for (const RowPlan::Table& table : plan.tables()) {
    const VariableSpec& variable = variables[static_cast<std::size_t>(table.variable)];
    shards[table.id] =
        std::make_unique<TableShard>(TableShard::Parts{variable, table, server, optimizer, seed});
  }
  return shards;
}

}  // namespace varscope
