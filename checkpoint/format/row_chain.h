#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/variables/row_layout.h"
#include "common/variables/table_spec.h"

namespace varscope {

// Replaces `out` by all of a part after step `step`, from a chain of pieces of it, the oldest first, each of
// which RowsCheck has found right: of an id what the newest piece says that knows it; without what is expired
// (TableSpec::is_expired). `pieces` are used up. Returns "" or what is wrong, in words that follow the part's
// name: an id that one piece has in two lists. REQUIRES: there is a piece.
std::string merge_pieces(const RowLayout& layout, const TableSpec& spec, std::int64_t step,
                         std::span<PartRows> pieces, PartRows& out);

}  // namespace varscope
