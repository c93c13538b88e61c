#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "common/variables/row_layout.h"
#include "common/variables/variable_table.h"

namespace varscope {

// A variable that only one side has, and a sentence that says so with its dtype and shape.
struct UnmatchedVariable {
  std::string name;  // of the whole
  std::string text;
};

// How a checkpoint differs from what is wanted of it: everything, found from its manifest before a value is
// read or changed. Variables are compared as wholes; how they are divided into parts is no difference.
struct RestorePlan {
  std::vector<std::string> found;          // in both; in the order wanted
  std::vector<UnmatchedVariable> missing;  // wanted, but not in the checkpoint
  std::vector<UnmatchedVariable> extra;    // in the checkpoint, but not wanted
  std::vector<std::string> conflicts;      // a sentence for each other shape, dtype, optimizer or slot
  std::vector<std::string> changes;        // the same of what may differ: the life of tables' rows

  // The sentences of conflicts and missing variables, and with `extra` those of extra ones.
  enum class Extra : std::uint8_t { leave_out, include };
  std::vector<std::string> problems(Extra extra) const;
  std::vector<std::string> missing_names() const;
  std::vector<std::string> extra_names() const;
};

// Values only: names, shapes, dtypes; of tables units, dtypes, types of ids.
RestorePlan plan_values(const Manifest& manifest, const VariableTable& wanted);
// The slots behind the values of a table's rows, by the table's name in the checkpoint.
using RowSlots = std::map<std::string, std::vector<RowSlot>>;
// Values, optimizer and its slots: what a run needs to go on; of tables also parts, entry, first values, and
// the slots of rows of those that `row_slots` has. What else a TableSpec says are changes.
RestorePlan plan_restore(const Manifest& manifest, const VariableTable& wanted,
                         const std::vector<std::string>& slots, const std::string& optimizer,
                         const RowSlots& row_slots = {});

// Throws Error(checkpoint) with all of the problems, unless there are none: "checkpoint <path> does not fit
// <what> (2 differences):", a line for each, and `hint`.
void refuse(const std::string& path, const char* what, const std::vector<std::string>& problems,
            const char* hint);

}  // namespace varscope
