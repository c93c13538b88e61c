#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"

namespace varscope {

// The rows of a whole table from first to last, ascending by mix_row_id(), one part in memory. All of it is
// checked as read_rows() does, and what is wrong thrown as there. Borrows the reader. Not thread-safe.
//
//   for (RowCursor at(reader, "user/embeddings"); at.row() != nullptr; at.next()) ...
class RowCursor {
 public:
  RowCursor(CheckpointReader& reader, std::string table)
      : reader_(reader),
        table_(std::move(table)),
        n_parts_(reader.table(table_).spec.parts),
        row_bytes_(reader.row_layout(table_).row_bytes()) {
    find_rows();
  }

  // A record as row_layout() says, until next(); nullptr behind the last one.
  const std::byte* row() const { return at_ < rows_.size() ? rows_.data() + at_ : nullptr; }
  void next() {
    at_ += row_bytes_;
    if (at_ == rows_.size()) find_rows();
  }

 private:
  void find_rows() {
    at_ = 0;
    rows_.clear();
    while (rows_.empty() && part_ < n_parts_) reader_.read_rows(table_, part_++, rows_);
  }

  CheckpointReader& reader_;
  std::string table_;
  int n_parts_, part_ = 0;  // to be read next
  std::size_t row_bytes_, at_ = 0;
  std::vector<std::byte> rows_;
};

}  // namespace varscope
