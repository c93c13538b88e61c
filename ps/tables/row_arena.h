#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/variables/row_layout.h"

namespace varscope {

// Memory for the slabs of all arenas of one table: chunks from the system that grow with what there is, cut
// from front to back. Nothing is given back before the end. Slabs are zero; they begin at multiples of 8
// bytes, or of 64 where all rows have multiples of 64. To clear a huge page takes the system milliseconds,
// which no step should wait for: while one large chunk is cut, a thread touches the next one. One thread
// takes; see RowArena for who else looks.
class SlabPool {
 public:
  // REQUIRES: row_bytes is a multiple of 8, and not 0.
  explicit SlabPool(std::size_t row_bytes);
  ~SlabPool();
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  std::size_t row_bytes() const { return row_bytes_; }
  // Throws std::bad_alloc.
  std::byte* take(std::size_t n_bytes);
  // What the slabs that have been taken occupy, in whole pages; and chunks that have been touched ahead.
  std::size_t n_bytes() const;

  // An arena's slab i has rows in number 2^first_log2() times 2^(i / 16), at most 2^most_log2(): about 1 KiB
  // at first, 64 KiB at last, at least one row.
  int first_log2() const { return first_log2_; }
  int most_log2() const { return most_log2_; }
  // Guards what a reading thread sees of an arena while another adds slabs to it.
  std::mutex& mutex() { return mutex_; }

 private:
  struct Chunk {
    std::byte* memory = nullptr;
    std::size_t n_bytes = 0, used = 0;
    bool is_huge = false;   // of huge pages, where the system has them
    bool is_ready = false;  // all of it has been touched
    std::size_t touched() const;
  };
  void open_chunk(std::size_t least);
  std::size_t next_bytes() const;
  Chunk make_chunk(std::size_t least) const;
  void prepare_next();

  std::size_t row_bytes_;
  int first_log2_, most_log2_;
  std::vector<Chunk> chunks_;
  std::size_t reserved_ = 0, touched_ = 0;  // of all chunks; of all but the last
  Chunk next_;                              // that is being touched, if there is one
  std::future<void> touching_;              // the last one that was next_
  std::mutex mutex_;
};

// The rows of one part of a table, in slabs that never move. A row's handle is its number, from 0: slab and
// place follow from its bits. Slabs hold about a sixteenth of the rows there are, so that little is empty
// whatever the number of rows. The place of a row that has been removed is free: its `last` is kFree, which
// is no step, its id the next free place, and the next row takes it. One thread; a second one may call
// slabs() meanwhile, and read rows that are not being written.
class RowArena {
 public:
  static constexpr int kSlabsLog2 = 4;  // slabs of one size
  static constexpr std::uint32_t kMostRows = ~std::uint32_t{0};
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};  // `last` of a free place

  explicit RowArena(SlabPool& pool) : pool_(&pool) {}

  std::uint32_t end() const { return end_; }  // all handles are below, those of free places too
  std::uint32_t n_slabs() const { return end_ == 0 ? 0 : slab_of(end_ - 1) + 1; }
  std::size_t n_bytes() const { return capacity_for(n_slabs()) * sizeof(Slab); }  // without the slabs

  // The handle of a new row at the end, of zeros. Throws std::bad_alloc; then nothing has changed. REQUIRES
  // end() < kMostRows.
  std::uint32_t append();
  // A free place; kNone: there is none.
  std::uint32_t first_free() const { return first_free_; }
  // first_free() is free no more, and of zeros.
  void take_free();
  // REQUIRES: it is not free.
  void free(std::uint32_t handle);
  static bool is_free(const std::byte* row) { return RowLayout::last_of(row) == kFree; }

  std::byte* row(std::uint32_t handle) const {
    const Place at = place(handle);
    return slabs_[at.slab].memory + at.row * pool_->row_bytes();
  }
  std::uint32_t slab_of(std::uint32_t handle) const { return place(handle).slab; }

  // f(handle, row) of each place that is not free, in order of handles; f may free it.
  template <class F>
  void for_each(const F& f) const {
    const std::size_t row_bytes = pool_->row_bytes();
    std::uint32_t handle = 0;
    for (std::uint32_t slab = 0; handle < end_; ++slab) {
      std::byte* row = slabs_[slab].memory;
      const auto n = static_cast<std::uint32_t>(std::min<std::size_t>(end_ - handle, slab_rows(slab)));
      for (const std::uint32_t end = handle + n; handle < end; ++handle, row += row_bytes) {
        if (!is_free(row)) f(handle, row);
      }
    }
  }

  // For many rows at once: where it says where a row is, which has been prefetched, and later the row. Until
  // the next append().
  struct Lead {
    std::byte* const* memory = nullptr;
    std::size_t offset = 0;
    std::byte* row() const { return *memory + offset; }
  };
  Lead lead(std::uint32_t handle) const {
    const Place at = place(handle);
    __builtin_prefetch(&slabs_[at.slab]);
    return {&slabs_[at.slab].memory, at.row * pool_->row_bytes()};
  }

  // The greatest `last` that touch() has been told of a slab's rows.
  std::uint32_t greatest_last(std::uint32_t slab) const { return slabs_[slab].last; }
  void touch(std::uint32_t handle, std::uint32_t last) {
    const std::atomic_ref<std::uint32_t> greatest(slabs_[place(handle).slab].last);
    if (greatest.load(std::memory_order_relaxed) < last) greatest.store(last, std::memory_order_relaxed);
  }

  struct SlabView {
    std::span<const std::byte> rows;
    std::uint32_t last = 0;  // the greatest, as touch() was told until now
  };
  // The places [0, n) as they lie in the slabs, in order of their handles. Any thread. REQUIRES n <= end() at
  // some time before.
  void slabs(std::uint32_t n, std::vector<SlabView>& into) const;

 private:
  struct Slab {
    std::byte* memory = nullptr;
    std::uint32_t last = 0;
  };
  struct Place {
    std::uint32_t slab, row;
  };
  // As of a floating-point number: the highest bit of handle + 16 * 2^first says how large the slab is, the
  // next four which of that size, the rest which row.
  Place place(std::uint32_t handle) const {
    const int first = pool_->first_log2();
    const std::uint64_t u = std::uint64_t{handle} + (std::uint64_t{1} << (first + kSlabsLog2));
    const int log2 = std::min(static_cast<int>(std::bit_width(u)) - 1 - kSlabsLog2, pool_->most_log2());
    const std::uint64_t slab = (u >> log2) + (static_cast<std::uint64_t>(log2 - first) << kSlabsLog2);
    return {static_cast<std::uint32_t>(slab - (1U << kSlabsLog2)),
            static_cast<std::uint32_t>(u & ((std::uint64_t{1} << log2) - 1))};
  }
  std::size_t slab_rows(std::uint32_t slab) const {
    return std::size_t{1} << std::min<std::uint32_t>(
               static_cast<std::uint32_t>(pool_->first_log2()) + (slab >> kSlabsLog2),
               static_cast<std::uint32_t>(pool_->most_log2()));
  }
  void add_slab();
  static std::uint32_t capacity_for(std::uint32_t n_slabs);

  SlabPool* pool_;
  std::unique_ptr<Slab[]> slabs_;  // capacity_for(n_slabs())
  std::uint32_t end_ = 0;
  std::uint32_t first_free_ = kNone;
};

}  // namespace varscope
