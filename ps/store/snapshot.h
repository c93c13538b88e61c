#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "checkpoint/format/shard.h"
#include "common/base/tensor.h"

namespace varscope {

// Bounded memory for blocks that an update is about to overwrite: pages that are filled from front to back
// by one thread; a page is free again when it is closed and every block in it has been released. reserve()
// and keep() belong to the thread that saves, release() to the one that reads.
class SnapshotPool {
 public:
  static constexpr std::size_t kPageBytes = 256 << 10;
  struct Place {
    std::byte* memory = nullptr;
    std::uint32_t page = 0;
  };
  // At least one page. Touches all of them: a first touch costs several times a warm copy.
  explicit SnapshotPool(std::size_t n_bytes);

  std::size_t n_bytes() const { return pages_.size() * kPageBytes; }
  // Where the next block of n bytes would go; null when all pages hold blocks. REQUIRES n <= kPageBytes.
  Place reserve(std::size_t n);
  void keep(Place place, std::size_t n);  // the block went to `place`, which the last reserve() named
  void release(std::uint32_t page);       // one block of it is needed no more
  void clear();                           // forgets all blocks. REQUIRES: nobody reads

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  AlignedBytes memory_;
  // Blocks in the page, and 1 while it is being filled.
  std::vector<std::atomic<std::uint32_t>> pages_;
  std::uint32_t open_ = kNone;
  std::size_t used_ = 0;  // of the open page
  std::mutex mutex_;      // of free_
  std::vector<std::uint32_t> free_;
};

// A snapshot block: what is saved at once, and what the reader takes at once.
inline constexpr std::size_t kSnapshotBlockBytes = kShardPieceBytes;

// The state of a shard at one moment, the cut, while the shard goes on changing: copy-on-write by blocks of
// at most 64 KiB. A cut increments an epoch and copies nothing. One thread updates the shard and says so
// beforehand; what it is about to overwrite for the first time since the cut is saved into a pool of fixed
// size. Another thread reads the tensors in order, each block once, from the shard or from the pool. When
// the pool is full the update waits for the reader; after a wait budget of `max_wait_s` the snapshot is lost
// and the reader gets Error(io). Blocks do not straddle tensors.
//
// A block's state is one atomic word, epoch and phase. A word of an older epoch means: untouched, the shard
// has it as it was at the cut.
//   untouched -> reading  -> drained     the reader copies it out of the shard; an update waits meanwhile
//   untouched -> copying  -> saved       the update copies it into the pool; the reader waits meanwhile
//   untouched -> lost                    the pool stayed full
// Both copies begin with a compare-and-swap (acquire) and end with a release store that the other side
// acquires, so that neither side's bytes are read and written at once.
class Snapshot {
 public:
  struct Options {
    std::size_t pool_bytes = 0;
    double max_wait_s = 15;  // the wait budget, from one reset_wait_budget() to the next
  };
  struct Costs {  // since the cut
    std::int64_t copy_ns = 0;
    std::int64_t wait_ns = 0;  // for the reader
    std::int64_t copied_bytes = 0;
  };
  // `tensors`: memory that does not move, in the order in which it will be read.
  Snapshot(const std::vector<std::span<std::byte>>& tensors, const Options& options);
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // The updating thread.
  void cut();  // REQUIRES: nobody reads any more
  void before_write(const std::byte* memory, std::size_t n_bytes);
  // The updating thread has shown its peers that it lives: its waits are counted anew.
  void reset_wait_budget() { budget_used_ns_ = 0; }
  const Costs& costs() const { return costs_; }

  // The reading thread. Copies bytes [offset, offset + out.size()) of a tensor as they were at the cut.
  // REQUIRES: offset is a multiple of kSnapshotBlockBytes, `out` is that block; each block once.
  void read(std::size_t tensor, std::size_t offset, std::span<std::byte> out);
  void end();  // nothing more is read of this cut

 private:
  enum Phase : std::uint64_t { kReading, kDrained, kCopying, kSaved, kLost, kPhases };
  struct Block {
    std::byte* memory = nullptr;
    std::size_t n_bytes = 0;
    std::atomic<std::uint64_t> state = 0;
    SnapshotPool::Place saved;  // the updating thread's until kSaved, the reader's from then on
  };
  std::uint64_t word(Phase phase) const { return epoch_ * kPhases + phase; }
  bool is_untouched(std::uint64_t state) const { return state < epoch_ * kPhases; }
  void save(Block& block);
  SnapshotPool::Place wait_for_place(const Block& block);
  void wait_while(const Block& block, Phase phase) const;

  std::vector<Block> blocks_;             // by address
  std::vector<std::size_t> first_block_;  // by tensor
  Options options_;
  SnapshotPool pool_;
  std::uint64_t epoch_ = 0;  // written by cut() only, when nobody reads
  std::atomic<bool> active_ = false;
  bool given_up_ = false;            // the updating thread's
  std::int64_t budget_used_ns_ = 0;  // waits for the reader, since reset_wait_budget()
  Costs costs_;
};

}  // namespace varscope
