#include "worker/tables/memory_rows.h"

#include <cstring>

namespace varscope {

MemoryRows::Table& MemoryRows::table_of(const Variable& table) {
  const auto it = tables_.find(&table);
  if (it != tables_.end()) return it->second;
  if (!table.spec().is_table())
    fail(ErrorKind::argument, "variable \"{}\" is no table: it has no rows by id", table.name());
  return tables_.emplace(&table, Table{table.spec().initial_values(seed_)}).first->second;
}

void MemoryRows::read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) {
  const Table& known = table_of(table);
  const std::int64_t units = table.shape()[1];
  const std::size_t row_bytes = static_cast<std::size_t>(units) * size_of(table.dtype());
  for (const std::uint64_t id : ids) {
    if (const auto row = known.rows.find(id); row != known.rows.end()) {
      std::memcpy(out, row->second.view().bytes(), row_bytes);
    } else if (table.spec().table->absent == AbsentRows::zeros) {
      std::memset(out, 0, row_bytes);
    } else {
      VariableSpec::fill_row(TensorView(table.dtype(), {units}, out), known.first, id);
    }
    out += row_bytes;
  }
}

const TensorView& MemoryRows::row(const Variable& table, std::uint64_t id) {
  Table& known = table_of(table);
  const auto [row, is_new] = known.rows.try_emplace(id);
  if (is_new) {
    row->second = Tensor(table.dtype(), {table.shape()[1]});
    VariableSpec::fill_row(row->second.view(), known.first, id);
  }
  return row->second.view();
}

std::int64_t MemoryRows::n_rows(const Variable& table) const {
  const auto it = tables_.find(&table);
  return it == tables_.end() ? 0 : static_cast<std::int64_t>(it->second.rows.size());
}

}  // namespace varscope
