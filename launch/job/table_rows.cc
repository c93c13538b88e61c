#include "launch/job/table_rows.h"

#include <utility>

#include "ps/coordinator_state.h"

namespace varscope {

TableRows::TableRows(CheckpointReader&& reader, const CheckpointNames& names, std::uint64_t seed)
    : reader_(std::move(reader)), names_(names), seed_(seed) {
  const std::string& state = reader_.manifest().coordinator_state;
  if (!state.empty()) seed_ = static_cast<std::uint64_t>(from_manifest_text(state).seed);
}

void TableRows::read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) {
  auto rows = tables_.find(&table);
  if (rows == tables_.end()) {
    CheckpointRows::Options options;
    options.saved_name = names_.in_checkpoint(table.spec()).name;
    options.seed = seed_;
    VariableSpec spec = table.spec();
    const VariableSpec* saved = reader_.manifest().variables.find(options.saved_name);
    if (saved != nullptr) spec.initializer = saved->initializer;
    rows = tables_.try_emplace(&table, reader_, std::move(spec), options).first;
  }
  rows->second.rows.read(ids, out);
}

}  // namespace varscope
