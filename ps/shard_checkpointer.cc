#include "ps/shard_checkpointer.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "common/error.h"
#include "common/transport.h"

namespace varscope {

std::string checkpoint_id(Clock clock, const std::string& start_id, std::int64_t retry) {
  return fmt::format("{:09d}-{}-{}", clock.value, start_id, retry);
}

std::string temporary_path(const std::string& dir, const std::string& id) { return dir + "/.tmp-" + id; }

ShardCheckpointer::ShardCheckpointer(ParameterShard& shard, Fs& fs, std::string dir, int n_servers,
                                     int n_workers)
    : shard_(shard), fs_(fs), dir_(std::move(dir)), n_servers_(n_servers), n_workers_(n_workers) {
  shard_.for_each_slice(
      [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView data) {
        layout_.push_back({v.name, slot, slice.index, v.dtype, slice.box, n_bytes_, data.n_bytes()});
        n_bytes_ += (data.n_bytes() + kAlignment - 1) / kAlignment * kAlignment;
      });
  // The first touch of fresh pages costs several times a warm copy: pay it now.
  buffer_ = allocate_aligned(n_bytes_);
  std::memset(buffer_.get(), 0, n_bytes_);
}

ShardCheckpointer::~ShardCheckpointer() {
  if (writing_.valid()) writing_.wait();
}

void ShardCheckpointer::cut(Clock clock, const std::string& id) {
  if (writing_.valid()) {
    refused_ = ShardOutcome{id, "the server still writes an earlier checkpoint", {}, 0};
    return;
  }
  const std::int64_t started = now_ns();
  std::size_t i = 0;
  shard_.for_each_slice([&](const VariableSpec&, const std::string&, const BucketSlice&, TensorView data) {
    std::memcpy(buffer_.get() + layout_[i++].offset, data.bytes(), data.n_bytes());
  });
  const std::int64_t stall_ns = now_ns() - started;
  writing_ = std::async(std::launch::async, [this, clock, id, stall_ns]() -> ShardOutcome {
    ShardOutcome outcome{id, "", {}, stall_ns};
    try {
      std::vector<ShardTensor> tensors;
      for (const Copied& c : layout_) {
        tensors.push_back(
            {c.variable, c.slot, c.slice, c.dtype, c.box, {buffer_.get() + c.offset, c.n_bytes}});
      }
      const std::vector<std::int64_t> cut(static_cast<std::size_t>(n_workers_), clock.value);
      outcome.report = write_shard(fs_, temporary_path(dir_, id), shard_.server().value, n_servers_,
                                   clock.value, cut, id, tensors);
    } catch (const std::exception& e) {
      outcome.error = e.what();
    }
    return outcome;
  });
}

std::optional<ShardOutcome> ShardCheckpointer::poll() {
  if (refused_) return std::exchange(refused_, std::nullopt);
  if (!writing_.valid() || writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
    return std::nullopt;
  return writing_.get();
}

}  // namespace varscope
