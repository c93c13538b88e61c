#include "ps/tables/table_shard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/variables/variable_table.h"
#include "ps/tables/row_norms.h"
#include "ps/tables/table_shard_impl.h"
#include "ps/update/update_kernels.h"

namespace varscope {
namespace {

template <class T>
T* as(std::byte* memory) {
  return reinterpret_cast<T*>(memory);
}

// There may be more pushes than steps, and a count has 32 bits.
std::uint32_t one_more(std::uint32_t count) {
  return count == std::numeric_limits<std::uint32_t>::max() ? count : count + 1;
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
  if (v.constraint.needs_norms() && !v.constraint.is_by_row())
    refuse("the constraint " + v.constraint.str() + " needs all of its rows in each step; use " +
           v.constraint.of_rows().str());
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

}  // namespace

TableShard::Impl::Impl(const Parts& p)
    : variable(checked_variable(p)),
      table(p.table),
      spec(p.table.spec),
      server(p.server),
      optimizer(p.optimizer),
      layout(layout_of(p)),
      initial(p.variable.initializer, p.seed, p.variable.full_name(), p.variable.full_shape()),
      row_shape({p.table.units}),
      part_bits(std::countr_zero(static_cast<unsigned>(p.table.spec.parts))),
      parts(p.table.parts_of(p.server)),
      at_of_part(static_cast<std::size_t>(p.table.spec.parts), -1),
      rows(variable.name, parts, layout.row_bytes(), part_bits),
      removed(parts.size()),
      merge(p.table.dtype, p.table.units),
      slots(layout.slots().size()),
      has_finding(layout.slots().size() + 1) {
  for (std::size_t i = 0; i < parts.size(); ++i)
    at_of_part[static_cast<std::size_t>(parts[i])] = static_cast<std::int32_t>(i);
  if (spec.entry > 1) waiting.emplace(variable.name, parts, PartRows::kWaitingBytes, part_bits);
}

std::size_t TableShard::Impl::part_at(int part) const {
  const bool exists = part >= 0 && part < table.spec.parts;
  const std::int32_t at = exists ? at_of_part[static_cast<std::size_t>(part)] : -1;
  if (at < 0) fail(ErrorKind::argument, "table \"{}\": part {} is not on this server", variable.name, part);
  return static_cast<std::size_t>(at);
}

// n_bytes: of a row's beginning that will be needed.
void TableShard::Impl::locate(const std::uint64_t* ids, const std::uint64_t* mixed, std::size_t n,
                              std::size_t n_bytes, LocatedRow* found) const {
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t part = at_of_part[part_bits == 0 ? 0 : mixed[i] >> (64 - part_bits)];
    if (part < 0) [[unlikely]]
      part_at(row_part(mixed[i], spec.parts));  // throws
    found[i].part = static_cast<std::size_t>(part);
    found[i].place = RowPlace::of(mixed[i], part_bits);
  }
  rows.locate(ids, n, n_bytes, found);
}

void TableShard::Impl::absent_values(std::uint64_t id, std::byte* out) const {
  if (spec.absent == AbsentRows::initial) {
    first_values(id, out);
  } else {
    std::memset(out, 0, layout.value_bytes());
  }
}

void TableShard::Impl::first_values(std::uint64_t id, std::byte* out) const {
  VariableSpec::fill_row(TensorView(layout.dtype(), row_shape, out), initial, id);
}

void TableShard::Impl::set_slots(std::byte* row) {
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = row + layout.slot_at(i);
}

// The batch's i-th id of the merge, with the row and the waiting record that have been found for it.
void TableShard::Impl::update(LocatedRow at, const LocatedRow& waits, std::size_t i,
                              const PushConstants& push, double scale) {
  const Clock step = push.step.clock;
  const std::uint64_t id = merge.id(i);
  bool is_new = !RowStore::is_still(at, id);
  if (!is_new && is_expired(at.row, step)) {
    ++counts.expired;
    remove_row(at);
    is_new = true;
  }
  if (is_new && !enters(waits, id, merge.count(i), step)) return;
  const std::int64_t units = layout.units();
  std::byte* const gradient = merge.sum(i);
  const ClipConfig& clip = optimizer.config().clip;
  if (clip.type == ClipType::value) {
    with_real(layout.dtype(),
              [&]<class T>(T) { kernels::clamp(as<T>(gradient), static_cast<T>(clip.limit), units); });
  }
  if (scale != 1) {
    with_real(layout.dtype(),
              [&]<class T>(T) { kernels::scale(as<T>(gradient), static_cast<T>(scale), units); });
  }
  const auto last = static_cast<std::uint32_t>(step.value);
  bool is_finite = true;
  RowHashSum& hash = rows.part(at.part).hash;
  if (!is_new) hash.remove(id, values(at.row));
  {
    const RowWrite write = is_new ? make(rows, at, id, step) : rows.write(at);
    std::byte* const value = at.row + RowLayout::kValuesAt;
    set_slots(at.row);
    if (is_new) {
      first_values(id, value);
      if (!slots.empty()) optimizer.start_row_slots(layout.dtype(), value, slots, units);
    }
    is_finite = optimizer.update_row(layout.dtype(), value, gradient, slots, units, push,
                                     std::int64_t{RowLayout::count_of(at.row)} + 1);
    if (variable.constraint.kind == Constraint::Kind::non_neg)
      with_real(layout.dtype(), [&]<class T>(T) { kernels::non_negative(as<T>(value), units); });
    if (variable.constraint.is_by_row() && !constrain_row(variable.constraint, layout.dtype(), value, units))
      note_bad_norm(step.value);
    RowLayout::set_last(at.row, last);
    RowLayout::set_count(at.row, one_more(RowLayout::count_of(at.row)));
  }
  is_new ? rows.added(at, last) : rows.touched(at, last);
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

// Of a row's values: once, as of a dense variable.
void TableShard::Impl::note_bad_norm(std::int64_t at_clock) {
  const auto where = NotFiniteFinding::Where::value_norm;
  if (std::ranges::find(not_finite, where, &NotFiniteFinding::where) != not_finite.end()) return;
  not_finite.push_back({where, at_clock, variable.name, "", 0, ""});
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

std::int64_t TableShard::n_bytes() const {
  const Impl& s = *impl_;
  std::size_t n = sizeof(Impl) + s.rows.n_bytes() + s.merge.n_bytes() + s.removed.n_bytes() +
                  s.parts.capacity() * sizeof(int) + s.at_of_part.capacity() * sizeof(std::int32_t);
  if (s.waiting) n += s.waiting->n_bytes();
  return static_cast<std::int64_t>(n);
}

void TableShard::read(std::span<const std::uint64_t> ids, Clock step, std::byte* out) const {
  const std::size_t row_bytes = impl_->layout.value_bytes();
  std::array<std::uint64_t, Impl::kBatch> mixed{};
  Impl::Batch found;
  for (std::size_t begin = 0; begin < ids.size(); begin += Impl::kBatch) {
    const std::size_t n = std::min(Impl::kBatch, ids.size() - begin);
    for (std::size_t i = 0; i < n; ++i) mixed[i] = mix_row_id(ids[begin + i]);
    impl_->locate(&ids[begin], mixed.data(), n, RowLayout::kValuesAt + row_bytes, found.data());
    for (std::size_t i = 0; i < n; ++i, out += row_bytes) {
      if (found[i].row != nullptr && !impl_->is_expired(found[i].row, step)) {
        std::memcpy(out, found[i].row + RowLayout::kValuesAt, row_bytes);
      } else {
        impl_->absent_values(ids[begin + i], out);
      }
    }
  }
}

void TableShard::Impl::check_order(const UpdateStep& step) const {
  const bool is_in_order = step.is_push ? step.clock >= clock : step.clock > clock;
  if (is_in_order && step.clock.value < std::numeric_limits<std::uint32_t>::max()) return;
  fail(ErrorKind::argument, "table \"{}\": {}step {} cannot be applied after step {}", variable.name,
       step.is_push ? "a push of " : "", step.clock.value, clock.value);
}

void TableShard::apply(const UpdateStep& step, std::span<const Contribution> contributions,
                       const ReductionTree& tree, double scale) {
  Impl& s = *impl_;
  s.check_order(step);
  const Clock clock = step.clock;
  const PushConstants push = s.optimizer.constants(step);
  s.release_memory();
  s.merge.begin(contributions, tree);
  std::array<std::uint64_t, Impl::kBatch> ids{}, mixed{};
  Impl::Batch found, waits;
  std::optional<std::size_t> part;  // that is being updated: ids ascend by it
  while (const std::size_t n = s.variable.trainable ? s.merge.next() : 0) {
    for (std::size_t i = 0; i < n; ++i) {
      ids[i] = s.merge.id(i);
      mixed[i] = s.merge.mixed(i);
    }
    s.locate(ids.data(), mixed.data(), n, s.layout.row_bytes(), found.data());
    if (s.waiting) s.locate_waiting(n, found, waits);
    for (std::size_t i = 0; i < n; ++i) {
      if (part && *part != found[i].part) s.end_part(*part, clock);
      part = found[i].part;
      s.update(found[i], waits[i], i, push, scale);
    }
  }
  if (part) s.end_part(*part, clock);
  if (clock > s.clock) s.sweep_some(clock);
  s.clock = clock;
}

const std::vector<NotFiniteFinding>& TableShard::not_finite() const { return impl_->not_finite; }

}  // namespace varscope
