#pragma once

#include <optional>
#include <string>

#include "common/variables/table_spec.h"

namespace varscope {

// What is wrong with a table's keys: the key to blame, and a sentence that begins with it.
struct TableProblem {
  std::string key;   // "max_rows"
  std::string text;  // "max_rows is 100, but with 1024 parts it must be ..."
};
// The first one; none when TableSpec::check() would not throw.
std::optional<TableProblem> problem_of(const TableSpec& spec);

}  // namespace varscope
