#include "ps/tables/row_snapshot.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "common/base/backoff.h"
#include "common/base/clock.h"
#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kPageBytes = 256 << 10;

}  // namespace

SavedRows::Node* SavedRows::take() {
  if (free_ == nullptr) {
    const std::lock_guard lock(mutex_);
    free_ = std::exchange(returned_, nullptr);
  }
  if (free_ != nullptr) return std::exchange(free_, free_->next);
  if (n_made_ == most_) return nullptr;
  if (left_ == 0) {
    left_ = std::min(std::max<std::size_t>(1, kPageBytes / node_bytes_), most_ - n_made_);
    pages_.push_back(allocate_aligned(left_ * node_bytes_));
    n_bytes_ += left_ * node_bytes_;
  }
  ++n_made_;
  return new (pages_.back().get() + --left_ * node_bytes_) Node;
}

void SavedRows::give_back_unused(Node* node) {
  node->next = free_;
  free_ = node;
}

void SavedRows::give_back(Node* first, Node* last) {
  const std::lock_guard lock(mutex_);
  last->next = returned_;
  returned_ = first;
}

void SavedRows::clear() {
  pages_.clear();
  n_made_ = n_bytes_ = left_ = 0;
  free_ = returned_ = nullptr;
}

RowSnapshot::RowSnapshot(const std::string& table, const std::vector<int>& parts,
                         const std::vector<TablePart>& rows, std::size_t row_bytes)
    : table_(table), parts_(parts), rows_(rows), row_bytes_(row_bytes), saved_(row_bytes) {}

void RowSnapshot::cut(Clock clock, std::uint32_t least_last) {
  if (is_active()) fail(ErrorKind::argument, "table \"{}\": a cut while another is being read", table_);
  release_memory();
  clock_ = static_cast<std::uint32_t>(clock.value);
  least_last_ = least_last;
  n_rows_.resize(rows_.size());
  std::size_t n_all = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    n_rows_[i] = rows_[i].arena.end();
    n_all += rows_[i].index.n_rows();
  }
  lists_.assign(rows_.size(), nullptr);
  saved_.set_limit(
      limits_.most_bytes == 0
          ? n_all
          : std::max<std::size_t>(1, limits_.most_bytes / (sizeof(SavedRows::Node) + row_bytes_)));
  costs_ = {};
  n_saves_ = 0;
  next_part_ = 0;
  is_lost_.store(false);
  reading_.store(0);
  is_active_.store(true, std::memory_order_release);
}

void RowSnapshot::release_memory() {
  if (saved_.n_bytes() > 0) saved_.clear();
}

std::size_t RowSnapshot::n_bytes() const {
  return saved_.n_bytes() + n_rows_.capacity() * sizeof(std::uint32_t) +
         lists_.capacity() * sizeof(SavedRows::Node*);
}

bool RowSnapshot::claim(std::size_t part, std::uint32_t handle, const std::byte* row) {
  const std::uint64_t at = position(part, rows_[part].arena.slab_of(handle));
  if (reading_.load() / 2 > at) return false;
  SavedRows::Node* node = nullptr;
  const std::uint32_t last = RowLayout::last_of(row);
  if (last <= clock_ && last >= least_last_ && !is_lost_.load(std::memory_order_relaxed)) {
    node = saved_.take();
    if (node == nullptr) node = wait_for_node(at);
  }
  std::int64_t waiting_since = 0;
  Backoff backoff;
  for (;;) {
    writing_.store(at);
    const std::uint64_t reading = reading_.load();
    if (reading / 2 != at || reading % 2 == 0) {
      if (waiting_since != 0) costs_.wait_ns += now_ns() - waiting_since;
      if (reading / 2 <= at) break;
      writing_.store(kNobody);
      if (node != nullptr) saved_.give_back_unused(node);
      return false;
    }
    writing_.store(kNobody);
    if (waiting_since == 0) waiting_since = now_ns();
    backoff.pause();
  }
  if (node != nullptr) save(node, part, row);
  return true;
}

// Without writing_: the reader may need this very slab. Null when it needs no node any more, or when the
// snapshot is given up.
SavedRows::Node* RowSnapshot::wait_for_node(std::uint64_t at) {
  const std::int64_t started = now_ns();
  SavedRows::Node* node = nullptr;
  Backoff backoff;
  while (node == nullptr && reading_.load() / 2 <= at) {
    if (static_cast<double>(budget_used_ns_ + now_ns() - started) * 1e-9 > limits_.max_wait_s) {
      is_lost_.store(true);
      break;
    }
    backoff.pause();
    node = saved_.take();
  }
  const std::int64_t waited = now_ns() - started;
  costs_.wait_ns += waited;
  budget_used_ns_ += waited;
  return node;
}

void RowSnapshot::save(SavedRows::Node* node, std::size_t part, const std::byte* row) {
  const bool is_timed = n_saves_++ % kTimedSaves == 0;
  const std::int64_t started = is_timed ? now_ns() : 0;
  std::memcpy(node->row(), row, row_bytes_);
  node->next = std::exchange(lists_[part], node);
  costs_.copied_bytes += static_cast<std::int64_t>(row_bytes_);
  if (is_timed) costs_.copy_ns += kTimedSaves * (now_ns() - started);
}

void RowSnapshot::check_not_lost() const {
  if (!is_lost_.load()) return;
  fail(ErrorKind::io,
       "table \"{}\": updates waited {:g} s for the disk while the snapshot's {:.3g} MiB of saved rows were "
       "full; raise checkpoint.pool_mib, or use a faster disk",
       table_, limits_.max_wait_s, static_cast<double>(saved_.limit_bytes()) / (1 << 20));
}

// Appends the slab to found_.
std::span<const std::byte> RowSnapshot::copy_slab(std::uint64_t at, std::span<const std::byte> slab) {
  const std::size_t begin = found_.size();
  found_.resize(begin + slab.size());
  reading_.store(2 * at + 1);
  Backoff backoff;
  while (writing_.load() == at) backoff.pause();
  std::memcpy(found_.data() + begin, slab.data(), slab.size());
  reading_.store(2 * (at + 1));
  return std::span(found_).subspan(begin);
}

// Unread. Who is in it may still be saving a row.
void RowSnapshot::pass_slab(std::uint64_t at) {
  reading_.store(2 * (at + 1));
  Backoff backoff;
  while (writing_.load() == at) backoff.pause();
}

// found_ becomes the part's rows at the cut, in no order.
void RowSnapshot::copy_part(std::size_t part, std::uint32_t least_last) {
  const auto is_read = [&](const std::byte* row) {
    const std::uint32_t last = RowLayout::last_of(row);
    return last <= clock_ && last >= least_last;
  };
  found_.clear();
  rows_[part].arena.slabs(n_rows_[part], slabs_);
  for (std::size_t i = 0; i < slabs_.size(); ++i) {
    const std::uint64_t at = position(part, static_cast<std::uint32_t>(i));
    // A slab's greatest `last` never falls: at the cut it was no greater.
    if (slabs_[i].last < least_last) {
      pass_slab(at);
      continue;
    }
    std::size_t kept = found_.size();
    const auto rows = copy_slab(at, slabs_[i].rows);
    for (std::size_t from = 0; from < rows.size(); from += row_bytes_) {
      if (!is_read(rows.data() + from)) continue;
      if (found_.data() + kept != rows.data() + from)
        std::memcpy(found_.data() + kept, rows.data() + from, row_bytes_);
      kept += row_bytes_;
    }
    found_.resize(kept);
  }
  reading_.store(2 * position(part + 1, 0));
  check_not_lost();
  SavedRows::Node* const first = lists_[part];
  for (SavedRows::Node* node = first; node != nullptr; node = node->next) {
    if (is_read(node->row())) found_.insert(found_.end(), node->row(), node->row() + row_bytes_);
    if (node->next != nullptr) continue;
    saved_.give_back(first, node);
    break;
  }
}

void RowSnapshot::read_part(int part, std::uint32_t least_last, std::vector<std::byte>& rows) {
  if (!is_active() || next_part_ >= parts_.size() || parts_[next_part_] != part) {
    fail(ErrorKind::argument, "table \"{}\": part {} is not the next one of a cut to be read", table_, part);
  }
  check_not_lost();
  copy_part(next_part_++, std::max(least_last, least_last_));
  struct Key {
    std::uint64_t mixed;
    std::size_t at;
  };
  std::vector<Key> order;
  order.reserve(found_.size() / row_bytes_);
  for (std::size_t at = 0; at < found_.size(); at += row_bytes_)
    order.push_back({mix_row_id(RowLayout::id_of(found_.data() + at)), at});
  std::ranges::sort(order, {}, &Key::mixed);
  rows.resize(found_.size());
  std::byte* to = rows.data();
  for (const Key& key : order) {
    std::memcpy(to, found_.data() + key.at, row_bytes_);
    to += row_bytes_;
  }
}

void RowSnapshot::end() {
  found_ = {};
  reading_.store(2 * position(parts_.size(), 0));
  is_active_.store(false, std::memory_order_release);
}

}  // namespace varscope
