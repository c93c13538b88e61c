#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "checkpoint/restore/checkpoint_rows.h"
#include "checkpoint/restore/names.h"
#include "checkpoint/restore/reader.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// The rows of a checkpoint's tables, read when they are asked for. Of a row that it does not have, zeros
// where the model's table says so (absent), else the first values as the run that wrote it draws them: by its
// initializers and its seed, whatever the config says. One that no run wrote takes `seed`. Borrows the
// variables, and the file system of the reader. For one thread at a time. Throws Error(checkpoint, io).
class TableRows final : public RowReader {
 public:
  TableRows(CheckpointReader&& reader, const CheckpointNames& names, std::uint64_t seed);
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override;

 private:
  CheckpointReader reader_;
  CheckpointNames names_;
  std::uint64_t seed_;
  struct Table {
    Table(CheckpointReader& reader, VariableSpec of, const CheckpointRows::Options& options)
        : spec(std::move(of)), rows(reader, spec, options) {}
    VariableSpec spec;  // whose initializer `rows` borrows
    CheckpointRows rows;
  };
  std::map<const Variable*, Table> tables_;  // that have been asked for
};

}  // namespace varscope
