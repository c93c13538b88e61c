#include "checkpoint/tools/diff_rows.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "common/base/figures.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

std::uint64_t mixed_id(const std::byte* record) { return mix_row_id(RowLayout::id_of(record)); }

// A range of a row's bytes on both sides.
struct Field {
  std::size_t at_a, at_b;
  std::int64_t n_elements;
  TensorDifference difference;
};

// Rows and waiting ids of a whole table from first to last, ascending by mix_row_id(), one part in memory.
class RecordCursor {
 public:
  RecordCursor(CheckpointReader& reader, const std::string& table)
      : reader_(reader),
        table_(table),
        n_parts_(reader.table(table).spec.parts),
        row_bytes_(reader.row_layout(table).row_bytes()) {
    find();
  }

  // A record of a row, or of PartRows::waiting, until next(); nullptr behind the last one.
  const std::byte* record() const { return record_; }
  bool is_waiting() const { return is_waiting_; }
  void next() {
    if (is_waiting_) {
      waiting_at_ += PartRows::kWaitingBytes;
    } else {
      row_at_ += row_bytes_;
    }
    find();
  }

 private:
  void find() {
    while (row_at_ == part_.rows.size() && waiting_at_ == part_.waiting.size() && next_part_ < n_parts_) {
      reader_.read_part(table_, next_part_++, part_);
      row_at_ = waiting_at_ = 0;
    }
    const std::byte* row = row_at_ < part_.rows.size() ? part_.rows.data() + row_at_ : nullptr;
    const std::byte* waiting =
        waiting_at_ < part_.waiting.size() ? part_.waiting.data() + waiting_at_ : nullptr;
    is_waiting_ = waiting != nullptr && (row == nullptr || mixed_id(waiting) < mixed_id(row));
    record_ = is_waiting_ ? waiting : row;
  }

  CheckpointReader& reader_;
  const std::string& table_;
  int n_parts_, next_part_ = 0;
  std::size_t row_bytes_, row_at_ = 0, waiting_at_ = 0;
  PartRows part_;
  const std::byte* record_ = nullptr;
  bool is_waiting_ = false;
};

class RowComparison {
 public:
  RowComparison(CheckpointReader& a, CheckpointReader& b, const std::string& table)
      : ids_(a.table(table).spec.ids), layout_a_(a.row_layout(table)), layout_b_(b.row_layout(table)) {
    d_.name = table;
    fields_.push_back({RowLayout::kValuesAt, RowLayout::kValuesAt, layout_a_.units(), {table, {}, {}}});
    for (std::size_t i = 0; i < layout_a_.slots().size(); ++i) add_slot(i);
    for (const RowSlot& s : layout_b_.slots()) {
      if (find(layout_a_, s) == layout_a_.slots().size()) d_.slots_added.push_back(slot_text(s));
    }
  }

  void only_in_a(const RecordCursor& at) {
    note(at.is_waiting() ? d_.waiting_only_in_a : d_.only_in_a, at.record());
  }
  void only_in_b(const RecordCursor& at) {
    note(at.is_waiting() ? d_.waiting_only_in_b : d_.only_in_b, at.record());
  }
  void in_both(const RecordCursor& a, const RecordCursor& b) {
    if (a.is_waiting() != b.is_waiting()) {
      only_in_a(a);
      only_in_b(b);
    } else if (!a.is_waiting()) {
      rows_in_both(a.record(), b.record());
    } else if (std::memcmp(a.record(), b.record(), PartRows::kWaitingBytes) != 0) {
      note(d_.waiting_other_steps, a.record());
    }
  }
  void rows_in_both(const std::byte* a, const std::byte* b) {
    ++d_.n_in_both;
    double max_abs = 0;
    bool differs = false;
    for (Field& f : fields_) {
      TensorDifference& total = f.difference;
      const std::size_t n = static_cast<std::size_t>(f.n_elements);
      if (std::memcmp(a + f.at_a, b + f.at_b, n * size_of(layout_a_.dtype())) == 0) continue;
      TensorDifference here;
      compare_elements(layout_a_.dtype(), a + f.at_a, b + f.at_b, n, here);
      total.n_different += here.n_different;
      total.max_abs = std::max(total.max_abs, here.max_abs);
      total.max_relative = std::max(total.max_relative, here.max_relative);
      total.max_ulp = std::max(total.max_ulp, here.max_ulp);
      max_abs = std::max(max_abs, here.max_abs);
      differs = true;
    }
    if (differs) return note_different(a, max_abs);
    if (RowLayout::last_of(a) != RowLayout::last_of(b) || RowLayout::count_of(a) != RowLayout::count_of(b))
      note(d_.other_steps, a);
  }
  TableDifference finish() {
    for (Field& f : fields_) {
      if (f.difference.n_different == 0) continue;
      f.difference.dtype = to_string(layout_a_.dtype());
      f.difference.shape = fmt::format("[{} rows, {}]", d_.n_in_both, f.n_elements);
      f.difference.n_elements = d_.n_in_both * f.n_elements;
      d_.fields.push_back(std::move(f.difference));
    }
    return std::move(d_);
  }

 private:
  static constexpr std::size_t kMostIds = 5;

  static std::size_t find(const RowLayout& layout, const RowSlot& slot) {
    return static_cast<std::size_t>(std::ranges::find(layout.slots(), slot) - layout.slots().begin());
  }
  std::string slot_text(const RowSlot& s) const {
    return fmt::format("{} (slot {}) [{}] of each row", d_.name, s.name, s.n_elements);
  }
  void add_slot(std::size_t i) {
    const RowSlot& s = layout_a_.slots()[i];
    const std::size_t other = find(layout_b_, s);
    if (other == layout_b_.slots().size()) {
      d_.slots_removed.push_back(slot_text(s));
      return;
    }
    fields_.push_back({layout_a_.slot_at(i),
                       layout_b_.slot_at(other),
                       s.n_elements,
                       {fmt::format("{} (slot {})", d_.name, s.name), {}, {}}});
  }
  void note(TableDifference::Rows& rows, const std::byte* row) const {
    ++rows.n;
    if (rows.ids.size() < kMostIds) rows.ids.push_back(id_text(ids_, RowLayout::id_of(row)));
  }
  void note_different(const std::byte* row, double max_abs) {
    note(d_.different, row);
    if (!d_.max_abs_in.empty() && max_abs <= d_.max_abs) return;
    d_.max_abs = max_abs;
    d_.max_abs_in = id_text(ids_, RowLayout::id_of(row));
  }

  IdType ids_;
  RowLayout layout_a_, layout_b_;
  std::vector<Field> fields_;
  TableDifference d_;
};

std::string ids_text(const TableDifference::Rows& rows) {
  return fmt::format("{}{}", fmt::join(rows.ids, ", "),
                     rows.n > static_cast<std::int64_t>(rows.ids.size()) ? ", ..." : "");
}

Json json_of(const TableDifference::Rows& rows, const char* what = "rows") {
  return {{what, rows.n}, {"first_ids", rows.ids}};
}

}  // namespace

TableDifference compare_rows(CheckpointReader& a, CheckpointReader& b, const std::string& table) {
  RowComparison comparison(a, b, table);
  RecordCursor at_a(a, table), at_b(b, table);
  while (at_a.record() != nullptr || at_b.record() != nullptr) {
    const std::byte *x = at_a.record(), *y = at_b.record();
    if (y == nullptr || (x != nullptr && mixed_id(x) < mixed_id(y))) {
      comparison.only_in_a(at_a);
      at_a.next();
    } else if (x == nullptr || mixed_id(y) < mixed_id(x)) {
      comparison.only_in_b(at_b);
      at_b.next();
    } else {
      comparison.in_both(at_a, at_b);
      at_a.next();
      at_b.next();
    }
  }
  return comparison.finish();
}

std::string text_of(const TableDifference& d) {
  std::vector<std::string> texts;
  if (d.only_in_a.n > 0)
    texts.push_back(fmt::format("{} only in a ({})", d.only_in_a.n, ids_text(d.only_in_a)));
  if (d.only_in_b.n > 0)
    texts.push_back(fmt::format("{} only in b ({})", d.only_in_b.n, ids_text(d.only_in_b)));
  if (d.different.n > 0)
    texts.push_back(fmt::format("{} of {} differ ({}), most in row {} (by {})", d.different.n, d.n_in_both,
                                ids_text(d.different), d.max_abs_in, short_number(d.max_abs)));
  if (d.other_steps.n > 0)
    texts.push_back(
        fmt::format("{} have another last step or count ({})", d.other_steps.n, ids_text(d.other_steps)));
  const auto add_waiting = [&](const TableDifference::Rows& ids, const char* what) {
    if (ids.n > 0) texts.push_back(fmt::format("{} waiting {} ({})", ids.n, what, ids_text(ids)));
  };
  add_waiting(d.waiting_only_in_a, "only in a");
  add_waiting(d.waiting_only_in_b, "only in b");
  add_waiting(d.waiting_other_steps, "with another last step or count");
  if (texts.empty()) texts.emplace_back("other slots");
  return fmt::format("{}", fmt::join(texts, ", "));
}

Json json_of(const TableDifference& d) {
  return {{"name", d.name},
          {"in_both", d.n_in_both},
          {"only_in_a", json_of(d.only_in_a)},
          {"only_in_b", json_of(d.only_in_b)},
          {"different", json_of(d.different)},
          {"other_last_step_or_count", json_of(d.other_steps)},
          {"waiting",
           {{"only_in_a", json_of(d.waiting_only_in_a, "ids")},
            {"only_in_b", json_of(d.waiting_only_in_b, "ids")},
            {"other_last_step_or_count", json_of(d.waiting_other_steps, "ids")}}},
          {"max_abs", d.max_abs},
          {"max_abs_in", d.max_abs_in}};
}

}  // namespace varscope
