#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/placement/row_plan.h"

namespace varscope {

// Takes all of one part: rows, records as CheckpointReader::row_layout() says, and waiting ids; they last for
// this call only.
using TakeRows = std::function<void(int part, const PartRows& rows)>;
// Takes one row's values, `units` of the table's dtype; they last for this call only.
using TakeRowValues = std::function<void(std::uint64_t id, const std::byte* values)>;

// What a server restores: every part of `table` that it owns and of which there is something, ascending;
// whatever number of servers has saved them. `take` is called from the caller's thread; while it has one part
// the next one is read by another thread, so that two are in memory. `saved_name`: the table's in the
// checkpoint. Throws as CheckpointReader::read_part() does, and Error(checkpoint) when the checkpoint's table
// has other parts; what check_model() has let pass has the same.
void restore_rows(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                  ServerId server, const TakeRows& take);

// What a server takes in a warm start: the values of every row that it owns, in the order of mix_row_id().
// The checkpoint's table may have another number of parts; each of these is read once by each server that
// owns rows of it.
void restore_row_values(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                        ServerId server, const TakeRowValues& take);

}  // namespace varscope
