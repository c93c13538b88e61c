#pragma once

#include <cstdint>
#include <map>

#include "checkpoint/restore/checkpoint_rows.h"
#include "checkpoint/restore/names.h"
#include "checkpoint/restore/reader.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// The rows of a checkpoint's tables, read when they are asked for; of a row that it does not have, the first
// values, those of a run with this seed. Borrows the variables, and the file system of the reader. For one
// thread at a time. Throws Error(checkpoint, io).
class TableRows final : public RowReader {
 public:
  TableRows(CheckpointReader&& reader, const CheckpointNames& names, std::uint64_t seed)
      : reader_(std::move(reader)), names_(names), seed_(seed) {}
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override;

 private:
  CheckpointReader reader_;
  CheckpointNames names_;
  std::uint64_t seed_;
  std::map<const Variable*, CheckpointRows> tables_;  // that have been asked for
};

}  // namespace varscope
