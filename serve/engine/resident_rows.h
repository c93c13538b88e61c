#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/variables/initializer.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// All rows of a checkpoint's tables in memory, values alone: what is served must not depend on files that
// retention removes. Of a row that is not there, what TableSpec::absent says, with first values as the run
// that wrote the checkpoint draws them. Immutable once all tables are loaded: threads may read side by side.
class ResidentRows final : public RowReader {
 public:
  // Reads a table. `saved_name`: what the checkpoint calls it; `seed`: that of its run. `spec` must outlive
  // this. Throws what CheckpointReader::read_rows() does.
  void load(CheckpointReader& reader, const Variable& table, const std::string& saved_name,
            std::uint64_t seed);
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override;
  std::int64_t n_bytes() const { return n_bytes_; }

 private:
  struct Part {
    std::vector<std::uint64_t> mixed;  // mix_row_id() of the ids, ascending
    std::vector<std::byte> values;
  };
  struct Table {
    VariableSpec spec;  // with the initializer of the checkpoint's run
    std::vector<Part> parts;
    std::size_t row_bytes = 0;
  };
  std::map<const Variable*, Table> tables_;
  std::map<const Variable*, InitialValues> first_values_;  // borrow the specs, which do not move
  std::int64_t n_bytes_ = 0;
};

}  // namespace varscope
