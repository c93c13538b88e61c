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

bool RowIndex::is_full_for(std::uint32_t n) const {
  return std::uint64_t{n} + n_deleted_ > rows_for(n_groups_) || n_deleted_ > n_slots() / 8;
}

void RowIndex::reserve(std::uint32_t n, const RowArena& arena, int part_bits) {
  if (!is_full_for(n)) return;
  // With marks that go, three quarters full at most: they would come back too soon.
  const std::uint64_t least = n_deleted_ == 0 ? n : n + std::uint64_t{n} / 6;
  std::uint64_t n_groups = n_deleted_ == 0 ? std::max<std::uint64_t>(1, n_groups_) : 1;
  while (rows_for(n_groups) < least) n_groups *= 2;
  if (n_groups > std::numeric_limits<std::uint32_t>::max()) throw std::bad_alloc();
  AlignedBytes memory = allocate_aligned(n_groups * sizeof(RowGroup));

  auto* const groups = reinterpret_cast<RowGroup*>(memory.get());
  for (std::uint64_t i = 0; i < n_groups; ++i) groups[i].control.fill(RowGroup::kEmpty);
  memory_ = std::move(memory);
  n_groups_ = static_cast<std::uint32_t>(n_groups);
  n_rows_ = n_deleted_ = 0;
  arena.for_each([&](std::uint32_t handle, const std::byte* row) {
    insert(RowPlace::of(mix_row_id(RowLayout::id_of(row)), part_bits), handle);
  });
}

void RowIndex::insert(RowPlace place, std::uint32_t handle) {
  std::uint32_t at = group_of(place);
  std::uint32_t vacant = 0;
  while ((vacant = groups()[at].vacant()) == 0) at = next(at);
  RowGroup& group = groups()[at];
  const auto slot = static_cast<std::size_t>(std::countr_zero(vacant));
  if (group.control[slot] == RowGroup::kDeleted) --n_deleted_;
  group.control[slot] = place.tag;
  group.handles[slot] = handle;
  ++n_rows_;
}

void RowIndex::erase(RowPlace place, std::uint32_t handle) {
  for (std::uint32_t at = group_of(place);; at = next(at)) {
    RowGroup& group = groups()[at];
    for (std::uint32_t bits = group.match(place.tag); bits != 0; bits &= bits - 1) {
      const auto slot = static_cast<std::size_t>(std::countr_zero(bits));
      if (group.handles[slot] != handle) continue;
      // A group with an empty slot has never been full since this was built: no lookup goes past it.
      const bool was_full = group.empty() == 0;
      group.control[slot] = was_full ? RowGroup::kDeleted : RowGroup::kEmpty;
      n_deleted_ += was_full ? 1 : 0;
      --n_rows_;
      return;
    }
  }
}

}  // namespace varscope
