#pragma once

#include <memory>

#include "ps/tables/table_shard.h"

namespace varscope {

// What one server has of each table of the RowPlan: of some no parts.
using TableShards = IdVector<TableId, std::unique_ptr<TableShard>>;

// All of them empty: their rows have first values, drawn with `seed`. Borrows what it is given.
TableShards make_table_shards(const VariableTable& variables, const RowPlan& plan, ServerId server,
                              const Optimizer& optimizer, std::uint64_t seed);

}  // namespace varscope
