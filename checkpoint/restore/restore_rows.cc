#include "checkpoint/restore/restore_rows.h"

#include <algorithm>
#include <array>
#include <future>

#include "common/base/error.h"

namespace varscope {
namespace {

// Whether the server owns any of the parts that the saved part `part` of `n_saved` has rows of.
bool owns_some(const RowPlan::Table& table, ServerId server, int part, int n_saved) {
  const auto n = static_cast<std::int64_t>(table.spec.parts);
  const std::int64_t first = part * n / n_saved;
  const std::int64_t end = std::max(first + 1, (part + 1) * n / n_saved);
  return std::any_of(table.owner.begin() + first, table.owner.begin() + end,
                     [&](ServerId owner) { return owner == server; });
}

}  // namespace

void restore_rows(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                  ServerId server, const TakeRows& take) {
  const TableSpec& saved = reader.table(saved_name).spec;
  if (saved.parts != table.spec.parts)
    fail(ErrorKind::checkpoint, "table \"{}\" has {} parts in checkpoint {} and {} in the model", table.name,
         saved.parts, reader.path(), table.spec.parts);
  const std::vector<int> parts = table.parts_of(server);
  std::array<PartRows, 2> rows;
  const auto read = [&](std::size_t i) {
    return std::async(std::launch::async, [&, i] { reader.read_part(saved_name, parts[i], rows[i % 2]); });
  };
  std::future<void> next;  // waits for its thread before `rows` goes
  if (!parts.empty()) next = read(0);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    next.get();
    if (i + 1 < parts.size()) next = read(i + 1);
    if (!rows[i % 2].empty()) take(parts[i], rows[i % 2]);
  }
}

void restore_row_values(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                        ServerId server, const TakeRowValues& take) {
  const int n_saved = reader.table(saved_name).spec.parts;
  const RowLayout layout = reader.row_layout(saved_name);
  if (layout.units() != table.units || layout.dtype() != table.dtype)
    fail(ErrorKind::checkpoint, "table \"{}\" has {} {} units in checkpoint {} and {} {} in the model",
         table.name, layout.units(), to_string(layout.dtype()), reader.path(), table.units,
         to_string(table.dtype));
  std::vector<std::byte> rows;
  for (int part = 0; part < n_saved; ++part) {
    if (reader.n_rows(saved_name, part) == 0 || !owns_some(table, server, part, n_saved)) continue;
    reader.read_rows(saved_name, part, rows);
    for (std::size_t at = 0; at < rows.size(); at += layout.row_bytes()) {
      const std::byte* row = rows.data() + at;
      const std::uint64_t id = RowLayout::id_of(row);
      if (table.server_of(id) == server) take(id, row + RowLayout::kValuesAt);
    }
  }
}

}  // namespace varscope
