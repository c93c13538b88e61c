#include "tests/support/jobs/row_exchange.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/support/references/lane_squares.h"

namespace varscope::testing {
namespace {

template <class T>
T gradient_of(int variable, std::uint64_t id, std::int64_t column, int leaf, std::int64_t step, T value) {
  const auto element = static_cast<std::int64_t>((mix_row_id(id) & 0xFFFFFFFF) * 131) + column;
  return synthetic_gradient<T>(variable, element, leaf, step, value);
}

template <class T>
void fill_gradient(int variable, std::uint64_t id, int leaf, std::int64_t step, std::int64_t units,
                   const std::byte* value, std::byte* gradient) {
  for (std::int64_t c = 0; c < units; ++c) {
    T v;
    std::memcpy(&v, value + static_cast<std::size_t>(c) * sizeof(T), sizeof v);
    const T g = gradient_of<T>(variable, id, c, leaf, step, v);
    std::memcpy(gradient + static_cast<std::size_t>(c) * sizeof(T), &g, sizeof g);
  }
}

void fill_gradient(const RowPlan::Table& t, std::uint64_t id, int leaf, std::int64_t step,
                   const std::byte* value, std::byte* gradient) {
  t.dtype == DType::float64 ? fill_gradient<double>(t.variable, id, leaf, step, t.units, value, gradient)
                            : fill_gradient<float>(t.variable, id, leaf, step, t.units, value, gradient);
}

template <class T>
void add_as(std::byte* into, const std::byte* from, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    T a, b;
    std::memcpy(&a, into + static_cast<std::size_t>(i) * sizeof(T), sizeof a);
    std::memcpy(&b, from + static_cast<std::size_t>(i) * sizeof(T), sizeof b);
    a += b;
    std::memcpy(into + static_cast<std::size_t>(i) * sizeof(T), &a, sizeof a);
  }
}

void add_row(const RowPlan::Table& t, std::byte* into, const std::byte* from) {
  t.dtype == DType::float64 ? add_as<double>(into, from, t.units) : add_as<float>(into, from, t.units);
}

using Summed = ReferenceTableLife::Push;
using Sum = ReferenceTable::Sums;

// left + right, those that only one has as they are.
void merge(const RowPlan::Table& t, Sum& left, const Sum& right) {
  for (const auto& [id, summed] : right) {
    const auto [at, is_new] = left.try_emplace(id, summed);
    if (is_new) continue;
    add_row(t, at->second.gradient.data(), summed.gradient.data());
    at->second.count += summed.count;
  }
}

// How often a leaf has an id in a step.
std::uint32_t occurrences(std::uint64_t id, int leaf, std::int64_t step) {
  return 1 +
         static_cast<std::uint32_t>(
             mix_row_id(id + static_cast<std::uint64_t>(leaf) * 7 + static_cast<std::uint64_t>(step)) % 2);
}

}  // namespace

std::vector<std::uint64_t> touched_rows(int table, int leaf, std::int64_t step) {
  std::vector<std::uint64_t> ids;
  if ((step + table) % 7 == 3) return ids;  // nobody
  if (step % 2 == 0) ids.push_back(0);      // everybody
  const auto s = static_cast<std::uint64_t>(step), l = static_cast<std::uint64_t>(leaf);
  if ((s + l) % 3 == 0) return ids;
  for (std::uint64_t k = 1; k <= 40; ++k) ids.push_back(mix_row_id(k * 31 + s % 5 * 7 + l % 2) % 300);
  ids.push_back(~std::uint64_t{0});
  ids.push_back(std::uint64_t{1} << 63);
  ids.push_back(s << 32 | l);
  std::ranges::sort(ids);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  return ids;
}

RowWorker::RowWorker(PsClient& client, const RowPlan& plan, const ClusterMap& cluster, WorkerId worker)
    : client_(client),
      plan_(plan),
      n_servers_(cluster.n_servers()),
      leaves_(cluster.leaves_of(worker)),
      sums_(LocalSumPlan::make(leaves_, cluster.logical_workers)),
      steps_(static_cast<std::size_t>(plan.size())) {}

RowWorker::Step RowWorker::sorted(const RowPlan::Table& table, std::vector<std::uint64_t> ids) const {
  const auto place = [&](std::uint64_t id) { return std::pair(table.server_of(id).value, mix_row_id(id)); };
  std::ranges::sort(ids, {}, place);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  Step step{std::move(ids), {}, {}};
  step.values.resize(step.ids.size() * table.row_bytes());
  for (std::size_t begin = 0, s = 0; s < static_cast<std::size_t>(n_servers_); ++s) {
    std::size_t end = begin;
    while (end < step.ids.size() && table.server_of(step.ids[end]).value == static_cast<int>(s)) ++end;
    step.of_servers.emplace_back(step.ids.data() + begin, end - begin);
    begin = end;
  }
  return step;
}

void RowWorker::want(Clock clock, Clock read) {
  for (const RowPlan::Table& table : plan_.tables()) {
    std::vector<std::uint64_t> ids;
    for (int leaf = leaves_.begin; leaf < leaves_.end; ++leaf) {
      const auto more = touched_rows(table.id.value, leaf, clock.value);
      ids.insert(ids.end(), more.begin(), more.end());
    }
    Step& step = steps_[static_cast<std::size_t>(table.id.value)];
    step = sorted(table, std::move(ids));
    client_.rows().want(table.id, read, step.of_servers, step.values.data());
  }
}

std::vector<std::byte> RowWorker::read(TableId id, const std::vector<std::uint64_t>& ids, Clock clock) {
  const RowPlan::Table& table = plan_[id];
  Step step = sorted(table, ids);
  client_.rows().want(id, clock, step.of_servers, step.values.data(), true);
  client_.wait_rows(id);
  std::vector<std::byte> values(ids.size() * table.row_bytes());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<std::size_t>(std::ranges::find(step.ids, ids[i]) - step.ids.begin());
    std::memcpy(values.data() + i * table.row_bytes(), step.values.data() + at * table.row_bytes(),
                table.row_bytes());
  }
  return values;
}

void RowWorker::push(Clock clock, std::uint32_t flags, std::string_view details) {
  for (const RowPlan::Table& table : plan_.tables()) {
    Step& step = steps_[static_cast<std::size_t>(table.id.value)];
    client_.wait_rows(table.id);
    if (!table.trainable) continue;
    std::vector<Sum> buffers(static_cast<std::size_t>(sums_.n_buffers));
    for (std::size_t leaf = 0; leaf < sums_.leaves.size(); ++leaf) {
      Sum& mine = buffers[static_cast<std::size_t>(sums_.leaves[leaf].buffer)];
      mine.clear();
      const int number = leaves_.begin + static_cast<int>(leaf);
      for (const std::uint64_t id : touched_rows(table.id.value, number, clock.value)) {
        const auto at = static_cast<std::size_t>(std::ranges::find(step.ids, id) - step.ids.begin());
        Summed& summed = mine[id];
        summed.count = occurrences(id, number, clock.value);
        summed.gradient.resize(table.row_bytes());
        fill_gradient(table, id, number, clock.value, step.values.data() + at * table.row_bytes(),
                      summed.gradient.data());
      }
      for (const auto& [into, from] : sums_.leaves[leaf].merges)
        merge(table, buffers[static_cast<std::size_t>(into)], buffers[static_cast<std::size_t>(from)]);
    }
    std::vector<std::vector<std::byte>> gradients;
    std::vector<std::vector<std::int32_t>> positions;
    std::vector<std::vector<std::uint32_t>> counts;
    std::vector<RowClient::Contribution> contributions;
    for (std::size_t c = 0; c < sums_.contributions.size(); ++c) {
      gradients.emplace_back(step.ids.size() * table.row_bytes());
      positions.emplace_back();
      counts.emplace_back(step.ids.size());
      for (std::size_t i = 0; i < step.ids.size(); ++i) {
        const auto found = buffers[c].find(step.ids[i]);
        if (found == buffers[c].end()) continue;
        positions.back().push_back(static_cast<std::int32_t>(i));
        counts.back()[i] = found->second.count;
        std::memcpy(gradients.back().data() + i * table.row_bytes(), found->second.gradient.data(),
                    table.row_bytes());
      }
    }
    for (std::size_t c = 0; c < gradients.size(); ++c)
      contributions.push_back(
          {positions[c], gradients[c].data(), table.counts_ids() ? counts[c].data() : nullptr});
    client_.rows().push(table.id, clock, flags, contributions, nullptr, details);
  }
}

namespace {

// The sum of leaves [first, first + 2^level) of n_leaves.
Sum tree_sum(const RowPlan::Table& table, const std::vector<Sum>& leaves, std::size_t first, int level) {
  if (level == 0) return leaves[first];
  Sum sum = tree_sum(table, leaves, first, level - 1);
  const std::size_t right = first + (std::size_t{1} << (level - 1));
  if (right < leaves.size()) merge(table, sum, tree_sum(table, leaves, right, level - 1));
  return sum;
}

RowLayout layout_of(const RowPlan::Table& table, const Optimizer& optimizer) {
  std::vector<RowSlot> slots;
  for (const Slot& slot : optimizer.row_slots())
    slots.push_back({slot.name, slot.is_per_row ? 1 : table.units});
  return {table.dtype, table.units, std::move(slots)};
}

// As clipping does: the factor is rounded first.
template <class T>
void clip_as(std::byte* gradient, std::int64_t n, double factor) {
  for (std::int64_t i = 0; i < n; ++i) {
    T x;
    std::memcpy(&x, gradient + static_cast<std::size_t>(i) * sizeof(T), sizeof x);
    x *= static_cast<T>(factor);
    std::memcpy(gradient + static_cast<std::size_t>(i) * sizeof(T), &x, sizeof x);
  }
}

}  // namespace

ReferenceTable::ReferenceTable(const Exchange& e, const RowPlan::Table& table)
    : table_(table),
      optimizer_(e.optimizer),
      layout_(layout_of(table, optimizer_)),
      life_(e.variables[static_cast<std::size_t>(table.variable)], layout_, optimizer_, e.seed) {}

ReferenceTable::Sums ReferenceTable::gradients(std::int64_t step, int n_leaves,
                                               const CountedWorkers* counted) const {
  return gradients(step, n_leaves, life_, step, counted);
}

ReferenceTable::Sums ReferenceTable::gradients(std::int64_t step, int n_leaves,
                                               const ReferenceTableLife& read, std::int64_t read_at,
                                               const CountedWorkers* counted) const {
  std::vector<Sums> leaves(static_cast<std::size_t>(n_leaves));
  for (int leaf = 0; leaf < n_leaves; ++leaf) {
    if (counted != nullptr && !counted->has(WorkerId(leaf))) continue;
    for (const std::uint64_t id : touched_rows(table_.id.value, leaf, step)) {
      Summed& summed = leaves[static_cast<std::size_t>(leaf)][id];
      summed.count = occurrences(id, leaf, step);
      summed.gradient.resize(table_.row_bytes());
      fill_gradient(table_, id, leaf, step, read.read(id, read_at).data(), summed.gradient.data());
    }
  }
  int level = 0;
  while ((1 << level) < n_leaves) ++level;
  return tree_sum(table_, leaves, 0, level);
}

std::vector<double> ReferenceTable::squares(const Sums& gradients) const {
  std::map<std::uint64_t, const std::byte*> ordered;
  for (const auto& [id, summed] : gradients) ordered[mix_row_id(id)] = summed.gradient.data();
  std::vector<double> of_parts(static_cast<std::size_t>(table_.spec.parts));
  for (const auto& [mixed, gradient] : ordered)
    of_parts[static_cast<std::size_t>(table_.part_of(unmix_row_id(mixed)))] +=
        lane_squares(table_.dtype, gradient, table_.units);
  return of_parts;
}

void ReferenceTable::apply(std::int64_t step, Sums gradients, double factor) {
  for (auto& [id, summed] : gradients) {
    if (factor == 1) break;
    table_.dtype == DType::float64 ? clip_as<double>(summed.gradient.data(), table_.units, factor)
                                   : clip_as<float>(summed.gradient.data(), table_.units, factor);
  }
  if (!life_.step(step, gradients)) throw std::runtime_error("the reference has no room");
}

void ReferenceTable::add_to(ValuesHash& hash) const {
  std::map<int, RowHashSum> sums;
  for (const auto& [id, row] : life_.rows()) {
    sums[table_.part_of(id)].add(id,
                                 std::span(row.bytes).subspan(RowLayout::kValuesAt, layout_.value_bytes()));
  }
  for (const auto& [part, sum] : sums) hash.add(table_.name, part, sum.digest());
}

void add_reference_rows(const Exchange& e, int n_leaves, ValuesHash& hash) {
  const RowPlan plan = RowPlan::make(e.variables, 1);
  for (const RowPlan::Table& table : plan.tables()) {
    ReferenceTable reference(e, table);
    std::vector<ReferenceTableLife> after;  // each step
    for (std::int64_t step = 1; step <= e.steps && table.trainable; ++step) {
      after.push_back(reference.life());
      const std::int64_t read = e.flush.read_by(Clock(step), Clock(0)).value;
      reference.apply(step,
                      reference.gradients(step, n_leaves, after[static_cast<std::size_t>(read)], read + 1));
    }
    reference.add_to(hash);
  }
}

}  // namespace varscope::testing
