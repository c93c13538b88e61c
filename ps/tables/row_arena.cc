#include "ps/tables/row_arena.h"

#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

namespace varscope {
namespace {

constexpr std::size_t kFirstSlabBytes = 1 << 10, kMostSlabBytes = 64 << 10;
constexpr std::size_t kPage = 4 << 10, kHugePage = 2 << 20, kLeastHugeChunk = 2 * kHugePage;
constexpr std::size_t kLeastChunk = 64 << 10, kMostChunk = 32 << 20;
// What is touched ahead is a 64th of what there is at most.
constexpr std::size_t kLeastPrepared = 64 * kLeastHugeChunk;

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

int rows_log2(std::size_t slab_bytes, std::size_t row_bytes) {
  return static_cast<int>(std::bit_width(std::max<std::size_t>(1, slab_bytes / row_bytes))) - 1;
}

std::byte* map_memory(std::size_t n_bytes) {
  void* memory = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

// Random accesses to rows miss the TLB less with huge pages, which begin at multiples of their size.
std::byte* map_huge(std::size_t n_bytes) {
  std::byte* const memory = map_memory(n_bytes + kHugePage);
  const auto address = std::bit_cast<std::uintptr_t>(memory);
  const std::size_t before = round_up(address, kHugePage) - address;
  if (before > 0) munmap(memory, before);
  munmap(memory + before + n_bytes, kHugePage - before);
#ifdef MADV_HUGEPAGE
  madvise(memory + before, n_bytes, MADV_HUGEPAGE);  // a wish: without it all is slower
#endif
  return memory + before;
}

// Whether it is being used already or not, and as far as the system can (Linux 5.14).
void touch([[maybe_unused]] std::byte* memory, [[maybe_unused]] std::size_t n_bytes) {
#ifdef MADV_POPULATE_WRITE
  madvise(memory, n_bytes, MADV_POPULATE_WRITE);
#endif
}

}  // namespace

SlabPool::SlabPool(std::size_t row_bytes)
    : row_bytes_(row_bytes),
      first_log2_(rows_log2(kFirstSlabBytes, row_bytes)),
      most_log2_(rows_log2(kMostSlabBytes, row_bytes)) {}

SlabPool::~SlabPool() {
  if (touching_.valid()) touching_.wait();
  if (next_.memory != nullptr) munmap(next_.memory, next_.n_bytes);
  for (const Chunk& chunk : chunks_) munmap(chunk.memory, chunk.n_bytes);
}

std::size_t SlabPool::Chunk::touched() const {
  return is_ready ? n_bytes : std::min(n_bytes, round_up(used, is_huge ? kHugePage : kPage));
}

std::size_t SlabPool::n_bytes() const {
  return touched_ + (chunks_.empty() ? 0 : chunks_.back().touched()) + next_.touched() +
         chunks_.capacity() * sizeof(Chunk);
}

// A sixteenth of what there is; large ones are a smaller share, since one of them is touched ahead.
std::size_t SlabPool::next_bytes() const {
  const std::size_t n = std::clamp(reserved_ / 16, kLeastChunk, kLeastHugeChunk);
  return std::clamp(reserved_ / 256, n, kMostChunk);
}

SlabPool::Chunk SlabPool::make_chunk(std::size_t least) const {
  std::size_t n = next_bytes();
  const bool is_huge = n >= kLeastHugeChunk && n >= least;
  n = round_up(std::max(n, least), is_huge ? kHugePage : kPage);
  return {is_huge ? map_huge(n) : map_memory(n), n, 0, is_huge, false};
}

void SlabPool::open_chunk(std::size_t least) {
  chunks_.reserve(chunks_.size() + 1);
  const bool is_there = next_.memory != nullptr && next_.n_bytes >= least;
  const Chunk chunk = is_there ? std::exchange(next_, {}) : make_chunk(least);
  if (!chunks_.empty()) touched_ += chunks_.back().touched();
  chunks_.push_back(chunk);
  reserved_ += chunk.n_bytes;
}

// Without memory or a thread for it, the next chunk is made when it is needed.
void SlabPool::prepare_next() {
  if (reserved_ < kLeastPrepared || next_.memory != nullptr) return;
  if (touching_.valid() && touching_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  try {
    next_ = make_chunk(0);
    touching_ = std::async(std::launch::async, touch, next_.memory, next_.n_bytes);
    next_.is_ready = true;
  } catch (const std::exception&) {
    if (next_.memory != nullptr) munmap(next_.memory, next_.n_bytes);
    next_ = {};
  }
}

std::byte* SlabPool::take(std::size_t n_bytes) {
  if (chunks_.empty() || chunks_.back().n_bytes - chunks_.back().used < n_bytes) open_chunk(n_bytes);
  Chunk& chunk = chunks_.back();
  std::byte* const memory = chunk.memory + chunk.used;
  chunk.used += n_bytes;
  prepare_next();
  return memory;
}

std::uint32_t RowArena::append() {
  if (place(end_).row == 0) add_slab();
  return end_++;
}

void RowArena::take_free() {
  std::byte* const row = this->row(first_free_);
  first_free_ = static_cast<std::uint32_t>(RowLayout::id_of(row));
  std::memset(row, 0, pool_->row_bytes());
}

void RowArena::free(std::uint32_t handle) {
  std::byte* const row = this->row(handle);
  RowLayout::set_id(row, first_free_);
  RowLayout::set_last(row, kFree);
  first_free_ = handle;
}

std::uint32_t RowArena::capacity_for(std::uint32_t n_slabs) {
  std::uint32_t capacity = 0;
  while (capacity < n_slabs) capacity += std::max<std::uint32_t>(8, capacity / 4);
  return capacity;
}

void RowArena::add_slab() {
  const std::uint32_t at = n_slabs();
  const std::size_t n = slab_rows(at);
  // Others look at slabs_ and at the memory in it; what a new slab has is nobody's yet.
  const std::lock_guard lock(pool_->mutex());
  if (at == capacity_for(at)) {
    auto slabs = std::make_unique<Slab[]>(capacity_for(at + 1));
    std::copy_n(slabs_.get(), at, slabs.get());
    slabs_ = std::move(slabs);
  }
  slabs_[at] = {pool_->take(n * pool_->row_bytes()), 0};
}

void RowArena::slabs(std::uint32_t n, std::vector<SlabView>& into) const {
  into.clear();
  const std::lock_guard lock(pool_->mutex());
  for (std::uint32_t i = 0; n > 0; ++i) {
    const auto rows = static_cast<std::uint32_t>(std::min<std::size_t>(n, slab_rows(i)));
    Slab& slab = slabs_[i];
    const std::atomic_ref<std::uint32_t> last(slab.last);
    into.push_back({{slab.memory, rows * pool_->row_bytes()}, last.load(std::memory_order_relaxed)});
    n -= rows;
  }
}

}  // namespace varscope
