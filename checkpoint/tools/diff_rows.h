#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/element_difference.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// How the rows of one table, and the ids that wait for a row, differ between two checkpoints.
struct TableDifference {
  // Of some rows or waiting ids: how many, and the first few ids by mix_row_id(), as id_text() has them.
  struct Rows {
    std::int64_t n = 0;
    std::vector<std::string> ids;
  };
  std::string name;
  Rows only_in_a, only_in_b;
  Rows different;    // in both, with other bits in values or slots
  Rows other_steps;  // in both and not `different`, but with another last step or count
  std::int64_t n_in_both = 0;
  // Ids that wait there; in the other they have their row or are not known.
  Rows waiting_only_in_a, waiting_only_in_b;
  Rows waiting_other_steps;                             // that wait in both, with another last step or count
  double max_abs = 0;                                   // of `different`
  std::string max_abs_in;                               // the id of that row; "" when there is none
  std::vector<TensorDifference> fields;                 // values and slots of rows in both; those that differ
  std::vector<std::string> slots_added, slots_removed;  // "name (slot m) [3] of each row"

  bool equal() const {
    const bool rows_are = only_in_a.n + only_in_b.n + different.n + other_steps.n == 0;
    const bool waiting_are = waiting_only_in_a.n + waiting_only_in_b.n + waiting_other_steps.n == 0;
    return rows_are && waiting_are && slots_added.empty() && slots_removed.empty();
  }
};

// Row by row, id by id. REQUIRES: both have the table, with the same units, dtype and ids. Throws as
// CheckpointReader::read_part().
TableDifference compare_rows(CheckpointReader& a, CheckpointReader& b, const std::string& table);

// "2 only in a (-5, 7), 1 only in b (4), 12 of 195 differ (...), most in row 77 (by 0.25),
// 1 waiting only in a (9)"
std::string text_of(const TableDifference& difference);
nlohmann::json json_of(const TableDifference& difference);

}  // namespace varscope
