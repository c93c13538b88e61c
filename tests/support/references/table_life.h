#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "ps/tables/table_shard.h"
#include "tests/support/references/lane_squares.h"

namespace varscope::testing {

using Bytes = std::vector<std::byte>;

// A table by definition: std::map, nothing kept that has expired, everything sorted. Records are the bytes
// of RowLayout and PartRows.
class ReferenceTableLife {
 public:
  struct Record {
    std::uint32_t last = 0;
    std::uint64_t count = 0;
    Bytes bytes;  // of a row
  };
  using Records = std::map<std::uint64_t, Record>;
  struct Push {
    Bytes gradient;
    std::uint32_t count = 1;
  };

  ReferenceTableLife(const VariableSpec& variable, const RowLayout& layout, const Optimizer& optimizer,
                     std::uint64_t seed)
      : spec_(*variable.table),
        constraint_(variable.constraint),
        layout_(layout),
        optimizer_(optimizer),
        shape_{layout.units()},
        first_(variable.initializer, seed, variable.full_name(), variable.full_shape()) {}

  const Records& rows() const { return rows_; }
  const Records& waiting() const { return waiting_; }
  int part_of(std::uint64_t id) const { return row_part(mix_row_id(id), spec_.parts); }

  // Whether there is room for all of it.
  bool step(std::int64_t clock, const std::map<std::uint64_t, Push>& pushes) {
    const auto is_gone = [&](const auto& r) { return spec_.is_expired(r.second.last, clock); };
    std::erase_if(rows_, is_gone);
    std::erase_if(waiting_, is_gone);
    std::set<int> parts;
    for (const auto& [id, push] : pushes) {
      update(id, push, static_cast<std::uint32_t>(clock));
      parts.insert(part_of(id));
    }
    return std::ranges::all_of(parts,
                               [&](int part) { return limit(part, static_cast<std::uint32_t>(clock)); });
  }
  Bytes read(std::uint64_t id, std::int64_t step) const {
    const auto found = rows_.find(id);
    Bytes values(layout_.value_bytes());
    if (found != rows_.end() && !spec_.is_expired(found->second.last, step)) {
      std::memcpy(values.data(), found->second.bytes.data() + RowLayout::kValuesAt, values.size());
    } else if (spec_.absent == AbsentRows::initial) {
      VariableSpec::fill_row(TensorView(layout_.dtype(), shape_, values.data()), first_, id);
    }
    return values;
  }
  // What a save of everything has of a part.
  PartRows part(int part) const {
    PartRows all;
    for (const std::uint64_t id : ids(rows_, part))
      all.rows.insert(all.rows.end(), rows_.at(id).bytes.begin(), rows_.at(id).bytes.end());
    for (const std::uint64_t id : ids(waiting_, part)) {
      const Record& r = waiting_.at(id);
      Bytes record(PartRows::kWaitingBytes);
      RowLayout::set_id(record.data(), id);
      RowLayout::set_last(record.data(), r.last);
      RowLayout::set_count(record.data(), static_cast<std::uint32_t>(r.count));
      all.waiting.insert(all.waiting.end(), record.begin(), record.end());
    }
    return all;
  }

 private:
  std::vector<std::uint64_t> ids(const Records& records, int part) const {
    std::vector<std::uint64_t> ids;
    for (const auto& [id, r] : records) {
      if (part_of(id) == part) ids.push_back(id);
    }
    std::ranges::sort(ids, {}, mix_row_id);
    return ids;
  }
  void update(std::uint64_t id, const Push& push, std::uint32_t clock) {
    if (!rows_.contains(id)) {
      if (spec_.entry > 1) {
        Record& w = waiting_[id];
        w.last = clock;
        w.count += push.count;
        if (w.count < static_cast<std::uint64_t>(spec_.entry)) return;
        waiting_.erase(id);
      }
      make(id);
    }
    Record& row = rows_.at(id);
    row.last = clock;
    ++row.count;
    Bytes gradient = push.gradient;
    optimizer_.update_row(layout_.dtype(), row.bytes.data() + RowLayout::kValuesAt, gradient.data(),
                          slots(row), layout_.units(), UpdateStep::whole(Clock(clock)),
                          static_cast<std::int64_t>(row.count));
    if (constraint_.is_by_row()) {
      std::byte* const value = row.bytes.data() + RowLayout::kValuesAt;
      const double squares = lane_squares(layout_.dtype(), value, layout_.units());
      scale_values(layout_.dtype(), value, layout_.units(), reference_scale(constraint_, squares));
    }
    RowLayout::set_last(row.bytes.data(), row.last);
    RowLayout::set_count(row.bytes.data(), static_cast<std::uint32_t>(row.count));
  }
  void make(std::uint64_t id) {
    Record& row = rows_[id];
    row.bytes.assign(layout_.row_bytes(), std::byte{0});
    RowLayout::set_id(row.bytes.data(), id);
    std::byte* const value = row.bytes.data() + RowLayout::kValuesAt;
    VariableSpec::fill_row(TensorView(layout_.dtype(), shape_, value), first_, id);
    optimizer_.start_row_slots(layout_.dtype(), value, slots(row), layout_.units());
  }
  std::vector<std::byte*> slots(Record& row) const {
    std::vector<std::byte*> slots;
    for (std::size_t i = 0; i < layout_.slots().size(); ++i)
      slots.push_back(row.bytes.data() + layout_.slot_at(i));
    return slots;
  }
  bool limit(int part, std::uint32_t clock) {
    if (spec_.max_waiting > 0) drop(waiting_, part, spec_.most_waiting_of_part(), false, ~0U);
    if (spec_.max_rows == 0) return true;
    const std::int64_t most = spec_.most_rows_of_part();
    const auto all = ids(rows_, part);
    if (static_cast<std::int64_t>(all.size()) <= most) return true;
    if (spec_.when_full == WhenFull::error) return false;
    if (std::ranges::count_if(all, [&](std::uint64_t id) { return rows_.at(id).last == clock; }) > most)
      return false;
    drop(rows_, part, most, spec_.when_full == WhenFull::lfu, clock);
    return true;
  }
  // Down to 15/16 of `most`, if there are more, of those that occurred before `clock`.
  void drop(Records& records, int part, std::int64_t most, bool is_lfu, std::uint32_t clock) {
    auto all = ids(records, part);
    auto n = static_cast<std::int64_t>(all.size());
    if (n <= most) return;
    std::ranges::sort(all, {}, [&](std::uint64_t id) {
      const std::uint64_t last = records.at(id).last, count = records.at(id).count;
      return is_lfu ? std::tuple(count, last, id) : std::tuple(last, count, id);
    });
    for (const std::uint64_t id : all) {
      if (n <= most - most / 16) return;
      if (records.at(id).last >= clock) continue;
      records.erase(id);
      --n;
    }
  }

  TableSpec spec_;
  Constraint constraint_;
  RowLayout layout_;
  const Optimizer& optimizer_;
  Shape shape_;
  InitialValues first_;
  Records rows_, waiting_;
};

// What saves of changes, one upon the other, come to: by part, the records by mixed id.
class SavedTable {
 public:
  SavedTable(const TableSpec& spec, std::size_t row_bytes) : spec_(spec), row_bytes_(row_bytes) {}
  void add(int part, const PartRows& read) {
    Part& saved = parts_[part];
    if (read.is_all) saved = {};
    for (const std::uint64_t id : read.removed) {
      saved.rows.erase(mix_row_id(id));
      saved.waiting.erase(mix_row_id(id));
    }
    put(read.rows, row_bytes_, saved.rows, saved.waiting);
    put(read.waiting, PartRows::kWaitingBytes, saved.waiting, saved.rows);
  }
  // As it is after step `clock`.
  PartRows part(int part, std::int64_t clock) const {
    PartRows all;
    const auto found = parts_.find(part);
    if (found == parts_.end()) return all;
    const auto add = [&](const Records& from, Bytes& to) {
      for (const auto& [mixed, record] : from) {
        if (!spec_.is_expired(RowLayout::last_of(record.data()), clock))
          to.insert(to.end(), record.begin(), record.end());
      }
    };
    add(found->second.rows, all.rows);
    add(found->second.waiting, all.waiting);
    return all;
  }

 private:
  using Records = std::map<std::uint64_t, Bytes>;
  struct Part {
    Records rows, waiting;
  };
  static void put(const Bytes& from, std::size_t record_bytes, Records& to, Records& not_in) {
    for (std::size_t at = 0; at < from.size(); at += record_bytes) {
      const std::uint64_t mixed = mix_row_id(RowLayout::id_of(from.data() + at));
      to[mixed] = Bytes(from.data() + at, from.data() + at + record_bytes);
      not_in.erase(mixed);
    }
  }
  TableSpec spec_;
  std::size_t row_bytes_;
  std::map<int, Part> parts_;
};

// The life of a small table on one to three servers, beside its definition: steps, reads, cuts that are read
// while steps go on, saves that fail or are built upon, new servers in the middle. `choose(n)` says what is
// next, a number below n. Throws std::runtime_error where the two differ.
template <class Choose>
class TableLife {
 public:
  explicit TableLife(Choose choose)
      : choose_(std::move(choose)),
        variables_({variable()}),
        optimizer_(rule()),
        n_ids_(8 + choose_(120)),
        remembers_(choose_(4) > 0) {
    start(1 + static_cast<int>(choose_(3)));
    reference_.emplace(variables_[0], shards_[0]->layout(), optimizer_, kSeed);
    saved_.emplace(spec(), shards_[0]->layout().row_bytes());
  }

  // False: there was no room for the last one, and there will be none.
  bool steps(int n) {
    for (int i = 0; i < n && !is_over_; ++i) {
      is_over_ = !step();
      if (is_over_) break;
      check();
      saves();
      if (!cut_ && choose_(16) == 0) start(1 + static_cast<int>(choose_(3)));
    }
    return !is_over_;
  }
  std::int64_t n_evicted = 0, n_expired = 0, n_dropped = 0, n_waited = 0, n_removed = 0, n_full = 0,
               n_changes = 0;

 private:
  static constexpr std::uint64_t kSeed = 5;
  static constexpr int kUnits = 2;
  struct Push {
    float gradient = 0;  // of each element
    std::uint32_t count = 1;
  };
  struct Cut {
    std::int64_t clock = 0, since = -1;
    std::map<int, PartRows> expected;
    std::vector<std::size_t> n_read;  // of each shard
    SavedTable saved;
  };

  VariableSpec variable() {
    VariableSpec v;
    v.name = "user/embedding";
    v.scope = "user";
    v.shape = Shape{0, kUnits};
    v.initializer = Initializer::uniform(-1, 1);
    TableSpec spec;
    spec.ids = IdType::uint64;
    spec.parts = 1 << choose_(4);
    spec.entry = choose_(2) == 0 ? 1 : 2 + static_cast<std::int64_t>(choose_(6));
    spec.expire_steps = choose_(2) == 0 ? 0 : 1 + static_cast<std::int64_t>(choose_(12));
    if (choose_(3) > 0) spec.max_rows = spec.parts * static_cast<std::int64_t>(1 + choose_(40));
    spec.when_full = spec.max_rows == 0 ? WhenFull::error : static_cast<WhenFull>((1 + choose_(5)) % 3);
    spec.absent = static_cast<AbsentRows>(choose_(2));
    if (spec.entry > 1 && choose_(2) == 0)
      spec.max_waiting = spec.parts * static_cast<std::int64_t>(1 + choose_(40));
    v.table = spec;
    return v;
  }
  static OptimizerConfig rule() {
    OptimizerConfig config;
    config.type = OptimizerType::adagrad;
    config.learning_rate = 0.125;
    config.initial_accumulator = 0.5;
    return config;
  }
  const TableSpec& spec() const { return *variables_[0].table; }
  std::uint64_t id_of(std::uint64_t i) const { return i % 3 == 0 ? i << 32 : i % 7 == 0 ? ~i : i; }
  static void expect(bool is_so, const std::string& what) {
    if (!is_so) throw std::runtime_error(what);
  }

  // New servers, with what the reference has.
  void start(int n_servers) {
    plan_.emplace(RowPlan::make(variables_, n_servers));
    shards_.clear();
    for (int s = 0; s < n_servers; ++s) {
      shards_.push_back(std::make_unique<TableShard>(
          TableShard::Parts{variables_[0], (*plan_)[TableId(0)], ServerId(s), optimizer_, kSeed}));
      TableShard& shard = *shards_.back();
      shard.set_clock(Clock(clock_));
      for (const int part : shard.parts()) {
        if (!reference_) continue;
        const PartRows rows = reference_->part(part);
        shard.restore(part, rows.rows);
        shard.restore_waiting(part, rows.waiting);
      }
      shard.remember_removed(remembers_);
    }
    base_ = -1;
  }
  // Two contributions, of which some ids are in both. False: there is no room.
  bool step() {
    ++clock_;
    std::map<std::uint64_t, ReferenceTableLife::Push> pushes;
    std::map<std::uint64_t, Push> halves[2];
    const std::size_t n = choose_(5) == 0 ? choose_(2) : choose_(30);
    while (pushes.size() < std::min<std::size_t>(n, n_ids_ / 2)) {
      const std::uint64_t id = id_of(choose_(n_ids_));
      if (pushes.contains(id)) break;
      const std::size_t where = choose_(3);
      Push sum{0, 0};
      for (const std::size_t half : {0, 1}) {
        if (where == 1 - half) continue;
        auto& push = halves[half][id] = {static_cast<float>(choose_(9)) - 4, 1};
        if (choose_(3) == 0) push.count += static_cast<std::uint32_t>(choose_(3));
        sum.gradient += push.gradient;
        sum.count += push.count;
      }
      const std::vector<float> gradient(kUnits, sum.gradient);
      const auto bytes = std::as_bytes(std::span(gradient));
      pushes[id] = {Bytes(bytes.begin(), bytes.end()), sum.count};
    }
    const bool fits = reference_->step(clock_, pushes);
    bool has_failed = false;
    for (const auto& shard : shards_) {
      try {
        apply(*shard, halves);
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::data) throw;
        has_failed = true;
      }
    }
    expect(has_failed == !fits, "what fits");
    n_full += has_failed ? 1 : 0;
    return fits;
  }
  void apply(TableShard& shard, const std::map<std::uint64_t, Push>* halves) {
    struct Half {
      std::vector<std::uint64_t> ids;
      std::vector<std::uint32_t> positions, counts;
      std::vector<float> gradients;
    };
    std::deque<Half> all;
    std::vector<TableShard::Contribution> contributions;
    for (const std::size_t half : {0, 1}) {
      Half& h = all.emplace_back();
      for (const auto& [id, push] : halves[half]) {
        if (shard.table().server_of(id) == shard.server()) h.ids.push_back(id);
      }
      std::ranges::sort(h.ids, {}, mix_row_id);
      for (const std::uint64_t id : h.ids) {
        h.positions.push_back(static_cast<std::uint32_t>(h.positions.size()));
        h.counts.push_back(halves[half].at(id).count);
        h.gradients.insert(h.gradients.end(), kUnits, halves[half].at(id).gradient);
      }
      contributions.push_back({h.ids, h.positions, reinterpret_cast<const std::byte*>(h.gradients.data()),
                               spec().entry > 1 ? h.counts.data() : nullptr});
    }
    shard.apply(UpdateStep::whole(Clock(clock_)), contributions, ReductionTree({{0, 0}, {1, 0}}, 2));
  }

  void check() {
    std::int64_t n_rows = 0, n_waiting = 0;
    std::map<std::int64_t, Digest> hashes, expected;
    HashReport report;
    n_evicted = n_expired = n_dropped = 0;
    for (const auto& shard : shards_) {
      n_rows += shard->n_rows();
      n_waiting += shard->n_waiting();
      n_evicted += shard->counts().evicted;
      n_expired += shard->counts().expired;
      n_dropped += shard->counts().waiting_dropped;
      shard->add_hashes(report);
    }
    n_waited += n_waiting;
    expect(n_rows == static_cast<std::int64_t>(reference_->rows().size()), "the number of rows");
    expect(n_waiting == static_cast<std::int64_t>(reference_->waiting().size()), "the number that waits");
    for (const auto& e : report.entries) hashes[e.slice] = e.digest;
    std::map<int, RowHashSum> sums;
    for (const auto& [id, row] : reference_->rows()) {
      const std::span all(row.bytes);
      sums[reference_->part_of(id)].add(
          id, all.subspan(RowLayout::kValuesAt, shards_[0]->layout().value_bytes()));
    }
    for (const auto& [part, sum] : sums) expected[part] = sum.digest();
    expect(hashes == expected, "hashes");
    for (std::uint64_t i = choose_(5); i < n_ids_; i += 5) check_value(id_of(i));
  }
  void check_value(std::uint64_t id) {
    const RowPlan::Table& table = (*plan_)[TableId(0)];
    const TableShard& shard = *shards_[static_cast<std::size_t>(table.server_of(id).value)];
    Bytes values(shard.layout().value_bytes());
    for (const std::int64_t step : {clock_, clock_ + 1}) {
      shard.read(std::span(&id, 1), Clock(step), values.data());
      expect(values == reference_->read(id, step), "values");
    }
  }

  void saves() {
    if (!cut_) {
      if (choose_(3) != 0) return;
      cut_.emplace(Cut{clock_, choose_(8) == 0 ? -1 : base_, {}, {}, *saved_});
      for (int part = 0; part < spec().parts; ++part) cut_->expected[part] = reference_->part(part);
      for (const auto& shard : shards_) shard->cut();
      cut_->n_read.resize(shards_.size());
      return;
    }
    bool is_done = true;
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      for (std::size_t n = choose_(4); n > 0 && cut_->n_read[s] < shards_[s]->parts().size(); --n) read(s);
      is_done = is_done && cut_->n_read[s] == shards_[s]->parts().size();
    }
    if (is_done) end_cut();
  }
  void read(std::size_t s) {
    const int part = shards_[s]->parts()[cut_->n_read[s]++];
    PartRows read;
    shards_[s]->read_part(part, cut_->since, read);
    n_removed += static_cast<std::int64_t>(read.removed.size());
    n_changes += read.is_all ? 0 : 1;
    expect(cut_->since >= 0 || read.is_all, "all, as asked for");
    expect(std::ranges::is_sorted(read.removed, std::ranges::less{}, mix_row_id), "order of removed ids");
    cut_->saved.add(part, read);
    const PartRows found = cut_->saved.part(part, cut_->clock);
    expect(found.rows == cut_->expected[part].rows, "saved rows");
    expect(found.waiting == cut_->expected[part].waiting, "saved waiting ids");
  }
  void end_cut() {
    for (const auto& shard : shards_) shard->end_cut();
    if (choose_(4) > 0) {  // committed
      saved_ = std::move(cut_->saved);
      base_ = cut_->clock;
      for (const auto& shard : shards_) {
        for (const int part : shard->parts()) {
          if (choose_(4) > 0) shard->forget_removed(part, Clock(base_));
        }
      }
    }
    cut_.reset();
  }

  Choose choose_;
  VariableTable variables_;
  Optimizer optimizer_;
  std::uint64_t n_ids_;
  bool remembers_;
  bool is_over_ = false;  // there was no room
  std::int64_t clock_ = 0, base_ = -1;
  std::optional<RowPlan> plan_;
  std::vector<std::unique_ptr<TableShard>> shards_;
  std::optional<ReferenceTableLife> reference_;
  std::optional<SavedTable> saved_;
  std::optional<Cut> cut_;
};

}  // namespace varscope::testing
