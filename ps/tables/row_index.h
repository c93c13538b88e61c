#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/base/row_id.h"
#include "common/base/tensor.h"
#include "common/variables/row_layout.h"
#include "ps/tables/row_arena.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace varscope {

// Where an id belongs in the index of its part: what mix_row_id() gives without the bits that name the part.
struct RowPlace {
  std::uint64_t order = 0;  // ascends with the mixed id
  std::uint8_t tag = 0;     // 7 bits
  static RowPlace of(std::uint64_t mixed, int part_bits) {
    return {mixed << part_bits, static_cast<std::uint8_t>(mixed & 0x7f)};
  }
};

// Sixteen slots of a RowIndex: a control byte each, the tag of what is there, or kEmpty or kDeleted, and a
// handle. A deleted slot has been full, so that lookups went past its group.
struct RowGroup {
  static constexpr int kSlots = 16;
  static constexpr std::uint8_t kEmpty = 0x80, kDeleted = 0xff;
  std::array<std::uint8_t, kSlots> control;
  std::array<std::uint32_t, kSlots> handles;

  // Bit i: slot i has that control byte; is empty; has no row.
  std::uint32_t match(std::uint8_t control_byte) const;
  std::uint32_t empty() const { return match(kEmpty); }
  std::uint32_t vacant() const;
  // What these are defined by.
  std::uint32_t match_scalar(std::uint8_t byte) const {
    std::uint32_t bits = 0;
    for (int i = 0; i < kSlots; ++i) bits |= std::uint32_t{control[static_cast<std::size_t>(i)] == byte} << i;
    return bits;
  }
  std::uint32_t vacant_scalar() const { return match_scalar(kEmpty) | match_scalar(kDeleted); }
};
static_assert(sizeof(RowGroup) == 80);

#if defined(__SSE2__)
inline std::uint32_t RowGroup::match(std::uint8_t byte) const {
  const __m128i all = _mm_loadu_si128(reinterpret_cast<const __m128i*>(control.data()));
  return static_cast<std::uint32_t>(
      _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8(static_cast<char>(byte)))));
}
inline std::uint32_t RowGroup::vacant() const {
  return static_cast<std::uint32_t>(
      _mm_movemask_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(control.data()))));
}
#else
inline std::uint32_t RowGroup::match(std::uint8_t byte) const { return match_scalar(byte); }
inline std::uint32_t RowGroup::vacant() const { return vacant_scalar(); }
#endif

// Finds the rows of one part by id: an open-addressed hash table of handles in groups of 16, at most 7/8
// full, as Kulukundis's "Swiss table" (CppCon 2017) has them. It holds no ids: those are in the rows, in an
// arena that all calls are given. Without rows it has no memory. Groups are in the order of mixed ids, so
// that ascending lookups ascend in memory. What is erased from a full group leaves a mark that counts as
// full; when more than an eighth of the slots are marks, it is built anew. One thread.
class RowIndex {
 public:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  std::uint32_t n_rows() const { return n_rows_; }
  std::size_t n_slots() const { return std::size_t{n_groups_} * RowGroup::kSlots; }
  std::size_t n_bytes() const { return std::size_t{n_groups_} * sizeof(RowGroup); }

  // The handle of the row with `id`; kNone when there is none.
  std::uint32_t find(RowPlace place, std::uint64_t id, const RowArena& arena) const {
    return search(place, [&](std::uint32_t handle) { return RowLayout::id_of(arena.row(handle)) == id; });
  }
  // For many lookups at once: where one begins, which has been prefetched; later candidate(), whose row is
  // most often the one; later a look at its id. kNone: there is none for sure. Until the next reserve().
  const RowGroup* begin(RowPlace place) const {
    if (n_groups_ == 0) return nullptr;
    const RowGroup* const group = groups() + group_of(place);
    const auto* at = reinterpret_cast<const std::byte*>(group);
    __builtin_prefetch(at);
    __builtin_prefetch(at + sizeof(RowGroup) - 1);
    return group;
  }
  std::uint32_t candidate(const RowGroup* begin, RowPlace place) const {
    if (begin == nullptr) return kNone;
    const std::uint32_t bits = begin->match(place.tag);
    if (bits != 0) [[likely]]
      return begin->handles[static_cast<std::size_t>(std::countr_zero(bits))];
    if (begin->empty() != 0) return kNone;
    return search(place, [](std::uint32_t) { return true; });
  }

  // Whether reserve(n) would build it anew.
  bool is_full_for(std::uint32_t n) const;
  // Room for n rows in all; the arena has those that are here. Throws std::bad_alloc; then nothing has
  // changed.
  void reserve(std::uint32_t n, const RowArena& arena, int part_bits);
  // Adds a row that is not here. REQUIRES: reserve() has made room.
  void insert(RowPlace place, std::uint32_t handle);
  // REQUIRES: it is here.
  void erase(RowPlace place, std::uint32_t handle);

 private:
  std::uint32_t group_of(RowPlace place) const {
    return static_cast<std::uint32_t>((static_cast<unsigned __int128>(place.order) * n_groups_) >> 64);
  }
  std::uint32_t next(std::uint32_t group) const { return group + 1 == n_groups_ ? 0 : group + 1; }
  RowGroup* groups() const { return reinterpret_cast<RowGroup*>(memory_.get()); }
  template <class IsIt>
  std::uint32_t search(RowPlace place, const IsIt& is_it) const {
    if (n_groups_ == 0) return kNone;
    for (std::uint32_t at = group_of(place);; at = next(at)) {
      const RowGroup& group = groups()[at];
      for (std::uint32_t bits = group.match(place.tag); bits != 0; bits &= bits - 1) {
        const std::uint32_t handle = group.handles[static_cast<std::size_t>(std::countr_zero(bits))];
        if (is_it(handle)) return handle;
      }
      if (group.empty() != 0) return kNone;  // an eighth is: the loop ends
    }
  }

  AlignedBytes memory_;
  std::uint32_t n_groups_ = 0;
  std::uint32_t n_rows_ = 0;
  std::uint32_t n_deleted_ = 0;  // marks
};

}  // namespace varscope
