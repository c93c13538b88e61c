#include "ps/checkpointing/shard_checkpointer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/transport.h"

namespace varscope {

std::string checkpoint_id(Clock clock, const std::string& start_id, std::int64_t retry) {
  return fmt::format("{:09d}-{}-{}", clock.value, start_id, retry);
}

ShardCheckpointer::ShardCheckpointer(ParameterShard& shard, TableShards& tables, Fs& fs, std::string dir,
                                     int n_servers, int n_workers, const Options& options)
    : shard_(shard),
      fs_(fs),
      dir_(std::move(dir)),
      n_servers_(n_servers),
      n_workers_(n_workers),
      names_(options.names),
      incremental_(options.incremental) {
  for (const auto& table : tables) {
    const VariableSpec& v = table->variable();
    if (!names_.holds(v)) continue;
    tables_.push_back(table.get());
    row_tables_.push_back({names_.in_checkpoint(v).name, *v.table, table->layout(), table->parts()});
    table->set_snapshot_limits({options.pool_bytes, options.max_wait_s});
  }
  incremental_ = incremental_ && !tables_.empty();
  for (TableShard* table : tables_) table->remember_removed(incremental_);
  std::vector<std::span<std::byte>> memory;
  shard_.for_each_slice(
      [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView data) {
        if (!names_.holds(v)) return;
        tensors_.push_back({names_.in_checkpoint(v).name, slot, slice.index, v.dtype, slice.box,
                            ConstPiece{data.bytes(), data.n_bytes()}});
        memory.emplace_back(data.bytes(), data.n_bytes());
        n_bytes_ += (data.n_bytes() + kAlignment - 1) / kAlignment * kAlignment;
      });
  if (options.snapshot == SnapshotMode::cow) {
    const std::size_t pool_bytes = options.pool_bytes > 0 ? options.pool_bytes : n_bytes_;
    snapshot_.emplace(memory, Snapshot::Options{pool_bytes, options.max_wait_s});
    shard_.set_snapshot(&*snapshot_);
    return;
  }
  // The first touch of fresh pages costs several times a warm copy: pay it now.
  buffer_ = allocate_aligned(n_bytes_);
  std::memset(buffer_.get(), 0, n_bytes_);
  std::size_t offset = 0;
  for (ShardTensor& t : tensors_) {
    t.data.data = buffer_.get() + offset;
    offset += (t.data.n_bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
}

ShardCheckpointer::~ShardCheckpointer() {
  if (writing_.valid()) writing_.wait();
  shard_.set_snapshot(nullptr);
}

void ShardCheckpointer::copy_all() {
  std::size_t offset = 0;
  shard_.for_each_slice([&](const VariableSpec& v, const std::string&, const BucketSlice&, TensorView data) {
    if (!names_.holds(v)) return;
    std::memcpy(buffer_.get() + offset, data.bytes(), data.n_bytes());
    offset += (data.n_bytes() + kAlignment - 1) / kAlignment * kAlignment;
  });
}

void ShardCheckpointer::cut(Clock clock, const std::string& id) {
  if (is_writing()) {
    refused_ = ShardOutcome{
        id, fmt::format("server {} still writes checkpoint {}", shard_.server().value, writing_id_), {}};
    return;
  }
  writing_id_ = id;
  const std::int64_t started = now_ns();
  snapshot_ ? snapshot_->cut() : copy_all();
  if (incremental_) take_totals();
  for (TableShard* table : tables_) table->cut();
  if (incremental_ && (!base_ || base_->checkpoint_id != id)) {
    waiting_ = clock;
  } else {
    start_writing(clock);
  }
  cut_ns_ = now_ns() - started;
}

// What changes alone do not tell, as of now.
void ShardCheckpointer::take_totals() {
  totals_.resize(tables_.size());
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    const TableShard& table = *tables_[t];
    totals_[t].clear();
    for (const int part : table.parts())
      totals_[t].push_back({table.n_rows(part), table.n_waiting(part), table.hash_sum(part).digest()});
  }
}

void ShardCheckpointer::set_base(SaveBase base) {
  if (!incremental_) return;
  if (waiting_ && base.checkpoint_id != writing_id_)
    fail(ErrorKind::protocol,
         "server {} is told what checkpoint {} goes on from while it waits for that of {}",
         shard_.server().value, base.checkpoint_id, writing_id_);
  if (!writing_.valid())  // a save that was given up may still look at its own
    std::erase_if(saved_, [&](const auto& saved) { return saved.first != base.base_id; });
  is_to_forget_ = is_to_forget_ || !base.base_id.empty();
  base_ = std::move(base);
  if (waiting_) start_writing(*std::exchange(waiting_, std::nullopt));
  forget_removed();
}

// Nobody reads what was removed between two cuts. A save may write a part anew from the first piece of its
// chain on.
void ShardCheckpointer::forget_removed() {
  if (!is_to_forget_ || is_writing()) return;
  is_to_forget_ = false;
  const auto saved = saved_.find(base_->base_id);
  for (std::size_t t = 0; t < tables_.size(); ++t) {
    std::map<int, Clock> begins;
    if (saved != saved_.end()) {
      for (const RowPartRecord& r : saved->second.report.parts) {
        if (r.variable == row_tables_[t].variable) begins.emplace(r.part, r.pieces.front().step);
      }
    }
    for (const int part : tables_[t]->parts()) {
      const auto begin = begins.find(part);
      tables_[t]->forget_removed(part, begin == begins.end() ? Clock(base_->base_step) : begin->second);
    }
  }
}

void ShardCheckpointer::start_writing(Clock clock) {
  const std::optional<SaveBase> base = incremental_ ? base_ : std::nullopt;
  const SavedRowFiles* from = nullptr;
  if (base && can_link_) {
    const auto found = saved_.find(base->base_id);
    if (found != saved_.end()) from = &found->second;
  }
  writing_ =
      std::async(std::launch::async, [this, clock, id = writing_id_, from, number = base ? base->number : 0] {
        return write(clock, id, from, number);
      });
}

std::size_t ShardCheckpointer::n_kept(const RowPartRecord& chain, std::int64_t number) {
  const std::size_t n = chain.pieces.size();
  std::uint64_t changes = 0;
  for (std::size_t i = 1; i < n; ++i) changes += chain.pieces[i].n_bytes();
  // Changes come to all parts alike: each has its own limit, from 3/8 to 19/32.
  const auto turn = static_cast<std::uint64_t>(chain.part) % 8;
  if (changes > chain.pieces.front().n_bytes() * (12 + turn) / 32) return 0;
  const bool is_its_turn = (number + chain.part) % 4 == 0 && n > kMostOfChain / 2;
  if (n < kMostOfChain && !is_its_turn) return n;
  std::size_t kept = n - 1;
  std::uint64_t merged = chain.pieces[kept].n_bytes();
  for (; kept > 1 && chain.pieces[kept - 1].n_bytes() <= 2 * merged; --kept)
    merged += chain.pieces[kept - 1].n_bytes();
  return kept;
}

// On the disk thread.
ShardOutcome ShardCheckpointer::write(Clock clock, const std::string& id, const SavedRowFiles* from,
                                      std::int64_t number) {
  ShardOutcome outcome{id, "", {}};
  const std::string path = temporary_path(dir_, id);
  try {
    LinkedRowFiles linked;
    if (from != nullptr)
      linked = link_row_files(fs_, *from, path, [&](const RowPartRecord& r) { return n_kept(r, number); });
    if (!linked.can_link) can_link_ = false;
    if (!linked.why_not.empty()) outcome.warning = linked.why_not;
    outcome.report = write_slices(clock, id, path);
    if (!tables_.empty()) write_rows(clock, id, path, linked.base, outcome.report);
  } catch (const std::exception& e) {
    outcome.error = e.what();
  }
  if (snapshot_) snapshot_->end();
  for (TableShard* table : tables_) table->end_cut();
  return outcome;
}

ShardReport ShardCheckpointer::write_slices(Clock clock, const std::string& id, const std::string& path) {
  const std::vector<std::int64_t> worker_clocks(static_cast<std::size_t>(n_workers_), clock.value);
  if (!snapshot_) {
    return write_shard(fs_, path, shard_.server().value, n_servers_, clock.value, worker_clocks, id,
                       tensors_);
  }
  return write_shard(fs_, path, shard_.server().value, n_servers_, clock.value, worker_clocks, id, tensors_,
                     [this](std::size_t i, std::size_t offset, std::span<std::byte> out) {
                       snapshot_->read(i, offset, out);
                     });
}

void ShardCheckpointer::write_rows(Clock clock, const std::string& id, const std::string& path,
                                   const std::optional<RowBase>& base, ShardReport& report) {
  const auto read = [&](std::size_t t, int part, PartRows& rows) {
    const RowBase::Chain* chain = base ? base->chain_of(row_tables_[t].variable, part) : nullptr;
    tables_[t]->read_part(part, chain != nullptr ? chain->since : TableShard::kAll, rows);
  };
  const auto totals = [&](std::size_t t, int part) {
    const std::vector<int>& parts = tables_[t]->parts();
    return totals_[t][static_cast<std::size_t>(std::ranges::lower_bound(parts, part) - parts.begin())];
  };
  const RowFileOf of{shard_.server().value, n_servers_, clock.value, id};
  RowFileReport rows = write_row_file(fs_, path, of, row_tables_, read, base ? &*base : nullptr, totals);
  if (incremental_)
    written_ = SavedRowFiles{of.server, of.n_servers, of.step, join_path(dir_, step_name(of.step)), rows};
  add_row_file(report, std::move(rows));
}

std::optional<ShardOutcome> ShardCheckpointer::poll() {
  if (refused_) return std::exchange(refused_, std::nullopt);
  if (!writing_.valid() || writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return std::nullopt;
  ShardOutcome outcome = writing_.get();
  if (written_ && outcome.error.empty()) saved_.insert_or_assign(outcome.checkpoint_id, std::move(*written_));
  written_.reset();
  forget_removed();
  outcome.stall_ns = cut_ns_;
  if (snapshot_) {
    const Snapshot::Costs& costs = snapshot_->costs();
    outcome.wait_ns = costs.wait_ns;
    outcome.stall_ns += costs.wait_ns;
    outcome.copy_ns = costs.copy_ns;
    outcome.copied_bytes = costs.copied_bytes;
  }
  for (const TableShard* table : tables_) {
    const TableShard::SnapshotCosts& costs = table->snapshot_costs();
    outcome.wait_ns += costs.wait_ns;
    outcome.stall_ns += costs.wait_ns;
    outcome.copy_ns += costs.copy_ns;
    outcome.copied_bytes += costs.copied_bytes;
  }
  return outcome;
}

}  // namespace varscope
