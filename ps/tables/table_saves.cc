// What of a table goes into files, and comes from them.
#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "ps/tables/table_shard_impl.h"

namespace varscope {

// Where a row that is not there yet is to be. `is_new`: nothing of this id can be there.
LocatedRow TableShard::Impl::place_of_restored(std::uint64_t id, int expected_part, bool is_new) const {
  const std::uint64_t mixed = mix_row_id(id);
  const int part = row_part(mixed, spec.parts);
  if (part != expected_part) {
    fail(ErrorKind::checkpoint, "table \"{}\": row {} is among those of part {}, but belongs to part {}",
         variable.name, id_text(spec.ids, id), expected_part, part);
  }
  LocatedRow at{part_at(part), RowPlace::of(mixed, part_bits)};
  if (is_new) return at;
  rows.locate(id, at);
  LocatedRow waits = at;
  if (waiting) waiting->locate(id, waits);
  if (at.row != nullptr || waits.row != nullptr) {
    fail(ErrorKind::checkpoint, "table \"{}\": row {} is there twice", variable.name, id_text(spec.ids, id));
  }
  return at;
}

void TableShard::Impl::check_records(int part, std::size_t n_bytes, std::size_t record_bytes,
                                     const char* what) const {
  part_at(part);
  if (n_bytes % record_bytes == 0) return;
  fail(ErrorKind::checkpoint, "table \"{}\": part {} has {} bytes, but a {} has {}", variable.name, part,
       n_bytes, what, record_bytes);
}

// Of a row that has all it needs.
void TableShard::Impl::finish_restored(const LocatedRow& at) {
  rows.added(at, RowLayout::last_of(at.row));
  rows.part(at.part).hash.add(RowLayout::id_of(at.row), values(at.row));
  look(at.row, clock.value);
}

LocatedRow TableShard::Impl::new_restored(std::uint64_t id, int part, std::uint32_t last, bool is_new) {
  LocatedRow at = place_of_restored(id, part, is_new);
  if (last == RowArena::kFree) {
    fail(ErrorKind::checkpoint, "table \"{}\": row {} occurred last in step {}, which no run has",
         variable.name, id_text(spec.ids, id), last);
  }
  const RowWrite write = make(rows, at, id, Clock(0));
  RowLayout::set_last(at.row, last);
  return at;
}

void TableShard::restore(int part, std::span<const std::byte> rows) {
  Impl& s = *impl_;
  const std::size_t row_bytes = s.layout.row_bytes();
  s.check_records(part, rows.size(), row_bytes, "row");
  const std::size_t place = s.part_at(part);
  // Ids that ascend, into a part of which there is nothing, are all new.
  const bool is_empty =
      s.rows.n_rows(place) == 0 && (!s.waiting || s.waiting->n_rows(place) == 0) && !rows.empty();
  std::optional<std::uint64_t> greatest;
  s.rows.reserve(place, rows.size() / row_bytes);
  for (std::size_t from = 0; from < rows.size(); from += row_bytes) {
    const std::byte* const row = rows.data() + from;
    const std::uint64_t id = RowLayout::id_of(row), mixed = mix_row_id(id);
    const bool is_new = is_empty && (!greatest || mixed > *greatest);
    greatest = std::max(greatest.value_or(mixed), mixed);
    const LocatedRow at = s.new_restored(id, part, RowLayout::last_of(row), is_new);
    std::memcpy(at.row, row, row_bytes);
    s.finish_restored(at);
  }
}

void TableShard::restore_values(std::uint64_t id, const std::byte* values, std::uint32_t last,
                                std::uint32_t count) {
  Impl& s = *impl_;
  const LocatedRow at = s.new_restored(id, s.table.part_of(id), last, false);
  std::byte* const value = at.row + RowLayout::kValuesAt;
  std::memcpy(value, values, s.layout.value_bytes());
  RowLayout::set_count(at.row, count);
  s.set_slots(at.row);
  if (!s.slots.empty()) s.optimizer.start_row_slots(s.layout.dtype(), value, s.slots, s.layout.units());
  s.finish_restored(at);
}

void TableShard::restore_waiting(int part, std::span<const std::byte> records) {
  Impl& s = *impl_;
  s.check_records(part, records.size(), PartRows::kWaitingBytes, "waiting id");
  for (std::size_t from = 0; from < records.size(); from += PartRows::kWaitingBytes) {
    const std::byte* const record = records.data() + from;
    const std::uint64_t id = RowLayout::id_of(record);
    const std::uint32_t last = RowLayout::last_of(record), count = RowLayout::count_of(record);
    if (count == 0 || count >= s.spec.entry || last == RowArena::kFree) {
      fail(
          ErrorKind::checkpoint,
          "table \"{}\": id {} has waited for its row with {} occurrences, the last in step {}, but entry is "
          "{}",
          name(), id_text(s.spec.ids, id), count, last, s.spec.entry);
    }
    LocatedRow at = s.place_of_restored(id, part, false);
    {
      const RowWrite write = s.make(*s.waiting, at, id, Clock(0));
      std::memcpy(at.row, record, PartRows::kWaitingBytes);
    }
    s.waiting->added(at, last);
  }
}

void TableShard::set_snapshot_limits(const SnapshotLimits& limits) {
  impl_->rows.snapshot().set_limits(limits);
  if (impl_->waiting) impl_->waiting->snapshot().set_limits(limits);
}

void TableShard::cut() {
  Impl& s = *impl_;
  const std::uint32_t least = s.least_last(s.clock);
  s.rows.snapshot().cut(s.clock, least);
  if (s.waiting) s.waiting->snapshot().cut(s.clock, least);
  s.removed.seal(s.clock);
}

void TableShard::end_cut() {
  if (impl_->waiting) impl_->waiting->snapshot().end();
  impl_->rows.snapshot().end();
}

void TableShard::reset_wait_budget() {
  impl_->rows.snapshot().reset_wait_budget();
  if (impl_->waiting) impl_->waiting->snapshot().reset_wait_budget();
}

// Of a cut that has ended.
void TableShard::Impl::release_memory() {
  if (rows.snapshot().is_active()) return;
  rows.snapshot().release_memory();
  if (waiting) waiting->snapshot().release_memory();
  removed.drop_forgotten();
}

// Without what is among the records: it has come back.
void TableShard::Impl::leave_out(std::vector<std::uint64_t>& ids, std::span<const std::byte> records,
                                 std::size_t record_bytes) {
  std::size_t at = 0;
  std::erase_if(ids, [&](std::uint64_t id) {
    const std::uint64_t mixed = mix_row_id(id);
    const auto its = [&] { return RowLayout::id_of(records.data() + at); };
    while (at < records.size() && mix_row_id(its()) < mixed) at += record_bytes;
    return at < records.size() && its() == id;
  });
}

void TableShard::read_part(int part, std::int64_t since, PartRows& read) {
  Impl& s = *impl_;
  read.clear();
  const bool can_lose = s.spec.when_full != WhenFull::error || s.spec.max_waiting > 0;
  read.is_all = since == kAll || (can_lose && !s.removed.read(s.part_at(part), since, read.removed));
  const std::uint32_t least = read.is_all ? 0 : static_cast<std::uint32_t>(since) + 1;
  s.rows.snapshot().read_part(part, least, read.rows);
  if (s.waiting) s.waiting->snapshot().read_part(part, least, read.waiting);
  if (read.is_all) read.removed.clear();
  std::ranges::sort(read.removed, {}, mix_row_id);
  const auto twice = std::ranges::unique(read.removed);
  read.removed.erase(twice.begin(), twice.end());
  Impl::leave_out(read.removed, read.rows, s.layout.row_bytes());
  Impl::leave_out(read.removed, read.waiting, PartRows::kWaitingBytes);
}

void TableShard::remember_removed(bool remember) { impl_->removed.remember(remember, impl_->clock); }
void TableShard::forget_removed(int part, Clock cut) { impl_->removed.forget(impl_->part_at(part), cut); }

const TableShard::SnapshotCosts& TableShard::snapshot_costs() const {
  const Impl& s = *impl_;
  s.costs = s.rows.snapshot().costs();
  if (!s.waiting) return s.costs;
  const SnapshotCosts& more = s.waiting->snapshot().costs();
  s.costs.copy_ns += more.copy_ns;
  s.costs.wait_ns += more.wait_ns;
  s.costs.copied_bytes += more.copied_bytes;
  return s.costs;
}

}  // namespace varscope
