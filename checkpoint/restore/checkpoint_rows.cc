#include "checkpoint/restore/checkpoint_rows.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

void check_fits(const CheckpointReader& reader, const TableRecord& saved, const VariableSpec& wanted) {
  const RowLayout layout = reader.row_layout(saved.variable);
  const bool fits = wanted.is_table() && layout.units() == wanted.shape[1] &&
                    layout.dtype() == wanted.dtype && saved.spec.ids == wanted.table->ids;
  if (fits) return;
  fail(ErrorKind::checkpoint,
       "table \"{}\" of checkpoint {} has {} {} units and {} ids, the model's \"{}\" {}", saved.variable,
       reader.path(), layout.units(), to_string(layout.dtype()), to_string(saved.spec.ids), wanted.name,
       wanted.is_table() ? fmt::format("{} {} and {}", wanted.shape[1], to_string(wanted.dtype),
                                       to_string(wanted.table->ids))
                         : "is no table");
}

}  // namespace

CheckpointRows::CheckpointRows(CheckpointReader& reader, const VariableSpec& variable, const Options& options)
    : reader_(reader),
      name_(options.saved_name.empty() ? variable.name : options.saved_name),
      layout_(reader.row_layout(name_)),
      n_parts_(reader.table(name_).spec.parts),
      most_bytes_(options.most_bytes),
      first_values_(variable.initial_values(options.seed)) {
  check_fits(reader, reader.table(name_), variable);
  absent_ = variable.table->absent;
}

void CheckpointRows::read(std::span<const std::uint64_t> ids, std::byte* out) {
  // By parts, so that each is read once however few may be in memory.
  std::vector<std::pair<std::uint64_t, std::size_t>> order;
  order.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) order.emplace_back(mix_row_id(ids[i]), i);
  std::ranges::sort(order);
  const std::size_t n = layout_.value_bytes();
  for (const auto& [mixed, i] : order) {
    const Part& p = part(row_part(mixed, n_parts_));
    const auto it = std::ranges::lower_bound(p.mixed, mixed);
    std::byte* to = out + i * n;
    if (it != p.mixed.end() && *it == mixed) {
      std::memcpy(to, p.values.data() + static_cast<std::size_t>(it - p.mixed.begin()) * n, n);
    } else if (absent_ == AbsentRows::zeros) {
      std::memset(to, 0, n);
    } else {
      VariableSpec::fill_row(TensorView(layout_.dtype(), Shape{layout_.units()}, to), first_values_, ids[i]);
    }
  }
}

const CheckpointRows::Part& CheckpointRows::part(int part) {
  if (const auto it = parts_.find(part); it != parts_.end()) {
    used_.splice(used_.begin(), used_, it->second.used);
    return it->second;
  }
  Part loaded = load(part);
  while (!used_.empty() && n_bytes_ + loaded.n_bytes() > most_bytes_) {
    const auto oldest = parts_.find(used_.back());
    n_bytes_ -= oldest->second.n_bytes();
    parts_.erase(oldest);
    used_.pop_back();
  }
  n_bytes_ += loaded.n_bytes();
  loaded.used = used_.insert(used_.begin(), part);
  return parts_.emplace(part, std::move(loaded)).first->second;
}

CheckpointRows::Part CheckpointRows::load(int part) {
  reader_.read_rows(name_, part, rows_);
  Part loaded;
  const std::size_t n_rows = rows_.size() / layout_.row_bytes(), n = layout_.value_bytes();
  loaded.mixed.reserve(n_rows);
  loaded.values.resize(n_rows * n);
  for (std::size_t i = 0; i < n_rows; ++i) {
    const std::byte* row = rows_.data() + i * layout_.row_bytes();
    loaded.mixed.push_back(mix_row_id(RowLayout::id_of(row)));
    std::memcpy(loaded.values.data() + i * n, row + RowLayout::kValuesAt, n);
  }
  return loaded;
}

}  // namespace varscope
