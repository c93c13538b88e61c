#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "common/base/tensor.h"
#include "worker/tables/row_reader.h"

namespace varscope {

// Rows of tables in this process. row() makes one, with the first values that a server would draw with this
// seed; any other is what TableSpec::absent says. Borrows the variables. For one thread.
class MemoryRows final : public RowReader {
 public:
  explicit MemoryRows(std::uint64_t seed) : seed_(seed) {}

  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override;
  // The row's own memory, [units]: writing to it changes the row. Makes it, with its first values, where it
  // is not there. Good for as long as this lives. Throws Error(argument) for a variable that is no table.
  const TensorView& row(const Variable& table, std::uint64_t id);
  // That row() has made.
  std::int64_t n_rows(const Variable& table) const;

 private:
  struct Table {
    InitialValues first;
    std::unordered_map<std::uint64_t, Tensor> rows = {};  // elements do not move
  };
  Table& table_of(const Variable& table);

  std::uint64_t seed_;
  std::map<const Variable*, Table> tables_;
};

}  // namespace varscope
