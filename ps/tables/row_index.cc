#include "ps/tables/row_index.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

namespace varscope {
namespace {

// 14 of 16 slots at most.
std::uint64_t rows_for(std::uint64_t n_groups) { return n_groups * RowGroup::kSlots / 8 * 7; }

}  // namespace

void RowIndex::reserve(std::uint32_t n, const RowArena& arena, int part_bits) {
  if (n <= rows_for(n_groups_)) return;
  std::uint64_t n_groups = std::max<std::uint64_t>(1, n_groups_);
  while (rows_for(n_groups) < n) n_groups *= 2;
  if (n_groups > std::numeric_limits<std::uint32_t>::max()) throw std::bad_alloc();
  AlignedBytes memory = allocate_aligned(n_groups * sizeof(RowGroup));

  auto* const groups = reinterpret_cast<RowGroup*>(memory.get());
  for (std::uint64_t i = 0; i < n_groups; ++i) groups[i].control.fill(RowGroup::kEmpty);
  memory_ = std::move(memory);
  n_groups_ = static_cast<std::uint32_t>(n_groups);
  const std::uint32_t n_rows = std::exchange(n_rows_, 0);
  for (std::uint32_t handle = 0; handle < n_rows; ++handle)
    insert(RowPlace::of(mix_row_id(RowLayout::id_of(arena.row(handle))), part_bits), handle);
}

void RowIndex::insert(RowPlace place, std::uint32_t handle) {
  std::uint32_t at = group_of(place);
  std::uint32_t empty = 0;
  while ((empty = groups()[at].empty()) == 0) at = next(at);
  RowGroup& group = groups()[at];
  const auto slot = static_cast<std::size_t>(std::countr_zero(empty));
  group.control[slot] = place.tag;
  group.handles[slot] = handle;
  ++n_rows_;
}

}  // namespace varscope
