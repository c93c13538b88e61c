#include "checkpoint/exchange/table_tensors.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/restore/row_cursor.h"

namespace varscope {

TableTensors::TableTensors(CheckpointReader& reader, std::string table, ExportSlots slots,
                           std::size_t most_bytes)
    : reader_(reader),
      table_(std::move(table)),
      most_bytes_(most_bytes),
      n_rows_(static_cast<std::uint64_t>(totals_of(reader.manifest(), table_).n_rows)) {
  const RowLayout layout = reader.row_layout(table_);
  const auto n = static_cast<std::int64_t>(n_rows_);
  add(".ids", DType::int64, {n}, {Kind::ids, 0, sizeof(std::uint64_t)});
  tensors_.back().is_unsigned = reader.table(table_).spec.ids != IdType::int64;
  add(".values", layout.dtype(), {n, layout.units()},
      {Kind::numbers, RowLayout::kValuesAt, layout.value_bytes()});
  if (slots == ExportSlots::leave_out) return;
  for (std::size_t i = 0; i < layout.slots().size(); ++i) {
    const RowSlot& s = layout.slots()[i];
    const Shape shape = s.n_elements == layout.units() ? Shape{n, s.n_elements} : Shape{n};
    add(".slots." + s.name, layout.dtype(), shape, {Kind::numbers, layout.slot_at(i), layout.slot_bytes(i)});
  }
  add(".last", DType::int64, {n}, {Kind::last, 0, sizeof(std::int64_t)});
  add(".count", DType::int64, {n}, {Kind::count, 0, sizeof(std::int64_t)});
}

void TableTensors::add(const std::string& name, DType dtype, Shape shape, const Field& field) {
  tensors_.push_back({table_ + name, dtype, std::move(shape)});
  fields_.push_back(field);
}

void TableTensors::read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) {
  const std::size_t n = fields_[tensor].n_bytes;
  const std::uint64_t begin =
      static_cast<std::uint64_t>(piece.linear_begin()) * size_of(tensors_[tensor].dtype);
  const std::uint64_t first = begin / n, end = (begin + out.size() + n - 1) / n;
  if (loaded_ != tensor || first < first_row_ || end > end_row_)
    load(tensor, first, std::max<std::uint64_t>(end - first, most_bytes_ / n));
  std::memcpy(out.data(), window_.data() + (begin - first_row_ * n), out.size());
}

void TableTensors::load_ids() {
  if (ids_.size() == n_rows_) return;
  ids_.reserve(n_rows_);
  for (RowCursor at(reader_, table_); at.row() != nullptr; at.next())
    ids_.push_back(RowLayout::id_of(at.row()));
  std::ranges::sort(ids_);
}

// Rows come in another order: each goes to the place of its id.
void TableTensors::load(std::size_t tensor, std::uint64_t first_row, std::uint64_t n_rows) {
  load_ids();
  const Field& field = fields_[tensor];
  loaded_ = tensor;
  first_row_ = first_row;
  end_row_ = std::min(n_rows_, first_row + n_rows);
  window_.resize((end_row_ - first_row_) * field.n_bytes);
  if (field.kind == Kind::ids) {
    std::memcpy(window_.data(), ids_.data() + first_row_, window_.size());
    return;
  }
  const std::uint64_t low = ids_[first_row_], high = ids_[end_row_ - 1];
  const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(first_row_),
             end = ids_.begin() + static_cast<std::ptrdiff_t>(end_row_);
  for (RowCursor at(reader_, table_); at.row() != nullptr; at.next()) {
    const std::uint64_t id = RowLayout::id_of(at.row());
    if (id < low || id > high) continue;
    const auto place = static_cast<std::size_t>(std::lower_bound(begin, end, id) - begin);
    copy_field(field, at.row(), window_.data() + place * field.n_bytes);
  }
}

void TableTensors::copy_field(const Field& field, const std::byte* row, std::byte* to) {
  if (field.kind == Kind::numbers) {
    std::memcpy(to, row + field.at, field.n_bytes);
    return;
  }
  const std::int64_t number = field.kind == Kind::last ? RowLayout::last_of(row) : RowLayout::count_of(row);
  std::memcpy(to, &number, sizeof number);
}

}  // namespace varscope
