#include "ps/tables/table_shard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <new>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/variables/variable_table.h"
#include "ps/tables/row_merge.h"
#include "ps/tables/row_snapshot.h"
#include "ps/tables/table_part.h"
#include "ps/update/update_kernels.h"

namespace varscope {
namespace {

constexpr std::size_t kBatch = RowMerge::kBatch;
constexpr std::size_t kLine = 64, kMostPrefetched = 8 * kLine;

template <class T>
T* as(std::byte* memory) {
  return reinterpret_cast<T*>(memory);
}

// What has not been built for rows is refused, not left out.
const VariableSpec& checked_variable(const TableShard::Parts& parts) {
  const VariableSpec& v = parts.variable;
  const auto refuse = [&](const std::string& what) {
    fail(ErrorKind::argument, "table \"{}\": {}", v.name, what);
  };
  if (!v.is_table()) refuse("its variable is none");
  const auto kind = v.initializer.kind;
  if (kind == Initializer::Kind::values || kind == Initializer::Kind::orthogonal ||
      kind == Initializer::Kind::identity)
    refuse("rows cannot begin with " + v.initializer.str() + ": use constant, uniform or a normal");
  if (v.is_average()) refuse("rows cannot be moving averages");
  if (v.constraint.needs_norms()) refuse("rows cannot have the constraint " + v.constraint.str() + " yet");
  const ClipType clip = parts.optimizer.config().clip.type;
  if (v.trainable && clip != ClipType::none && clip != ClipType::value)
    refuse("gradients of rows are not clipped by a norm yet; use optimizer.clip.type value, or none");
  return v;
}

RowLayout layout_of(const TableShard::Parts& parts) {
  std::vector<RowSlot> slots;
  if (parts.variable.trainable) {
    for (const Slot& slot : parts.optimizer.row_slots())
      slots.push_back({slot.name, slot.is_per_row ? 1 : parts.table.units});
  }
  return {parts.table.dtype, parts.table.units, std::move(slots)};
}

// Where a row is, or where it would be.
struct Located {
  std::size_t part = 0;  // in parts()
  RowPlace place;
  std::uint32_t handle = RowIndex::kNone;
  std::byte* row = nullptr;  // null: there is none
};

}  // namespace

struct TableShard::Impl {
  explicit Impl(const Parts& p);

  std::size_t part_at(int part) const;
  void locate(const std::uint64_t* ids, const std::uint64_t* mixed, std::size_t n, std::size_t n_bytes,
              Located* found) const;
  void first_values(std::uint64_t id, std::byte* out) const;
  Located new_row(Located at, std::uint64_t id);
  Located place_of_restored(std::uint64_t id, int expected_part) const;
  void set_slots(std::byte* row);
  void update(const Located& at, std::uint64_t id, std::byte* gradient, Clock clock, double scale);
  void finish_row(const Located& at, std::uint32_t last);
  void look(const std::byte* row, std::int64_t clock);
  void look_at(const std::byte* row, int slot, std::int64_t clock);
  std::span<const std::byte> values(const std::byte* row) const {
    return {row + RowLayout::kValuesAt, layout.value_bytes()};
  }

  const VariableSpec& variable;
  const RowPlan::Table& table;
  ServerId server;
  const Optimizer& optimizer;
  RowLayout layout;
  InitialValues initial;
  Shape row_shape;
  int part_bits;
  std::vector<int> parts;
  std::vector<std::int32_t> at_of_part;  // in `parts`; -1: not here
  SlabPool pool;
  std::vector<TablePart> rows;  // of each of `parts`
  Clock clock{0};
  RowMerge merge;
  RowSnapshot snapshot;
  std::vector<std::byte*> slots;  // of the row that is being updated
  std::vector<NotFiniteFinding> not_finite;
  std::vector<bool> has_finding;  // of the values, then of each slot
};

TableShard::Impl::Impl(const Parts& p)
    : variable(checked_variable(p)),
      table(p.table),
      server(p.server),
      optimizer(p.optimizer),
      layout(layout_of(p)),
      initial(p.variable.initializer, p.seed, p.variable.full_name(), p.variable.full_shape()),
      row_shape({p.table.units}),
      part_bits(std::countr_zero(static_cast<unsigned>(p.table.spec.parts))),
      parts(p.table.parts_of(p.server)),
      at_of_part(static_cast<std::size_t>(p.table.spec.parts), -1),
      pool(layout.row_bytes()),
      merge(p.table.dtype, p.table.units),
      snapshot(variable.name, parts, rows, layout.row_bytes()),
      slots(layout.slots().size()),
      has_finding(layout.slots().size() + 1) {
  rows.reserve(parts.size());
  for (const int part : parts) {
    at_of_part[static_cast<std::size_t>(part)] = static_cast<std::int32_t>(rows.size());
    rows.emplace_back(pool);
  }
}

std::size_t TableShard::Impl::part_at(int part) const {
  const bool exists = part >= 0 && part < table.spec.parts;
  const std::int32_t at = exists ? at_of_part[static_cast<std::size_t>(part)] : -1;
  if (at < 0) fail(ErrorKind::argument, "table \"{}\": part {} is not on this server", variable.name, part);
  return static_cast<std::size_t>(at);
}

// Each stage asks for what the next one reads, of all rows: their misses overlap. n_bytes: of a row's
// beginning that will be needed.
void TableShard::Impl::locate(const std::uint64_t* ids, const std::uint64_t* mixed, std::size_t n,
                              std::size_t n_bytes, Located* found) const {
  std::array<const RowGroup*, kBatch> groups;
  std::array<RowArena::Lead, kBatch> leads;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t part = at_of_part[part_bits == 0 ? 0 : mixed[i] >> (64 - part_bits)];
    if (part < 0) [[unlikely]]
      part_at(row_part(mixed[i], table.spec.parts));  // throws
    found[i].part = static_cast<std::size_t>(part);
    found[i].place = RowPlace::of(mixed[i], part_bits);
    groups[i] = rows[found[i].part].index.begin(found[i].place);
  }
  for (std::size_t i = 0; i < n; ++i) {
    const TablePart& part = rows[found[i].part];
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
    if (found[i].row == nullptr || RowLayout::id_of(found[i].row) == ids[i]) continue;
    const TablePart& part = rows[found[i].part];
    found[i].handle = part.index.find(found[i].place, ids[i], part.arena);
    found[i].row = found[i].handle == RowIndex::kNone ? nullptr : part.arena.row(found[i].handle);
  }
}

void TableShard::Impl::first_values(std::uint64_t id, std::byte* out) const {
  VariableSpec::fill_row(TensorView(layout.dtype(), row_shape, out), initial, id);
}

// A row of zeros but for its id.
Located TableShard::Impl::new_row(Located at, std::uint64_t id) {
  TablePart& part = rows[at.part];
  try {
    if (part.arena.n_rows() == RowArena::kMostRows) throw std::bad_alloc();
    part.index.reserve(part.arena.n_rows() + 1, part.arena, part_bits);
    at.handle = part.arena.append();
  } catch (const std::bad_alloc&) {
    std::int64_t n = 0;
    for (const TablePart& p : rows) n += p.arena.n_rows();
    fail(ErrorKind::io,
         "table \"{}\": no memory for another row of {} bytes beside {} rows in {} MiB; use more servers, "
         "fewer units, or an optimizer with fewer slots",
         variable.name, layout.row_bytes(), n, pool.n_bytes() >> 20);
  }
  at.row = part.arena.row(at.handle);
  RowLayout::set_id(at.row, id);
  part.index.insert(at.place, at.handle);
  return at;
}

void TableShard::Impl::set_slots(std::byte* row) {
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = row + layout.slot_at(i);
}

void TableShard::Impl::update(const Located& known, std::uint64_t id, std::byte* gradient, Clock step,
                              double scale) {
  const std::int64_t units = layout.units();
  const ClipConfig& clip = optimizer.config().clip;
  if (clip.type == ClipType::value) {
    with_real(layout.dtype(),
              [&]<class T>(T) { kernels::clamp(as<T>(gradient), static_cast<T>(clip.limit), units); });
  }
  if (scale != 1) {
    with_real(layout.dtype(),
              [&]<class T>(T) { kernels::scale(as<T>(gradient), static_cast<T>(scale), units); });
  }
  const bool is_new = known.row == nullptr;
  const Located at = is_new ? new_row(known, id) : known;
  std::byte* const value = at.row + RowLayout::kValuesAt;
  RowHashSum& hash = rows[at.part].hash;
  set_slots(at.row);
  if (is_new) {
    first_values(id, value);
    if (!slots.empty()) optimizer.start_row_slots(layout.dtype(), value, slots, units);
  } else {
    hash.remove(id, values(at.row));
  }
  const bool is_claimed = !is_new && snapshot.begin_write(at.part, at.handle, at.row);
  const bool is_finite = optimizer.update_row(layout.dtype(), value, gradient, slots, units, step,
                                              std::int64_t{RowLayout::count_of(at.row)} + 1);
  if (variable.constraint.kind == Constraint::Kind::non_neg)
    with_real(layout.dtype(), [&]<class T>(T) { kernels::non_negative(as<T>(value), units); });
  const auto last = static_cast<std::uint32_t>(step.value);
  RowLayout::set_last(at.row, last);
  RowLayout::set_count(at.row, RowLayout::count_of(at.row) + 1);
  if (is_claimed) snapshot.end_write();
  rows[at.part].arena.touch(at.handle, last);
  hash.add(id, values(at.row));
  if (!is_finite) look(at.row, step.value);
}

void TableShard::Impl::look(const std::byte* row, std::int64_t at_clock) {
  for (int slot = -1; slot < static_cast<int>(layout.slots().size()); ++slot) look_at(row, slot, at_clock);
}

void TableShard::Impl::look_at(const std::byte* row, int slot, std::int64_t at_clock) {
  if (has_finding[static_cast<std::size_t>(slot + 1)]) return;
  const auto i = static_cast<std::size_t>(std::max(slot, 0));
  const std::span<const std::byte> bytes =
      slot < 0 ? values(row) : std::span<const std::byte>(row + layout.slot_at(i), layout.slot_bytes(i));
  const auto found = find_not_finite(layout.dtype(), bytes);
  if (!found) return;
  has_finding[static_cast<std::size_t>(slot + 1)] = true;
  not_finite.push_back({NotFiniteFinding::Where::value, at_clock, variable.name,
                        slot < 0 ? "" : layout.slots()[i].name, found->element, found->what,
                        id_text(table.spec.ids, RowLayout::id_of(row))});
}

// Where a row that is not there yet is to be.
Located TableShard::Impl::place_of_restored(std::uint64_t id, int expected_part) const {
  const std::uint64_t mixed = mix_row_id(id);
  const int part = row_part(mixed, table.spec.parts);
  if (part != expected_part) {
    fail(ErrorKind::checkpoint, "table \"{}\": row {} is among those of part {}, but belongs to part {}",
         variable.name, id_text(table.spec.ids, id), expected_part, part);
  }
  const Located at{part_at(part), RowPlace::of(mixed, part_bits)};
  if (rows[at.part].index.find(at.place, id, rows[at.part].arena) != RowIndex::kNone) {
    fail(ErrorKind::checkpoint, "table \"{}\": row {} is there twice", variable.name,
         id_text(table.spec.ids, id));
  }
  return at;
}

// Of a row that has all it needs.
void TableShard::Impl::finish_row(const Located& at, std::uint32_t last) {
  rows[at.part].arena.touch(at.handle, last);
  rows[at.part].hash.add(RowLayout::id_of(at.row), values(at.row));
  look(at.row, clock.value);
}

TableShard::TableShard(const Parts& parts) : impl_(std::make_unique<Impl>(parts)) {}
TableShard::~TableShard() = default;

const VariableSpec& TableShard::variable() const { return impl_->variable; }
const RowPlan::Table& TableShard::table() const { return impl_->table; }
ServerId TableShard::server() const { return impl_->server; }
const std::string& TableShard::name() const { return impl_->variable.name; }
const RowLayout& TableShard::layout() const { return impl_->layout; }
const std::vector<int>& TableShard::parts() const { return impl_->parts; }
Clock TableShard::clock() const { return impl_->clock; }
void TableShard::set_clock(Clock clock) { impl_->clock = clock; }

std::int64_t TableShard::n_rows() const {
  std::int64_t n = 0;
  for (const TablePart& part : impl_->rows) n += part.arena.n_rows();
  return n;
}
std::int64_t TableShard::n_rows(int part) const { return impl_->rows[impl_->part_at(part)].arena.n_rows(); }

std::int64_t TableShard::n_bytes() const {
  const Impl& s = *impl_;
  std::size_t n = sizeof(Impl) + s.pool.n_bytes() + s.merge.n_bytes() + s.snapshot.n_bytes() +
                  s.rows.capacity() * sizeof(TablePart) + s.parts.capacity() * sizeof(int) +
                  s.at_of_part.capacity() * sizeof(std::int32_t);
  for (const TablePart& part : s.rows) n += part.index.n_bytes() + part.arena.n_bytes();
  return static_cast<std::int64_t>(n);
}

void TableShard::read(std::span<const std::uint64_t> ids, Clock, std::byte* out) const {
  const std::size_t row_bytes = impl_->layout.value_bytes();
  std::array<std::uint64_t, kBatch> mixed{};
  std::array<Located, kBatch> found;
  for (std::size_t begin = 0; begin < ids.size(); begin += kBatch) {
    const std::size_t n = std::min(kBatch, ids.size() - begin);
    for (std::size_t i = 0; i < n; ++i) mixed[i] = mix_row_id(ids[begin + i]);
    impl_->locate(&ids[begin], mixed.data(), n, RowLayout::kValuesAt + row_bytes, found.data());
    for (std::size_t i = 0; i < n; ++i, out += row_bytes) {
      if (found[i].row != nullptr) {
        std::memcpy(out, found[i].row + RowLayout::kValuesAt, row_bytes);
      } else {
        impl_->first_values(ids[begin + i], out);
      }
    }
  }
}

void TableShard::apply(Clock clock, std::span<const Contribution> contributions, const ReductionTree& tree,
                       double scale) {
  Impl& s = *impl_;
  if (clock <= s.clock || clock.value >= std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorKind::argument, "table \"{}\": step {} cannot be applied after step {}", name(), clock.value,
         s.clock.value);
  }
  if (!s.snapshot.is_active()) s.snapshot.release_memory();
  s.merge.begin(contributions, tree);
  std::array<std::uint64_t, kBatch> ids{}, mixed{};
  std::array<Located, kBatch> found;
  while (const std::size_t n = s.variable.trainable ? s.merge.next() : 0) {
    for (std::size_t i = 0; i < n; ++i) {
      ids[i] = s.merge.id(i);
      mixed[i] = s.merge.mixed(i);
    }
    s.locate(ids.data(), mixed.data(), n, s.layout.row_bytes(), found.data());
    for (std::size_t i = 0; i < n; ++i) s.update(found[i], ids[i], s.merge.sum(i), clock, scale);
  }
  s.clock = clock;
}

const std::vector<NotFiniteFinding>& TableShard::not_finite() const { return impl_->not_finite; }

void TableShard::add_hashes(HashReport& report) const {
  for (std::size_t i = 0; i < impl_->parts.size(); ++i) {
    const TablePart& part = impl_->rows[i];
    if (part.arena.n_rows() > 0) report.entries.push_back({name(), impl_->parts[i], part.hash.digest()});
  }
}
RowHashSum TableShard::hash_sum(int part) const { return impl_->rows[impl_->part_at(part)].hash; }

void TableShard::restore(int part, std::span<const std::byte> rows) {
  Impl& s = *impl_;
  const std::size_t row_bytes = s.layout.row_bytes();
  if (rows.size() % row_bytes != 0) {
    fail(ErrorKind::checkpoint, "table \"{}\": part {} has {} bytes, but a row has {}", name(), part,
         rows.size(), row_bytes);
  }
  s.part_at(part);
  for (std::size_t from = 0; from < rows.size(); from += row_bytes) {
    const std::byte* const row = rows.data() + from;
    const std::uint64_t id = RowLayout::id_of(row);
    const Located at = s.new_row(s.place_of_restored(id, part), id);
    std::memcpy(at.row, row, row_bytes);
    s.finish_row(at, RowLayout::last_of(row));
  }
}

void TableShard::restore_values(std::uint64_t id, const std::byte* values, std::uint32_t last,
                                std::uint32_t count) {
  Impl& s = *impl_;
  const Located at = s.new_row(s.place_of_restored(id, s.table.part_of(id)), id);
  std::byte* const value = at.row + RowLayout::kValuesAt;
  std::memcpy(value, values, s.layout.value_bytes());
  RowLayout::set_last(at.row, last);
  RowLayout::set_count(at.row, count);
  s.set_slots(at.row);
  if (!s.slots.empty()) s.optimizer.start_row_slots(s.layout.dtype(), value, s.slots, s.layout.units());
  s.finish_row(at, last);
}

void TableShard::set_snapshot_limits(const SnapshotLimits& limits) { impl_->snapshot.set_limits(limits); }
void TableShard::cut() { impl_->snapshot.cut(impl_->clock); }
void TableShard::reset_wait_budget() { impl_->snapshot.reset_wait_budget(); }
void TableShard::restore_waiting(int part, std::span<const std::byte>) { impl_->part_at(part); }
void TableShard::read_part(int part, std::int64_t since, PartRows& rows) {
  rows.clear();
  rows.is_all = since == kAll;
  impl_->snapshot.read_part(part, rows.rows);
  if (rows.is_all) return;
  const std::size_t n = impl_->layout.row_bytes();
  std::byte* to = rows.rows.data();
  for (std::size_t at = 0; at < rows.rows.size(); at += n) {
    if (RowLayout::last_of(rows.rows.data() + at) <= static_cast<std::uint64_t>(since)) continue;
    std::memmove(to, rows.rows.data() + at, n);
    to += n;
  }
  rows.rows.resize(static_cast<std::size_t>(to - rows.rows.data()));
}
void TableShard::remember_removed(bool) {}
void TableShard::forget_removed(Clock) {}
void TableShard::end_cut() { impl_->snapshot.end(); }
const TableShard::SnapshotCosts& TableShard::snapshot_costs() const { return impl_->snapshot.costs(); }

}  // namespace varscope
