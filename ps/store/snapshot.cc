#include "ps/store/snapshot.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/transport.h"

namespace varscope {

SnapshotPool::SnapshotPool(std::size_t n_bytes)
    : pages_(std::max<std::size_t>(1, (n_bytes + kPageBytes - 1) / kPageBytes)) {
  memory_ = allocate_aligned(pages_.size() * kPageBytes);
  std::memset(memory_.get(), 0, pages_.size() * kPageBytes);
  free_.reserve(pages_.size());
  clear();
}

void SnapshotPool::clear() {
  free_.clear();
  open_ = kNone;
  for (std::size_t i = pages_.size(); i-- > 0;) {
    pages_[i].store(0, std::memory_order_relaxed);
    free_.push_back(static_cast<std::uint32_t>(i));
  }
}

SnapshotPool::Place SnapshotPool::reserve(std::size_t n) {
  if (open_ != kNone && used_ + n > kPageBytes) release(std::exchange(open_, kNone));
  if (open_ == kNone) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return {};
    open_ = free_.back();
    free_.pop_back();
    used_ = 0;
    pages_[open_].store(1, std::memory_order_relaxed);
  }
  return {memory_.get() + open_ * kPageBytes + used_, open_};
}

void SnapshotPool::keep(Place place, std::size_t n) {
  pages_[place.page].fetch_add(1, std::memory_order_relaxed);
  used_ += (n + kAlignment - 1) / kAlignment * kAlignment;
}

void SnapshotPool::release(std::uint32_t page) {
  // The last one frees the page; what the others read of it happens before it is filled again.
  if (pages_[page].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  const std::lock_guard lock(mutex_);
  free_.push_back(page);
}

Snapshot::Snapshot(const std::vector<std::span<std::byte>>& tensors, const Options& options)
    : first_block_(tensors.size()), options_(options), pool_(options.pool_bytes) {
  std::vector<std::size_t> by_address(tensors.size());
  std::iota(by_address.begin(), by_address.end(), std::size_t{0});
  std::ranges::sort(by_address, std::less<>(), [&](std::size_t i) { return tensors[i].data(); });
  const auto blocks_of = [](std::size_t n_bytes) {
    return (n_bytes + kSnapshotBlockBytes - 1) / kSnapshotBlockBytes;
  };
  std::size_t n_blocks = 0;
  for (const auto& tensor : tensors) n_blocks += blocks_of(tensor.size());
  blocks_ = std::vector<Block>(n_blocks);
  std::size_t next = 0;
  for (const std::size_t i : by_address) {
    first_block_[i] = next;
    for (std::size_t at = 0; at < tensors[i].size(); at += kSnapshotBlockBytes, ++next) {
      blocks_[next].memory = tensors[i].data() + at;
      blocks_[next].n_bytes = std::min(kSnapshotBlockBytes, tensors[i].size() - at);
    }
  }
}

void Snapshot::cut() {
  if (active_.load(std::memory_order_acquire)) fail(ErrorKind::argument, "a cut while another is being read");
  pool_.clear();  // the last cut may not have been read to its end
  given_up_ = false;
  costs_ = {};
  ++epoch_;
  active_.store(true, std::memory_order_release);
}

void Snapshot::before_write(const std::byte* memory, std::size_t n_bytes) {
  if (!active_.load(std::memory_order_acquire)) return;
  const std::int64_t started = now_ns(), waited = costs_.wait_ns;
  const std::less<> before;
  auto block = std::ranges::partition_point(
      blocks_, [&](const Block& c) { return !before(memory, c.memory + c.n_bytes); });
  for (; block != blocks_.end() && before(block->memory, memory + n_bytes); ++block) save(*block);
  costs_.copy_ns += now_ns() - started - (costs_.wait_ns - waited);
}

void Snapshot::save(Block& block) {
  std::uint64_t state = block.state.load(std::memory_order_acquire);
  if (is_untouched(state)) {
    const SnapshotPool::Place place = wait_for_place(block);
    if (!active_.load(std::memory_order_acquire)) return;
    // Only the reader may have come in between.
    if (is_untouched(state) &&
        block.state.compare_exchange_strong(state, word(place.memory != nullptr ? kCopying : kLost),
                                            std::memory_order_acquire)) {
      if (place.memory == nullptr) return;
      std::memcpy(place.memory, block.memory, block.n_bytes);
      pool_.keep(place, block.n_bytes);
      block.saved = place;
      costs_.copied_bytes += static_cast<std::int64_t>(block.n_bytes);
      block.state.store(word(kSaved), std::memory_order_release);
      return;
    }
  }
  if (state != word(kReading)) return;
  const std::int64_t started = now_ns();
  wait_while(block, kReading);
  costs_.wait_ns += now_ns() - started;
}

// Null when the block needs no place any more, or when the snapshot is given up.
SnapshotPool::Place Snapshot::wait_for_place(const Block& block) {
  SnapshotPool::Place place = given_up_ ? SnapshotPool::Place{} : pool_.reserve(block.n_bytes);
  if (place.memory != nullptr || given_up_) return place;
  const std::int64_t started = now_ns();
  Backoff backoff;
  while (place.memory == nullptr && active_.load(std::memory_order_acquire) &&
         is_untouched(block.state.load(std::memory_order_acquire))) {
    if (static_cast<double>(budget_used_ns_ + now_ns() - started) * 1e-9 > options_.max_wait_s) {
      given_up_ = true;
      break;
    }
    backoff.pause();
    place = pool_.reserve(block.n_bytes);
  }
  const std::int64_t waited = now_ns() - started;
  costs_.wait_ns += waited;
  budget_used_ns_ += waited;
  return place;
}

// The other side is copying one block.
void Snapshot::wait_while(const Block& block, Phase phase) const {
  Backoff backoff;
  while (block.state.load(std::memory_order_acquire) == word(phase)) backoff.pause();
}

void Snapshot::read(std::size_t tensor, std::size_t offset, std::span<std::byte> out) {
  Block& block = blocks_[first_block_[tensor] + offset / kSnapshotBlockBytes];
  std::uint64_t state = block.state.load(std::memory_order_acquire);
  if (is_untouched(state) &&
      block.state.compare_exchange_strong(state, word(kReading), std::memory_order_acquire)) {
    std::memcpy(out.data(), block.memory, out.size());
    block.state.store(word(kDrained), std::memory_order_release);
    return;
  }
  wait_while(block, kCopying);
  if (block.state.load(std::memory_order_acquire) == word(kLost)) {
    fail(ErrorKind::io,
         "updates waited {:g} s for the disk while the snapshot's pool of {} MiB was full; raise "
         "checkpoint.pool_mib, or use a faster disk",
         options_.max_wait_s, pool_.n_bytes() >> 20);
  }
  std::memcpy(out.data(), block.saved.memory, out.size());
  pool_.release(block.saved.page);
}

void Snapshot::end() { active_.store(false, std::memory_order_release); }

}  // namespace varscope
