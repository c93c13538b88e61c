#include "ps/tables/row_merge.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "common/base/error.h"
#include "common/base/row_id.h"
#include "common/base/vector_clones.h"

namespace varscope {
namespace {

// As add_into() (common/base/sum.h), into memory that may be that of one of them.
VARSCOPE_VECTOR_CLONES void add_float32(float* sum, const float* a, const float* b, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
}

VARSCOPE_VECTOR_CLONES void add_float64(double* sum, const double* a, const double* b, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
}

template <class T>
T* as(std::byte* memory) {
  return reinterpret_cast<T*>(memory);
}
template <class T>
const T* as(const std::byte* memory) {
  return reinterpret_cast<const T*>(memory);
}

}  // namespace

RowMerge::RowMerge(DType dtype, std::int64_t units)
    : dtype_(dtype), row_bytes_(static_cast<std::size_t>(units) * size_of(dtype)) {}

void RowMerge::begin(std::span<const TableShard::Contribution> contributions, const ReductionTree& tree) {
  const std::size_t n = contributions.size();
  if (n != static_cast<std::size_t>(tree.n_contributions()))
    fail(ErrorKind::protocol, "{} contributions to the rows of a step, but {} to its sum", n,
         tree.n_contributions());
  n_leaves_ = std::bit_ceil(n);
  cursors_.assign(n_leaves_, Cursor{});
  winners_.resize(n_leaves_);
  for (std::size_t i = 0; i < n_leaves_; ++i) {
    Cursor& cursor = cursors_[i];
    if (i < n) {
      const auto& c = contributions[i];
      cursor.position = c.positions.data();
      cursor.end = cursor.position + c.positions.size();
      cursor.ids = c.ids.data();
      cursor.gradient = c.gradients;
      cursor.count = c.counts;
    }
    set_head(cursor);
  }
  for (std::size_t node = n_leaves_; node-- > 1;) play(node);
  // A contribution is the right half of one merge at most: all to the left of it in that node end beside it.
  joins_.assign(n, 0);
  for (std::size_t i = 0; i < tree.merges().size(); ++i)
    joins_[static_cast<std::size_t>(tree.merges()[i].right)] = static_cast<std::uint32_t>(i);
  entries_.reserve(kBatch * n);
}

void RowMerge::set_head(Cursor& cursor) const {
  cursor.is_done = cursor.position == cursor.end;
  cursor.head =
      cursor.is_done ? std::numeric_limits<std::uint64_t>::max() : mix_row_id(cursor.ids[*cursor.position]);
}

bool RowMerge::before(std::uint32_t a, std::uint32_t b) const {
  const Cursor &x = cursors_[a], &y = cursors_[b];
  if (x.head != y.head) return x.head < y.head;
  if (x.is_done != y.is_done) return y.is_done;
  return a < b;
}

void RowMerge::advance(std::uint32_t contribution) {
  Cursor& cursor = cursors_[contribution];
  ++cursor.position;
  cursor.gradient += row_bytes_;
  if (cursor.count != nullptr) ++cursor.count;
  set_head(cursor);
  for (std::size_t node = (contribution + n_leaves_) / 2; node > 0; node /= 2) play(node);
}

std::size_t RowMerge::next() {
  entries_.clear();
  std::size_t n = 0;
  for (; n < kBatch; ++n) {
    std::uint32_t at = first();
    if (cursors_[at].is_done) break;
    const std::uint64_t mixed = cursors_[at].head;
    mixed_[n] = mixed;
    ids_[n] = unmix_row_id(mixed);
    begin_[n] = entries_.size();
    counts_[n] = 0;
    do {
      counts_[n] += cursors_[at].count == nullptr ? 1 : *cursors_[at].count;
      entries_.push_back({at, cursors_[at].gradient});
      advance(at);
      at = first();
    } while (cursors_[at].head == mixed && !cursors_[at].is_done);
  }
  begin_[n] = entries_.size();
  return n;
}

std::byte* RowMerge::scratch(std::size_t depth) {
  while (scratch_.size() <= depth) scratch_.push_back(allocate_aligned(row_bytes_));
  return scratch_[depth].get();
}

std::byte* RowMerge::sum(std::size_t i) {
  const std::span<const Entry> entries(entries_.data() + begin_[i], begin_[i + 1] - begin_[i]);
  if (entries.size() > 1) return sum_by_tree(entries);
  std::memcpy(scratch(0), entries[0].gradient, row_bytes_);
  return scratch(0);
}

// The tree over those who have the id: two neighbours among them meet at the greatest of the joins between
// them. One is added to the left as soon as the next one meets them above the node where these two do.
std::byte* RowMerge::sum_by_tree(std::span<const Entry> entries) {
  stack_.assign(1, entries[0].gradient);
  meets_.clear();
  for (std::size_t i = 1; i < entries.size(); ++i) {
    const std::uint32_t* const joins = joins_.data();
    const auto* const between = joins + entries[i - 1].contribution + 1;
    const std::uint32_t meet = *std::max_element(between, joins + entries[i].contribution + 1);
    while (!meets_.empty() && meets_.back() < meet) join_top();
    stack_.push_back(entries[i].gradient);
    meets_.push_back(meet);
  }
  while (!meets_.empty()) join_top();
  return scratch(0);
}

// Sums are at their depth's scratch.
void RowMerge::join_top() {
  const std::byte* const right = stack_.back();
  stack_.pop_back();
  meets_.pop_back();
  std::byte* const sum = scratch(stack_.size() - 1);
  const std::byte* const left = stack_.back();
  const auto n = static_cast<std::int64_t>(row_bytes_ / size_of(dtype_));
  if (dtype_ == DType::float32) {
    add_float32(as<float>(sum), as<float>(left), as<float>(right), n);
  } else {
    add_float64(as<double>(sum), as<double>(left), as<double>(right), n);
  }
  stack_.back() = sum;
}

std::size_t RowMerge::n_bytes() const {
  return cursors_.capacity() * sizeof(Cursor) + entries_.capacity() * sizeof(Entry) +
         (winners_.capacity() + joins_.capacity()) * sizeof(std::uint32_t) + scratch_.size() * row_bytes_;
}

}  // namespace varscope
