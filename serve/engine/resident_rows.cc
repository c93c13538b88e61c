#include "serve/engine/resident_rows.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/base/row_id.h"

namespace varscope {

void ResidentRows::load(CheckpointReader& reader, const Variable& variable, const std::string& saved_name,
                        std::uint64_t seed) {
  const RowLayout layout = reader.row_layout(saved_name);
  Table& table = tables_[&variable];
  table.spec = variable.spec();
  if (const VariableSpec* saved = reader.manifest().variables.find(saved_name); saved != nullptr)
    table.spec.initializer = saved->initializer;
  table.row_bytes = layout.value_bytes();
  table.parts.resize(static_cast<std::size_t>(reader.table(saved_name).spec.parts));
  first_values_.try_emplace(&variable, table.spec.initializer, seed, table.spec.full_name(),
                            table.spec.full_shape());
  std::vector<std::byte> rows;
  for (std::size_t p = 0; p < table.parts.size(); ++p) {
    reader.read_rows(saved_name, static_cast<int>(p), rows);
    const std::size_t n = rows.size() / layout.row_bytes();
    Part& part = table.parts[p];
    part.mixed.reserve(n);
    part.values.resize(n * table.row_bytes);
    for (std::size_t i = 0; i < n; ++i) {
      const std::byte* row = rows.data() + i * layout.row_bytes();
      part.mixed.push_back(mix_row_id(RowLayout::id_of(row)));
      std::memcpy(part.values.data() + i * table.row_bytes, row + RowLayout::kValuesAt, table.row_bytes);
    }
    n_bytes_ += static_cast<std::int64_t>(part.values.size() + n * sizeof(std::uint64_t));
  }
}

void ResidentRows::read(const Variable& variable, std::span<const std::uint64_t> ids, std::byte* out) {
  const auto found = tables_.find(&variable);
  if (found == tables_.end())
    fail(ErrorKind::argument, "table \"{}\" is not among those that are in memory", variable.name());
  const Table& table = found->second;
  const Shape row{table.spec.shape[1]};
  for (const std::uint64_t id : ids) {
    const std::uint64_t mixed = mix_row_id(id);
    const Part& part =
        table.parts[static_cast<std::size_t>(row_part(mixed, static_cast<int>(table.parts.size())))];
    const auto at = std::ranges::lower_bound(part.mixed, mixed);
    if (at != part.mixed.end() && *at == mixed) {
      const auto i = static_cast<std::size_t>(at - part.mixed.begin());
      std::memcpy(out, part.values.data() + i * table.row_bytes, table.row_bytes);
    } else if (table.spec.table->absent == AbsentRows::initial) {
      VariableSpec::fill_row(TensorView(table.spec.dtype, row, out), first_values_.at(&variable), id);
    } else {
      std::memset(out, 0, table.row_bytes);
    }
    out += table.row_bytes;
  }
}

}  // namespace varscope
