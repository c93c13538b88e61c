#include "ps/tables/row_store.h"

#include <algorithm>
#include <array>
#include <new>

#include "ps/tables/row_merge.h"

namespace varscope {
namespace {

constexpr std::size_t kBatch = RowMerge::kBatch;
constexpr std::size_t kLine = 64, kMostPrefetched = 8 * kLine;

}  // namespace

RowStore::RowStore(const std::string& table, const std::vector<int>& parts, std::size_t record_bytes,
                   int part_bits)
    : part_bits_(part_bits),
      pool_(record_bytes),
      oldest_(parts.size(), kNoStep),
      snapshot_(table, parts, parts_, record_bytes) {
  parts_.reserve(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) parts_.emplace_back(pool_);
}

std::int64_t RowStore::n_rows() const {
  std::int64_t n = 0;
  for (const TablePart& part : parts_) n += part.index.n_rows();
  return n;
}

std::size_t RowStore::n_bytes() const {
  std::size_t n = pool_.n_bytes() + snapshot_.n_bytes() + parts_.capacity() * sizeof(TablePart) +
                  oldest_.capacity() * sizeof(std::uint32_t);
  for (const TablePart& part : parts_) n += part.index.n_bytes() + part.arena.n_bytes();
  return n;
}

// Each stage asks for what the next one reads, of all rows: their misses overlap.
void RowStore::locate(const std::uint64_t* ids, std::size_t n, std::size_t n_bytes, LocatedRow* found) const {
  std::array<const RowGroup*, kBatch> groups;
  std::array<RowArena::Lead, kBatch> leads;
  for (std::size_t i = 0; i < n; ++i) groups[i] = parts_[found[i].part].index.begin(found[i].place);
  for (std::size_t i = 0; i < n; ++i) {
    const TablePart& part = parts_[found[i].part];
    found[i].handle = part.index.candidate(groups[i], found[i].place);
    if (found[i].handle != RowIndex::kNone) leads[i] = part.arena.lead(found[i].handle);
  }
  const std::size_t n_fetched = std::min(n_bytes, kMostPrefetched);
  for (std::size_t i = 0; i < n; ++i) {
    found[i].row = nullptr;
    if (found[i].handle == RowIndex::kNone) continue;
    found[i].row = leads[i].row();
    for (std::size_t at = 0; at < n_fetched; at += kLine) __builtin_prefetch(found[i].row + at);
    __builtin_prefetch(found[i].row + n_fetched - 1);
  }
  for (std::size_t i = 0; i < n; ++i) {
    if (found[i].row != nullptr && RowLayout::id_of(found[i].row) != ids[i]) locate(ids[i], found[i]);
  }
}

void RowStore::locate(std::uint64_t id, LocatedRow& at) const {
  const TablePart& part = parts_[at.part];
  at.handle = part.index.find(at.place, id, part.arena);
  at.row = at.handle == RowIndex::kNone ? nullptr : part.arena.row(at.handle);
}

void RowStore::reserve(std::size_t part, std::size_t n) {
  if (n > RowArena::kMostRows) throw std::bad_alloc();
  parts_[part].index.reserve(std::max(n_rows(part), static_cast<std::uint32_t>(n)), parts_[part].arena,
                             part_bits_);
}

RowWrite RowStore::make(LocatedRow& at, std::uint64_t id) {
  TablePart& part = parts_[at.part];
  part.index.reserve(n_rows(at.part) + 1, part.arena, part_bits_);
  at.handle = part.arena.first_free();
  const bool is_free = at.handle != RowArena::kNone;
  if (!is_free) {
    if (part.arena.end() == RowArena::kMostRows) throw std::bad_alloc();
    at.handle = part.arena.append();
  }
  at.row = part.arena.row(at.handle);
  RowWrite write = this->write(at);  // a free place may be in a slab that is being read
  if (is_free) part.arena.take_free();
  RowLayout::set_id(at.row, id);
  RowLayout::set_last(at.row, RowArena::kFree);  // until it has one, readers take it for none
  part.index.insert(at.place, at.handle);
  return write;
}

void RowStore::remove(const LocatedRow& at) {
  TablePart& part = parts_[at.part];
  const RowWrite write = this->write(at);
  part.index.erase(at.place, at.handle);
  part.arena.free(at.handle);
}

}  // namespace varscope
