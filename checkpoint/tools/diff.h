#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// How the values of one tensor differ between two checkpoints. An element differs when its bits do, so that
// -0 differs from 0 (by 0) and a NaN not from itself. A difference with a NaN counts as infinite.
struct TensorDifference {
  std::string name;  // "hidden/weights", "hidden/weights (slot momentum)"
  std::string dtype;
  std::string shape;
  std::int64_t n_elements = 0;
  std::int64_t n_different = 0;
  double max_abs = 0;       // |a - b|
  double max_relative = 0;  // |a - b| / max(|a|, |b|)
  std::uint64_t max_ulp = 0;
};

struct CheckpointDifference {
  std::vector<std::string> added;        // "name dtype shape": only in the second, sorted
  std::vector<std::string> removed;      // only in the first
  std::vector<std::string> changed;      // in both, with another shape or dtype; then values are not compared
  std::vector<TensorDifference> values;  // those that differ, the largest max_abs first, then by name
  std::int64_t n_equal = 0;              // tensors that do not differ

  bool equal() const { return added.empty() && removed.empty() && changed.empty() && values.empty(); }
};

// Compares values and optimizer slots by the names of whole variables: servers, slices and parts do not
// matter, nor do step, run or config. Holds one piece of each (about 1 MiB) in memory. Throws as
// CheckpointReader does.
CheckpointDifference diff_checkpoints(Fs& fs, const std::string& a, const std::string& b);

// What `varscope checkpoint diff` prints, into `out`. Returns 0 or ExitCode::difference.
int diff_tool(Fs& fs, const std::string& a, const std::string& b, ToolFormat format, std::string& out);

}  // namespace varscope
