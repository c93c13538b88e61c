#pragma once

#include "common/base/row_id.h"
#include "ps/tables/row_arena.h"
#include "ps/tables/row_index.h"

namespace varscope {

// One part of a table: its rows, where they are, and the hash of their values.
struct alignas(64) TablePart {
  explicit TablePart(SlabPool& pool) : arena(pool) {}
  RowIndex index;
  RowArena arena;
  RowHashSum hash;
};
static_assert(sizeof(TablePart) == 64);

}  // namespace varscope
