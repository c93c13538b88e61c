#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/restore/reader.h"

namespace varscope {

// The rows of a checkpoint's table T as whole tensors, by unsigned id ascending, so that they are the same
// whatever the number of servers and parts:
//
//   T.ids       [n]         int64, or uint64 where ids are unsigned or hashes of strings
//   T.values    [n, units]
//   T.slots.S   [n, units] or [n]   with slots, for each slot S of its rows; and
//   T.last, T.count   [n]   int64   the step a row was last pushed in, and how often it has been
//
// In memory are the ids and, of one tensor at a time, at most `most_bytes`: a larger one costs another pass
// over the table for each of these. All bytes are checked as CheckpointReader::read_rows() does. Borrows the
// reader. Not thread-safe.
class TableTensors {
 public:
  static constexpr std::size_t kMostBytes = std::size_t{512} << 20;
  TableTensors(CheckpointReader& reader, std::string table, ExportSlots slots,
               std::size_t most_bytes = kMostBytes);
  const std::vector<NamedTensor>& tensors() const { return tensors_; }
  // As TensorSource::read().
  void read(std::size_t tensor, const Slice& piece, std::span<std::byte> out);

 private:
  enum class Kind : std::uint8_t { ids, numbers, last, count };
  struct Field {
    Kind kind;
    std::size_t at = 0;       // in the record, of numbers
    std::size_t n_bytes = 0;  // of a row in the tensor
  };
  void add(const std::string& name, DType dtype, Shape shape, const Field& field);
  void load_ids();
  void load(std::size_t tensor, std::uint64_t first_row, std::uint64_t n_rows);
  static void copy_field(const Field& field, const std::byte* row, std::byte* to);

  CheckpointReader& reader_;
  std::string table_;
  std::size_t most_bytes_;
  std::uint64_t n_rows_;
  std::vector<NamedTensor> tensors_;
  std::vector<Field> fields_;
  std::vector<std::uint64_t> ids_;  // ascending; empty until they are needed
  // Rows [first_row_, end_row_) of tensors_[loaded_].
  std::size_t loaded_ = 0;
  std::uint64_t first_row_ = 0, end_row_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace varscope
