#include "ps/checkpointing/shard_checkpointer.h"

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
      names_(options.names) {
  for (const auto& table : tables) {
    const VariableSpec& v = table->variable();
    if (!names_.holds(v)) continue;
    tables_.push_back(table.get());
    row_tables_.push_back({names_.in_checkpoint(v).name, *v.table, table->layout(), table->parts()});
    table->set_snapshot_limits({options.pool_bytes, options.max_wait_s});
  }
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
  if (writing_.valid()) {
    refused_ = ShardOutcome{
        id, fmt::format("server {} still writes checkpoint {}", shard_.server().value, writing_id_), {}};
    return;
  }
  writing_id_ = id;
  const std::int64_t started = now_ns();
  snapshot_ ? snapshot_->cut() : copy_all();
  for (TableShard* table : tables_) table->cut();
  writing_ = std::async(std::launch::async, [this, clock, id] { return write(clock, id); });
  cut_ns_ = now_ns() - started;
}

// On the disk thread.
ShardOutcome ShardCheckpointer::write(Clock clock, const std::string& id) {
  ShardOutcome outcome{id, "", {}};
  const std::string path = temporary_path(dir_, id);
  try {
    outcome.report = write_slices(clock, id, path);
    if (!tables_.empty()) write_rows(clock, id, path, outcome.report);
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
                                   ShardReport& report) {
  PartRows read;
  add_row_file(report,
               write_row_file(fs_, path, shard_.server().value, n_servers_, clock.value, id, row_tables_,
                              [this, &read](std::size_t table, int part, std::vector<std::byte>& rows) {
                                tables_[table]->read_part(part, TableShard::kAll, read);
                                rows.swap(read.rows);
                              }));
}

std::optional<ShardOutcome> ShardCheckpointer::poll() {
  if (refused_) return std::exchange(refused_, std::nullopt);
  if (!writing_.valid() || writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return std::nullopt;
  ShardOutcome outcome = writing_.get();
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
