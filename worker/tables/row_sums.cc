#include "worker/tables/row_sums.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "common/base/norm_kernels.h"
#include "common/base/sum.h"

namespace varscope {

RowSums::RowSums(const RowPlan::Table& table, int n_buffers)
    : table_(table), buffers_(static_cast<std::size_t>(n_buffers)) {}

std::byte* RowSums::begin(int buffer, std::size_t n_rows) {
  const std::span<std::byte> bytes = at(buffer).memory.of((n_rows + 1) * table_.row_bytes());
  std::memset(bytes.data(), 0, bytes.size());
  return bytes.data();
}

void RowSums::touch(int buffer, std::span<const std::int32_t> positions,
                    std::span<const std::uint32_t> counts) {
  Buffer& b = at(buffer);
  b.touched.assign(positions.begin(), positions.end());
  if (counts.empty()) return;
  make_room_for_counts(b, static_cast<std::size_t>(positions.back()) + 1);
  for (std::size_t i = 0; i < counts.size(); ++i)
    b.counts[static_cast<std::size_t>(positions[i])] = counts[i];
}

void RowSums::make_room_for_counts(Buffer& buffer, std::size_t n_rows) const {
  if (buffer.counts.size() < n_rows) buffer.counts.resize(n_rows);
}

void RowSums::add_counts(Buffer& left, const Buffer& right) const {
  if (right.touched.empty()) return;
  make_room_for_counts(left, static_cast<std::size_t>(right.touched.back()) + 1);
  auto seen = left.touched.begin();
  for (const std::int32_t position : right.touched) {
    while (seen != left.touched.end() && *seen < position) ++seen;
    const auto row = static_cast<std::size_t>(position);
    const bool both_have = seen != left.touched.end() && *seen == position;
    left.counts[row] = right.counts[row] + (both_have ? left.counts[row] : 0);
  }
}

void RowSums::add(int into, int from, std::size_t n_rows) {
  Buffer& left = at(into);
  const Buffer& right = at(from);
  const std::size_t row_bytes = table_.row_bytes();
  // One that had no samples has no memory, or too little.
  if (!right.touched.empty() && left.touched.empty()) left.memory.of((n_rows + 1) * row_bytes);
  for (const std::int32_t position : right.touched) {
    const std::size_t offset = static_cast<std::size_t>(position) * row_bytes;
    std::byte* sum = left.memory.data() + offset;
    if (std::ranges::binary_search(left.touched, position)) {
      add_into(table_.dtype, sum, right.memory.data() + offset, row_bytes);
    } else {
      std::memcpy(sum, right.memory.data() + offset, row_bytes);
    }
  }
  if (table_.counts_ids()) add_counts(left, right);
  merged_.clear();
  std::ranges::set_union(left.touched, right.touched, std::back_inserter(merged_));
  std::swap(left.touched, merged_);
}

void RowSums::add_squares(int buffer, std::span<const std::uint64_t> ids, std::span<double> of_parts) const {
  with_real(table_.dtype, [&]<class T>(T) {
    const T* const rows = reinterpret_cast<const T*>(gradients(buffer));
    for (const std::int32_t position : touched(buffer)) {
      const auto part = static_cast<std::size_t>(table_.part_of(ids[static_cast<std::size_t>(position)]));
      of_parts[part] += kernels::sum_of_squares(rows + position * table_.units, table_.units);
    }
  });
}

void RowSums::scale(int buffer, double factor) {
  with_real(table_.dtype, [&]<class T>(T) {
    T* const rows = reinterpret_cast<T*>(at(buffer).memory.data());
    for (const std::int32_t position : touched(buffer))
      kernels::scale(rows + position * table_.units, static_cast<T>(factor), table_.units);
  });
}

}  // namespace varscope
