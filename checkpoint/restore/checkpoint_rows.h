#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/variables/initializer.h"
#include "common/variables/variable_table.h"

namespace varscope {

// The values of any rows of a checkpoint's table, for predictions and evaluations without a cluster. Parts
// are read, and checked, when the first of their rows is asked for; those used longest ago are dropped when
// ids and values take more memory than they may. Borrows reader and variable. Not thread-safe.
class CheckpointRows {
 public:
  struct Options {
    std::string saved_name = {};                    // of the table in the checkpoint; "": the variable's
    std::uint64_t seed = 0;                         // of the first values, that of the run
    std::size_t most_bytes = std::size_t{1} << 30;  // one part is in memory whatever it takes
  };
  // `variable`: the table as the model has it, whose initializer and TableSpec::absent say what is read of
  // rows that are not there. Throws Error(checkpoint) when the checkpoint has no such table, or other units,
  // dtype or ids.
  CheckpointRows(CheckpointReader& reader, const VariableSpec& variable, const Options& options);

  // Puts the values of the rows `ids`, in any order, also twice, one behind the other into `out`, which has
  // room for ids.size() * units elements. Of a row that the checkpoint does not have, the first values or
  // zeros. Throws as read_rows() does.
  void read(std::span<const std::uint64_t> ids, std::byte* out);

  std::int64_t units() const { return layout_.units(); }
  std::size_t n_bytes() const { return n_bytes_; }  // of ids and values that are in memory

 private:
  struct Part {
    std::vector<std::uint64_t> mixed;  // mix_row_id() of the ids, ascending
    std::vector<std::byte> values;
    std::list<int>::iterator used;  // its place in used_
    std::size_t n_bytes() const { return mixed.size() * sizeof(std::uint64_t) + values.size(); }
  };
  const Part& part(int part);
  Part load(int part);

  CheckpointReader& reader_;
  std::string name_;  // in the checkpoint
  RowLayout layout_;
  int n_parts_;
  std::size_t most_bytes_;
  InitialValues first_values_;
  AbsentRows absent_ = AbsentRows::initial;
  std::map<int, Part> parts_;
  std::list<int> used_;  // parts_, that used last in front
  std::size_t n_bytes_ = 0;
  std::vector<std::byte> rows_;  // scratch
};

}  // namespace varscope
