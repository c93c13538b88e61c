#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/variables/variable.h"

namespace varscope {

// Who knows the rows of tables: servers, a checkpoint, or this process. What evaluation and prediction read
// through; reading makes no rows. For one thread at a time.
class RowReader {
 public:
  RowReader() = default;
  RowReader(const RowReader&) = delete;
  RowReader& operator=(const RowReader&) = delete;
  virtual ~RowReader() = default;

  // Puts the values of rows `ids` of a table into `out`: ids.size() * units numbers of its dtype, one row
  // behind the other; of a row that is not there, what TableSpec::absent says. `ids` ascend by mix_row_id(),
  // each is there once. Throws Error(argument) for a table that it does not know, and what reading throws.
  virtual void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) = 0;
};

}  // namespace varscope
