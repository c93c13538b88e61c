// Rows are found by their ids whatever these are, in little memory, and stay where they are.
#include "ps/tables/row_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "ps/tables/row_arena.h"

namespace varscope {
namespace {

constexpr std::uint64_t kLeast = std::uint64_t{1} << 63;  // INT64_MIN
const std::vector<std::uint64_t> kExtremes = {
    kLeast, ~std::uint64_t{1}, ~std::uint64_t{0}, 0, kLeast - 1, 1, unmix_row_id(~std::uint64_t{0})};

// One part: an arena and its index.
class Rows {
 public:
  explicit Rows(std::size_t row_bytes = 24, int part_bits = 0)
      : pool(row_bytes), arena(pool), bits_(part_bits) {}
  RowPlace place(std::uint64_t id) const { return RowPlace::of(mix_row_id(id), bits_); }
  std::uint32_t add(std::uint64_t id) {
    index.reserve(index.n_rows() + 1, arena, bits_);
    std::uint32_t handle = arena.first_free();
    if (handle == RowArena::kNone) {
      handle = arena.append();
    } else {
      arena.take_free();
    }
    RowLayout::set_id(arena.row(handle), id);
    index.insert(place(id), handle);
    return handle;
  }
  void remove(std::uint64_t id) {
    const std::uint32_t handle = index.find(place(id), id, arena);
    index.erase(place(id), handle);
    arena.free(handle);
  }
  std::uint32_t find(std::uint64_t id) const {
    const RowGroup* const begin = index.begin(place(id));
    const std::uint32_t found = index.find(place(id), id, arena);
    // A candidate may be another row; that there is none is certain.
    if (index.candidate(begin, place(id)) == RowIndex::kNone) {
      EXPECT_EQ(found, RowIndex::kNone);
    }
    return found;
  }

  SlabPool pool;
  RowArena arena;
  RowIndex index;

 private:
  int bits_;
};

void expect_like_a_map(int part_bits, const std::vector<std::uint64_t>& ids) {
  Rows rows(24, part_bits);
  std::map<std::uint64_t, std::uint32_t> expected;
  std::mt19937_64 random(5);
  for (int i = 0; i < 40'000; ++i) {
    const std::uint64_t id = ids[random() % ids.size()];
    const auto known = expected.find(id);
    ASSERT_EQ(rows.find(id), known == expected.end() ? RowIndex::kNone : known->second) << i << ": " << id;
    if (known == expected.end() && random() % 2 == 0) expected[id] = rows.add(id);
  }
  for (const auto& [id, handle] : expected) ASSERT_EQ(rows.find(id), handle) << id;
  EXPECT_EQ(rows.index.n_rows(), expected.size());
}

TEST(RowIndex, FindsWhatAMapFinds) {
  std::vector<std::uint64_t> ids = kExtremes;
  std::mt19937_64 random(1);
  while (ids.size() < 20'000) ids.push_back(random());
  expect_like_a_map(0, ids);
  expect_like_a_map(10, ids);  // as if all were of one part: only the lower bits of the mixed ids differ
}

// Places and slots of what has been removed are used again; where many groups are full, marks make it slow
// and large unless it is built anew.
void expect_like_a_map_with_removals(const std::vector<std::uint64_t>& ids, std::size_t most) {
  Rows rows;
  std::map<std::uint64_t, std::uint32_t> expected;
  std::mt19937_64 random(5);
  std::size_t greatest = 0;
  for (int i = 0; i < 200'000; ++i) {
    const std::uint64_t id = ids[random() % ids.size()];
    const auto known = expected.find(id);
    ASSERT_EQ(rows.find(id), known == expected.end() ? RowIndex::kNone : known->second) << i << ": " << id;
    const bool is_more = expected.size() < most && random() % 8 != 0;
    if (known == expected.end() && is_more) {
      expected[id] = rows.add(id);
    } else if (known != expected.end() && !is_more) {
      rows.remove(id);
      expected.erase(known);
    }
    ASSERT_EQ(rows.index.n_rows(), expected.size());
    greatest = std::max(greatest, expected.size());
  }
  for (const std::uint64_t id : ids) {
    const auto known = expected.find(id);
    ASSERT_EQ(rows.find(id), known == expected.end() ? RowIndex::kNone : known->second);
  }
  EXPECT_EQ(rows.arena.end(), greatest);
  EXPECT_LE(rows.index.n_slots(), std::max<std::size_t>(16, 3 * greatest));
  for (const auto& [id, handle] : std::map(expected)) rows.remove(id);
  for (const std::uint64_t id : ids) ASSERT_EQ(rows.find(id), RowIndex::kNone);
}

TEST(RowIndex, FindsWhatAMapFindsWhenRowsComeAndGo) {
  std::vector<std::uint64_t> ids = kExtremes, alike;
  std::mt19937_64 random(1);
  while (ids.size() < 5'000) ids.push_back(random());
  for (std::uint64_t i = 0; i < 300; ++i) alike.push_back(unmix_row_id(std::uint64_t{0x2a} | i << 7));
  for (const std::size_t most : {10U, 100U, 1'000U, 3'000U}) {
    expect_like_a_map_with_removals(ids, most);
    expect_like_a_map_with_removals(alike, std::min<std::size_t>(most, 200));
  }
}

TEST(RowArena, GivesFreePlacesAgainAndPassesThem) {
  SlabPool pool(24);
  RowArena arena(pool);
  EXPECT_EQ(arena.n_slabs(), 0U);
  for (std::uint32_t i = 0; i < 5'000; ++i) RowLayout::set_id(arena.row(arena.append()), i);
  const std::size_t bytes = pool.n_bytes() + arena.n_bytes();
  for (std::uint32_t i = 0; i < 5'000; i += 3) arena.free(i);
  std::uint32_t n = 0;
  arena.for_each([&](std::uint32_t handle, const std::byte* row) {
    EXPECT_NE(handle % 3, 0U);
    EXPECT_EQ(RowLayout::id_of(row), handle);
    EXPECT_EQ(arena.row(handle), row);
    ++n;
  });
  EXPECT_EQ(n, 3'333U);
  for (; arena.first_free() != RowArena::kNone; ++n) {
    const std::byte* const row = arena.row(arena.first_free());
    EXPECT_TRUE(RowArena::is_free(row));
    arena.take_free();
    for (int i = 0; i < 24; ++i) ASSERT_EQ(row[i], std::byte{0});
  }
  EXPECT_EQ(n, 5'000U);
  EXPECT_EQ(arena.append(), 5'000U);
  EXPECT_EQ(pool.n_bytes() + arena.n_bytes(), bytes);
}

TEST(RowIndex, FindsIdsThatDifferInFewBits) {
  std::vector<std::uint64_t> low, high, alike;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    low.push_back(i);
    high.push_back(i << 32);
    // The same tag, and all in one group: each lookup passes rows that are not the one.
    alike.push_back(unmix_row_id(std::uint64_t{0x2a} | i << 7));
  }
  expect_like_a_map(0, low);
  expect_like_a_map(0, high);
  alike.resize(300);
  expect_like_a_map(0, alike);
}

TEST(RowIndex, NoIdIsReserved) {
  Rows rows;
  for (const std::uint64_t id : kExtremes) EXPECT_EQ(rows.find(id), RowIndex::kNone);
  for (std::uint32_t i = 0; i < kExtremes.size(); ++i) EXPECT_EQ(rows.add(kExtremes[i]), i);
  for (std::uint32_t i = 0; i < kExtremes.size(); ++i) EXPECT_EQ(rows.find(kExtremes[i]), i);
}

TEST(RowIndex, IsEmptyAtFirstAndBetweenSevenSixteenthsAndSevenEighthsFull) {
  Rows rows;
  EXPECT_EQ(rows.index.n_bytes(), 0U);
  EXPECT_EQ(rows.arena.n_bytes(), 0U);
  EXPECT_EQ(rows.pool.n_bytes(), 0U);
  EXPECT_EQ(rows.find(0), RowIndex::kNone);
  for (std::uint64_t id = 1; id <= 30'000; ++id) {
    rows.add(id);
    const std::size_t slots = rows.index.n_slots();
    ASSERT_LE(8 * id, 7 * slots);
    ASSERT_TRUE(slots == 16 || 16 * id > 7 * slots) << id;
    ASSERT_EQ(rows.index.n_bytes(), 5 * slots);
  }
}

TEST(RowIndex, GroupsAreTheSameWithAndWithoutVectors) {
  std::mt19937 random(2);
  for (int i = 0; i < 1'000; ++i) {
    RowGroup group{};
    for (std::uint8_t& c : group.control)
      c = random() % 3 == 0   ? RowGroup::kEmpty
          : random() % 3 == 0 ? RowGroup::kDeleted
                              : static_cast<std::uint8_t>(random() % 4 * 42);
    EXPECT_EQ(group.vacant(), group.vacant_scalar());
    for (const int tag : {0, 42, 84, 126, 127, 128, 255})
      EXPECT_EQ(group.match(static_cast<std::uint8_t>(tag)),
                group.match_scalar(static_cast<std::uint8_t>(tag)));
  }
}

// Beyond 256 MiB a thread touches the next chunk while one is cut: its memory is zero and one's own.
TEST(SlabPool, LargeChunksAreTouchedAhead) {
  constexpr std::size_t kSlab = std::size_t{64} << 10;
  for (const std::size_t n : {4'500U, 4'100U}) {
    SlabPool pool(1'024);
    std::vector<std::byte*> slabs;
    for (std::size_t i = 0; i < n; ++i) {
      slabs.push_back(pool.take(kSlab));
      if (i < 4'000) continue;  // those before are not touched
      ASSERT_EQ(slabs.back()[0], std::byte{0});
      ASSERT_EQ(slabs.back()[kSlab - 1], std::byte{0});
      std::memcpy(slabs.back(), &i, sizeof(i));
    }
    for (std::size_t i = 4'000; i < n; ++i) ASSERT_EQ(std::memcmp(slabs[i], &i, sizeof(i)), 0) << i;
    std::ranges::sort(slabs);
    for (std::size_t i = 1; i < n; ++i)
      ASSERT_GE(slabs[i] - slabs[i - 1], static_cast<std::ptrdiff_t>(kSlab));
    EXPECT_GE(pool.n_bytes(), n * kSlab);
    EXPECT_LE(pool.n_bytes(), n * kSlab * 17 / 16);
  }
}

// Rows are whole, apart, zero at first, and where they were, in slabs of about 1 to 64 KiB that are nearly
// all used; slabs() has them in order of their handles.
TEST(RowArena, HoldsRowsOfAnyLength) {
  for (const std::size_t row_bytes : {16UL, 24UL, 80UL, 1'024UL, 65'536UL + 16, 2'100'000UL}) {
    const std::uint32_t n = row_bytes < 100 ? 100'000 : row_bytes < 2'000 ? 5'000 : 20;
    SlabPool pool(row_bytes);
    RowArena arena(pool);
    std::vector<std::byte*> at;
    for (std::uint32_t i = 0; i < n; ++i) {
      ASSERT_EQ(arena.append(), i);
      at.push_back(arena.row(i));
      ASSERT_EQ(at.back()[0], std::byte{0});
      ASSERT_EQ(at.back()[row_bytes - 1], std::byte{0});
      std::memcpy(at.back() + row_bytes - 4, &i, 4);
      const std::size_t used = (i + 1) * row_bytes, pages = used < (16 << 20) ? 8 << 10 : 2 << 20;
      ASSERT_LE(pool.n_bytes(), used + used / 8 + std::max<std::size_t>(1 << 10, row_bytes) + pages) << i;
    }
    std::vector<RowArena::SlabView> slabs;
    arena.slabs(n, slabs);
    ASSERT_EQ(slabs.size(), arena.n_slabs());
    std::uint32_t next = 0;
    for (std::uint32_t s = 0; s < slabs.size(); ++s) {
      ASSERT_LE(slabs[s].rows.size(), std::max<std::size_t>(64 << 10, row_bytes));
      for (std::size_t from = 0; from < slabs[s].rows.size(); from += row_bytes, ++next) {
        ASSERT_EQ(slabs[s].rows.data() + from, at[next]);
        ASSERT_EQ(arena.row(next), at[next]);
        ASSERT_EQ(arena.slab_of(next), s);
        std::uint32_t mark = 0;
        std::memcpy(&mark, at[next] + row_bytes - 4, 4);
        ASSERT_EQ(mark, next);
      }
    }
    EXPECT_EQ(next, n);
    arena.slabs(1, slabs);
    EXPECT_EQ(slabs.size(), 1U);
    EXPECT_EQ(slabs[0].rows.size(), row_bytes);
    arena.slabs(0, slabs);
    EXPECT_TRUE(slabs.empty());
  }
}

TEST(RowArena, KnowsTheGreatestLastOfEachSlab) {
  SlabPool pool(1'024);  // the first slabs have one row
  RowArena arena(pool);
  for (int i = 0; i < 3; ++i) arena.append();
  arena.touch(1, 7);
  arena.touch(1, 5);
  arena.touch(2, 9);
  EXPECT_EQ(arena.greatest_last(0), 0U);
  EXPECT_EQ(arena.greatest_last(1), 7U);
  EXPECT_EQ(arena.greatest_last(2), 9U);
}

}  // namespace
}  // namespace varscope
