#include "checkpoint/format/row_chain.h"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "common/base/error.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

enum class Kind : std::uint8_t { row, waiting, removed };

// What the newest piece that knows an id says of it.
struct Change {
  std::uint64_t mixed = 0;
  std::size_t age = 0;  // 0: of the newest piece
  Kind kind = Kind::row;
  const std::byte* record = nullptr;
};

void add_changes(std::span<const std::byte> records, std::size_t n_bytes, std::size_t age, Kind kind,
                 std::vector<Change>& changes) {
  for (; !records.empty(); records = records.subspan(n_bytes))
    changes.push_back({mix_row_id(RowLayout::id_of(records.data())), age, kind, records.data()});
}

std::string twice(const TableSpec& spec, std::uint64_t mixed) {
  return fmt::format("has id {} in two lists of one piece", id_text(spec.ids, unmix_row_id(mixed)));
}

// Of all pieces but the base, by mixed id. `problem`: "" or an id that is twice in one piece.
std::vector<Change> changes_of(const RowLayout& layout, const TableSpec& spec,
                               std::span<const PartRows> pieces, std::string& problem) {
  std::vector<Change> all;
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    const std::size_t age = pieces.size() - 1 - i;
    add_changes(pieces[i].rows, layout.row_bytes(), age, Kind::row, all);
    add_changes(pieces[i].waiting, PartRows::kWaitingBytes, age, Kind::waiting, all);
    add_changes(std::as_bytes(std::span(pieces[i].removed)), RowPiece::kRemovedBytes, age, Kind::removed,
                all);
  }
  std::ranges::sort(all, {}, [](const Change& c) { return std::tuple(c.mixed, c.age, c.kind); });
  std::size_t n = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i > 0 && all[i].mixed == all[i - 1].mixed) {
      if (all[i].age == all[i - 1].age && problem.empty()) problem = twice(spec, all[i].mixed);
      continue;
    }
    if (n != i) all[n] = all[i];
    ++n;
  }
  all.resize(n);
  return all;
}

std::string base_problem(const RowLayout& layout, const TableSpec& spec, const PartRows& base) {
  std::size_t row = 0;
  for (std::size_t at = 0; at < base.waiting.size(); at += PartRows::kWaitingBytes) {
    const std::uint64_t mixed = mix_row_id(RowLayout::id_of(base.waiting.data() + at));
    for (; row < base.rows.size(); row += layout.row_bytes()) {
      const std::uint64_t other = mix_row_id(RowLayout::id_of(base.rows.data() + row));
      if (other == mixed) return twice(spec, mixed);
      if (other > mixed) break;
    }
  }
  return "";
}

// The records of one kind, of the base and the changes laid over them.
class Overlay {
 public:
  Overlay(const TableSpec& spec, std::int64_t step, std::size_t n_bytes, std::vector<std::byte>& out)
      : spec_(spec), step_(step), n_bytes_(n_bytes), out_(out) {}

  void run(std::span<const std::byte> base, const std::vector<Change>& changes, Kind kind) {
    out_.reserve(base.size());
    auto change = changes.begin();
    const auto take = [&] {
      if (change->kind == kind) add(change->record);
      ++change;
    };
    for (; !base.empty(); base = base.subspan(n_bytes_)) {
      const std::uint64_t mixed = mix_row_id(RowLayout::id_of(base.data()));
      while (change != changes.end() && change->mixed < mixed) take();
      if (change != changes.end() && change->mixed == mixed) {
        take();
      } else {
        add(base.data());
      }
    }
    while (change != changes.end()) take();
  }

 private:
  void add(const std::byte* record) {
    if (!spec_.is_expired(RowLayout::last_of(record), step_))
      out_.insert(out_.end(), record, record + n_bytes_);
  }

  const TableSpec& spec_;
  std::int64_t step_;
  std::size_t n_bytes_;
  std::vector<std::byte>& out_;
};

}  // namespace

std::string merge_pieces(const RowLayout& layout, const TableSpec& spec, std::int64_t step,
                         std::span<PartRows> pieces, PartRows& out) {
  out.clear();
  PartRows& base = pieces.front();
  std::string problem = base_problem(layout, spec, base);
  const std::vector<Change> changes = changes_of(layout, spec, pieces, problem);
  if (!problem.empty()) return problem;
  if (changes.empty() && spec.expire_steps == 0) {
    std::swap(out.rows, base.rows);
    std::swap(out.waiting, base.waiting);
    return "";
  }
  Overlay(spec, step, layout.row_bytes(), out.rows).run(base.rows, changes, Kind::row);
  Overlay(spec, step, PartRows::kWaitingBytes, out.waiting).run(base.waiting, changes, Kind::waiting);
  return "";
}

}  // namespace varscope
