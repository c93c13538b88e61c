#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/format/row_file.h"

namespace varscope {

// A table T in a file of tensors, as TableTensors writes it: T.ids [n] in any order and T.values [n, units],
// with or without T.slots.S, T.last and T.count, which are 0 where they are not there. In memory are the ids
// and at most `most_bytes` of records at a time; more cost another pass over the file. Borrows source and
// file name, which begins its errors. Not thread-safe.
class ImportedTable {
 public:
  static constexpr std::size_t kMostBytes = std::size_t{512} << 20;
  // The tables of a file, by name: the indices of their tensors. A pair of ids and values makes one.
  static std::map<std::string, std::vector<std::size_t>> find(const std::vector<NamedTensor>& tensors);

  // `tensors`: as find() has them. Throws Error(data) for tensors whose shapes or dtypes do not go together,
  // with both shapes, and for an id that is there twice, with the id.
  ImportedTable(TensorSource& source, const std::string& file, const std::string& name,
                const std::vector<std::size_t>& tensors, const TableSpec& spec,
                std::size_t most_bytes = kMostBytes);

  // The table as a variable, [0, units].
  VariableSpec variable() const;
  RowFileTable row_file_table() const { return {name_, spec_, layout_, {}}; }
  int n_slots() const { return static_cast<int>(layout_.slots().size()); }
  // Replaces `rows` by those of a part. Parts are asked for in ascending order. Throws Error(data) with id
  // and column for a value that is NaN or infinite, and with the id for a last step or count that none can
  // be.
  void read_part(int part, std::vector<std::byte>& rows);

 private:
  struct Field {
    std::size_t tensor;   // in the source
    std::size_t at;       // in the record
    std::size_t n_bytes;  // of a row in the tensor
    const char* number;   // of last and count their name; else nullptr
  };
  [[noreturn]] void bad(const std::string& what) const;
  const NamedTensor& tensor(std::size_t i) const { return source_.tensors()[i]; }
  void add_fields(const std::vector<std::size_t>& tensors, std::size_t values);
  void add_number(std::size_t tensor, std::size_t at, const char* name);
  void read_ids(std::size_t tensor);
  void load(std::size_t first, std::size_t end);
  void load_field(const Field& field);
  void put_number(const Field& field, std::byte* row, const std::byte* from) const;
  void check_finite() const;
  std::size_t first_of_part(int part) const;

  TensorSource& source_;
  const std::string& file_;
  std::string name_;
  TableSpec spec_;
  std::size_t most_bytes_;
  RowLayout layout_;
  std::vector<Field> fields_;
  std::vector<std::uint64_t> mixed_;  // mix_row_id() of the ids, ascending
  std::vector<std::size_t> place_;    // of each row of the file in mixed_
  std::size_t first_ = 0, end_ = 0;   // records [first_, end_) by mixed_
  std::vector<std::byte> window_;     // they are here
};

}  // namespace varscope
