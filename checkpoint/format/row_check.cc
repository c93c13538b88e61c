#include "checkpoint/format/row_check.h"

#include <algorithm>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::array<const char*, 3> kRecordNames = {"row", "waiting id", "removed id"};

}  // namespace

RowsCheck::Counts RowsCheck::Counts::of(const PartRows& rows, const RowLayout& layout) {
  return {static_cast<std::int64_t>(rows.rows.size() / layout.row_bytes()),
          static_cast<std::int64_t>(rows.waiting.size() / PartRows::kWaitingBytes),
          static_cast<std::int64_t>(rows.removed.size())};
}

std::size_t RowsCheck::record_bytes() const {
  if (kind_ == 0) return layout_->row_bytes();
  return kind_ == 1 ? PartRows::kWaitingBytes : RowPiece::kRemovedBytes;
}

void RowsCheck::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    while (kind_ < left_.size() && left_[kind_] <= 0) {
      ++kind_;
      n_records_ = 0;
    }
    if (kind_ == left_.size()) {
      n_behind_ += bytes.size();
      return;
    }
    const std::size_t n = record_bytes();
    if (cut_.empty() && bytes.size() >= n) {
      add_record(bytes.data());
      bytes = bytes.subspan(n);
      continue;
    }
    const std::size_t more = std::min(n - cut_.size(), bytes.size());
    cut_.insert(cut_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(more));
    bytes = bytes.subspan(more);
    if (cut_.size() < n) return;
    add_record(cut_.data());
    cut_.clear();
  }
}

void RowsCheck::add(const PartRows& rows) {
  const auto whole = [](std::span<const std::byte> bytes, std::size_t n) {
    return bytes.first(bytes.size() / n * n);
  };
  add(whole(rows.rows, layout_->row_bytes()));
  add(whole(rows.waiting, PartRows::kWaitingBytes));
  add(std::as_bytes(std::span(rows.removed)));
}

void RowsCheck::add_record(const std::byte* record) {
  const std::uint64_t id = RowLayout::id_of(record), mixed = mix_row_id(id);
  if (problem_.empty() && row_part(mixed, spec_.parts) != part_) {
    problem_ = fmt::format("has {} {} (id {}) of part {}", kRecordNames[kind_], n_records_,
                           id_text(spec_.ids, id), row_part(mixed, spec_.parts));
  } else if (problem_.empty() && n_records_ > 0 && mixed <= last_mixed_) {
    problem_ = fmt::format("has {} {} (id {}) {}", kRecordNames[kind_], n_records_, id_text(spec_.ids, id),
                           mixed == last_mixed_ ? "twice" : "out of order");
  }
  last_mixed_ = mixed;
  ++n_records_;
  --left_[kind_];
  if (kind_ == 0 && has_sum_) sum_.add(id, {record + RowLayout::kValuesAt, layout_->value_bytes()});
}

std::string RowsCheck::problem() const {
  if (!problem_.empty()) return problem_;
  if (!cut_.empty())
    return fmt::format("ends with {} bytes of a {} of {}", cut_.size(), kRecordNames[kind_], record_bytes());
  if (n_behind_ > 0) return fmt::format("has {} bytes behind its last record", n_behind_);
  for (std::size_t kind = 0; kind < left_.size(); ++kind) {
    if (left_[kind] > 0) return fmt::format("ends {} {}s too early", left_[kind], kRecordNames[kind]);
  }
  return "";
}

std::string sum_problem(const RowHashSum& sum, const RowPartRecord& record) {
  if (sum.digest() == record.hash_sum) return "";
  return fmt::format("has the hash sum {} instead of {}", sum.digest().hex(), record.hash_sum.hex());
}

}  // namespace varscope
