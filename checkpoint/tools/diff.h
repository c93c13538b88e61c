#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/diff_rows.h"
#include "checkpoint/tools/element_difference.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

struct CheckpointDifference {
  std::vector<std::string> added;        // "name dtype shape": only in the second, sorted
  std::vector<std::string> removed;      // only in the first
  std::vector<std::string> changed;      // in both, with another shape or dtype; then values are not compared
  std::vector<TensorDifference> values;  // those that differ, the largest max_abs first, then by name
  std::vector<TableDifference> tables;   // whose rows or waiting ids differ; `values` has fields
  std::int64_t n_equal = 0;              // tensors and tables that do not differ

  bool equal() const {
    return added.empty() && removed.empty() && changed.empty() && values.empty() && tables.empty();
  }
};

// Compares values and optimizer slots by the names of whole variables, and tables row by row, with the ids
// that wait for a row: servers, slices and parts do not matter, nor do step, run or config. Holds one piece
// of each (about 1 MiB), or one part of a table, in memory. Throws as CheckpointReader does.
CheckpointDifference diff_checkpoints(Fs& fs, const std::string& a, const std::string& b);

// What `varscope checkpoint diff` prints, into `out`. Returns 0 or ExitCode::difference.
int diff_tool(Fs& fs, const std::string& a, const std::string& b, ToolFormat format, std::string& out);

}  // namespace varscope
