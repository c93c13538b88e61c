#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/restore_rows.h"
#include "common/base/tensor.h"
#include "common/placement/row_plan.h"
#include "common/variables/slice.h"

namespace varscope {

// Between a sparse table of `units` and a dense variable of shape [rows, units], whose row i is that of id i:
// what a warm start takes from the one for the other.

// A box of the whole dense variable, and memory for its elements, row-major.
struct DenseBox {
  Slice box;
  TensorView out;
};

// Fills the boxes, which do not overlap, from the checkpoint's table `saved_name`: with the rows of their ids
// and, where it has none, with first values as the table's run draws them by its seed. Reads the whole table
// once. `variable` is for messages. Throws Error(checkpoint) when the table has ids that are no rows of the
// variable: with the lowest of them and how many there are; else as CheckpointReader::read_rows(). When it
// throws the boxes may be half filled.
// REQUIRES: there are boxes, all of one [rows, units]; the table has these units, and the memory its dtype.
void read_table_as_dense(CheckpointReader& reader, const std::string& saved_name, const std::string& variable,
                         std::uint64_t seed, std::span<const DenseBox> boxes);

// Gives `take` the rows of the checkpoint's dense variable `saved_name` that `server` owns in `table`, ids
// ascending. Reads the whole variable once, about 1 MiB at a time. Throws as CheckpointReader::read().
// REQUIRES: the variable is [rows, table.units], of the table's dtype.
void read_dense_as_rows(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                        ServerId server, const TakeRowValues& take);

}  // namespace varscope
