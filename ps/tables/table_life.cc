// Which rows a table has: entry, expiry, limits.
#include <algorithm>
#include <limits>
#include <new>

#include "common/base/error.h"
#include "ps/tables/table_shard_impl.h"

namespace varscope {
namespace {

constexpr std::uint64_t kMostCount = std::numeric_limits<std::uint32_t>::max();

// A record by the order in which they leave: the smallest first.
struct Leaver {
  std::uint64_t key = 0;  // (last, count), or for lfu (count, last)
  std::uint64_t id = 0;
  std::uint32_t handle = 0;
  friend bool operator<(const Leaver& a, const Leaver& b) {
    return a.key != b.key ? a.key < b.key : a.id < b.id;
  }
};

Leaver leaver_of(const LocatedRow& at, WhenFull order) {
  const std::uint64_t last = RowLayout::last_of(at.row), count = RowLayout::count_of(at.row);
  return {order == WhenFull::lfu ? count << 32 | last : last << 32 | count, RowLayout::id_of(at.row),
          at.handle};
}

}  // namespace

std::uint32_t TableShard::Impl::least_last(Clock step) const {
  if (spec.expire_steps == 0) return 0;
  return static_cast<std::uint32_t>(std::max<std::int64_t>(0, step.value - spec.expire_steps));
}

// Of those that have no row.
void TableShard::Impl::locate_waiting(std::size_t n, const Batch& found, Batch& waits) const {
  std::array<std::uint64_t, kBatch> ids{};
  std::array<std::size_t, kBatch> at{};
  Batch asked;
  std::size_t n_asked = 0;
  for (std::size_t i = 0; i < n; ++i) {
    waits[i] = {found[i].part, found[i].place, RowIndex::kNone, nullptr};
    if (found[i].row != nullptr) continue;
    ids[n_asked] = merge.id(i);
    at[n_asked] = i;
    asked[n_asked++] = waits[i];
  }
  waiting->locate(ids.data(), n_asked, PartRows::kWaitingBytes, asked.data());
  for (std::size_t i = 0; i < n_asked; ++i) waits[at[i]] = asked[i];
}

// Counts the occurrences of an id that has no row: whether it gets one now. Whether it has been counted
// before is in `waits`.
bool TableShard::Impl::enters(LocatedRow waits, std::uint64_t id, std::uint64_t count, Clock step) {
  if (!waiting) return true;
  const bool is_there = RowStore::is_still(waits, id);
  if (is_there && !is_expired(waits.row, step)) count += RowLayout::count_of(waits.row);
  if (count >= static_cast<std::uint64_t>(spec.entry)) {
    if (is_there) waiting->remove(waits);
    return true;
  }
  const auto last = static_cast<std::uint32_t>(step.value);
  {
    const RowWrite write = is_there ? waiting->write(waits) : make(*waiting, waits, id, step);
    RowLayout::set_last(waits.row, last);
    RowLayout::set_count(waits.row, static_cast<std::uint32_t>(std::min(count, kMostCount)));
  }
  is_there ? waiting->touched(waits, last) : waiting->added(waits, last);
  return false;
}

// Where the part's index would grow, what has expired goes first.
RowWrite TableShard::Impl::make(RowStore& store, LocatedRow& at, std::uint64_t id, Clock step) {
  if (store.is_full(at.part)) sweep(store, at.part, step);
  try {
    return store.make(at, id);
  } catch (const std::bad_alloc&) {
    fail(ErrorKind::io,
         "table \"{}\": no memory for another row of {} bytes beside {} rows in {} MiB; use more servers, "
         "fewer units, or an optimizer with fewer slots",
         variable.name, layout.row_bytes(), rows.n_rows(),
         (rows.n_bytes() + (waiting ? waiting->n_bytes() : 0)) >> 20);
  }
}

void TableShard::Impl::remove_row(const LocatedRow& at) {
  rows.part(at.part).hash.remove(RowLayout::id_of(at.row), values(at.row));
  rows.remove(at);
}

void TableShard::Impl::sweep(RowStore& store, std::size_t part, Clock step) {
  store.remove_below(part, least_last(step), [&](const LocatedRow& at) {
    if (&store != &rows) return;
    ++counts.expired;
    rows.part(part).hash.remove(RowLayout::id_of(at.row), values(at.row));
  });
}

// Each part once in a quarter of the steps that a row lives: what has expired is kept for so long at most.
void TableShard::Impl::sweep_some(Clock step) {
  if (spec.expire_steps == 0 || parts.empty()) return;
  const std::int64_t round = std::max<std::int64_t>(1, spec.expire_steps / 4);
  const auto n_parts = static_cast<std::int64_t>(parts.size());
  sweep_credit = std::min(sweep_credit + n_parts, n_parts * round);
  for (; sweep_credit >= round; sweep_credit -= round) {
    sweep(rows, next_swept, step);
    if (waiting) sweep(*waiting, next_swept, step);
    next_swept = next_swept + 1 == parts.size() ? 0 : next_swept + 1;
  }
}

// Removal comes after a part's updates, which know where its rows are.
void TableShard::Impl::end_part(std::size_t part, Clock step) {
  if (spec.max_waiting > 0 && waiting) limit_waiting(part, step);
  if (spec.max_rows > 0) limit_rows(part, step);
}

void TableShard::Impl::limit_waiting(std::size_t part, Clock step) {
  const std::int64_t most = spec.most_waiting_of_part();
  if (waiting->n_rows(part) <= most) return;
  sweep(*waiting, part, step);
  if (waiting->n_rows(part) <= most) return;
  const std::int64_t n = waiting->n_rows(part) - TableSpec::kept_of(most);
  counts.waiting_dropped += n;
  evict(*waiting, part, static_cast<std::size_t>(n), WhenFull::lru, RowArena::kFree);
}

void TableShard::Impl::limit_rows(std::size_t part, Clock step) {
  const std::int64_t most = spec.most_rows_of_part();
  if (rows.n_rows(part) <= most) return;
  sweep(rows, part, step);
  if (rows.n_rows(part) <= most) return;
  const auto now = static_cast<std::uint32_t>(step.value);
  std::int64_t n_older = 0;
  rows.for_each(part, [&](const LocatedRow& at) { n_older += RowLayout::last_of(at.row) < now ? 1 : 0; });
  const std::int64_t n_rows = rows.n_rows(part);
  if (n_rows - n_older > most) {
    fail(ErrorKind::data,
         "table \"{}\": step {} has touched {} rows of part {}, which may hold {} (max_rows {} / {} parts), "
         "and a step removes none of its own; lower train.batch, or raise max_rows",
         variable.name, step.value, n_rows - n_older, parts[part], most, spec.max_rows, spec.parts);
  }
  if (spec.when_full == WhenFull::error) fail_full(part, step);
  const std::int64_t n = std::min(n_older, n_rows - TableSpec::kept_of(most));
  counts.evicted += n;
  evict(rows, part, static_cast<std::size_t>(n), spec.when_full, now);
}

// Removes the first n to leave, among those that occurred last before step `before`.
void TableShard::Impl::evict(RowStore& store, std::size_t part, std::size_t n, WhenFull order,
                             std::uint32_t before) {
  std::vector<Leaver> all;
  all.reserve(store.n_rows(part));
  store.for_each(part, [&](const LocatedRow& at) {
    if (RowLayout::last_of(at.row) < before) all.push_back(leaver_of(at, order));
  });
  if (n < all.size()) std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end());
  const std::size_t most_named = (rows.n_rows(part) + (waiting ? waiting->n_rows(part) : 0)) / 2;
  for (const Leaver& leaver : std::span(all).first(n)) {
    const LocatedRow at{part, RowPlace::of(mix_row_id(leaver.id), part_bits), leaver.handle,
                        store.part(part).arena.row(leaver.handle)};
    removed.add(part, leaver.id, most_named);
    &store == &rows ? remove_row(at) : store.remove(at);
  }
}

void TableShard::Impl::fail_full(std::size_t part, Clock step) const {
  std::int64_t greatest = 0, all = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::int64_t n = n_live(rows, i, step);
    greatest = std::max(greatest, n);
    all += n;
  }
  fail(
      ErrorKind::data,
      "table \"{}\": part {} has {} rows after step {}, but may hold {} (max_rows {} / {} parts); the parts of "
      "server {} have {} rows at most, {} on average; raise max_rows, or let rows leave: when_full: lru, or "
      "expire_steps",
      variable.name, parts[part], rows.n_rows(part), step.value, spec.most_rows_of_part(), spec.max_rows,
      spec.parts, server.value, greatest, all / static_cast<std::int64_t>(parts.size()));
}

// Whatever has been swept.
std::int64_t TableShard::Impl::n_live(const RowStore& store, std::size_t part, Clock step) const {
  std::int64_t n = store.n_rows(part);
  const std::uint32_t least = least_last(step);
  if (!store.may_have_below(part, least)) return n;
  store.for_each(part, [&](const LocatedRow& at) { n -= RowLayout::last_of(at.row) < least ? 1 : 0; });
  return n;
}

RowHashSum TableShard::Impl::live_hash(std::size_t part) const {
  RowHashSum hash = rows.part(part).hash;
  const std::uint32_t least = least_last(clock);
  if (!rows.may_have_below(part, least)) return hash;
  rows.for_each(part, [&](const LocatedRow& at) {
    if (RowLayout::last_of(at.row) < least) hash.remove(RowLayout::id_of(at.row), values(at.row));
  });
  return hash;
}

std::int64_t TableShard::n_rows() const {
  std::int64_t n = 0;
  for (std::size_t i = 0; i < impl_->parts.size(); ++i) n += impl_->n_live(impl_->rows, i, impl_->clock);
  return n;
}
std::int64_t TableShard::n_rows(int part) const {
  return impl_->n_live(impl_->rows, impl_->part_at(part), impl_->clock);
}
std::int64_t TableShard::n_waiting(int part) const {
  const std::size_t at = impl_->part_at(part);
  return impl_->waiting ? impl_->n_live(*impl_->waiting, at, impl_->clock) : 0;
}

std::int64_t TableShard::n_waiting() const {
  std::int64_t n = 0;
  if (!impl_->waiting) return n;
  for (std::size_t i = 0; i < impl_->parts.size(); ++i) n += impl_->n_live(*impl_->waiting, i, impl_->clock);
  return n;
}
const TableShard::TableCounts& TableShard::counts() const { return impl_->counts; }
TableReport TableShard::report() const {
  const TableCounts& c = counts();
  return {name(), n_rows(), n_waiting(), c.evicted, c.expired, c.waiting_dropped};
}

void TableShard::add_hashes(HashReport& report) const {
  for (std::size_t i = 0; i < impl_->parts.size(); ++i) {
    if (impl_->n_live(impl_->rows, i, impl_->clock) > 0)
      report.entries.push_back({name(), impl_->parts[i], impl_->live_hash(i).digest()});
  }
}
RowHashSum TableShard::hash_sum(int part) const { return impl_->live_hash(impl_->part_at(part)); }

}  // namespace varscope
