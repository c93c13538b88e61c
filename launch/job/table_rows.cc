#include "launch/job/table_rows.h"

namespace varscope {

void TableRows::read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) {
  auto rows = tables_.find(&table);
  if (rows == tables_.end()) {
    const CheckpointRows::Options options{names_.in_checkpoint(table.spec()).name, seed_};
    rows = tables_.try_emplace(&table, reader_, table.spec(), options).first;
  }
  rows->second.read(ids, out);
}

}  // namespace varscope
