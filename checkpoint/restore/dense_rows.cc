#include "checkpoint/restore/dense_rows.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "checkpoint/restore/row_cursor.h"
#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::int64_t kBandBytes = std::int64_t{1} << 20;

// The boxes of a dense variable by their columns; those of the same columns are rows below rows.
class BoxesByRow {
 public:
  explicit BoxesByRow(std::span<const DenseBox> boxes) {
    for (const DenseBox& b : boxes) of_columns_[{b.box.offset[1], b.box.extent[1]}].push_back(&b);
    for (auto& [columns, bands] : of_columns_) std::ranges::sort(bands, {}, first_row);
  }
  // Puts the elements of row `id` where they belong; `values` are all of its units.
  void put(std::int64_t id, const std::byte* values) const {
    for (const auto& [columns, bands] : of_columns_) {
      const auto after = std::ranges::upper_bound(bands, id, {}, first_row);
      if (after == bands.begin()) continue;
      const DenseBox& b = **std::prev(after);
      const std::int64_t row = id - b.box.offset[0];
      if (row >= b.box.extent[0]) continue;
      const std::size_t item = size_of(b.out.dtype());
      const auto n = static_cast<std::size_t>(columns.second) * item;
      std::memcpy(b.out.bytes() + static_cast<std::size_t>(row) * n,
                  values + static_cast<std::size_t>(columns.first) * item, n);
    }
  }

 private:
  static std::int64_t first_row(const DenseBox* b) { return b->box.offset[0]; }
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<const DenseBox*>> of_columns_;
};

// Row i of a dense variable begins as a table's row i: their element numbers are the same.
void fill_first_values(const InitialValues& values, const DenseBox& b) {
  const std::int64_t units = b.box.full[1], n = b.box.extent[1];
  const auto bytes = static_cast<std::size_t>(n) * size_of(b.out.dtype());
  std::byte* to = b.out.bytes();
  for (std::int64_t row = 0; row < b.box.extent[0]; ++row, to += bytes)
    values.fill(TensorView(b.out.dtype(), Shape{n}, to), (b.box.offset[0] + row) * units + b.box.offset[1]);
}

}  // namespace

void read_table_as_dense(CheckpointReader& reader, const std::string& saved_name, const std::string& variable,
                         std::uint64_t seed, std::span<const DenseBox> boxes) {
  const TableRecord& table = reader.table(saved_name);
  const InitialValues first = reader.manifest().variables.find(saved_name)->initial_values(seed);
  for (const DenseBox& b : boxes) fill_first_values(first, b);
  const auto n_rows = static_cast<std::uint64_t>(boxes.front().box.full[0]);
  const BoxesByRow by_row(boxes);
  std::optional<std::uint64_t> outside;
  std::int64_t n_outside = 0;
  for (RowCursor at(reader, saved_name); at.row() != nullptr; at.next()) {
    const std::uint64_t id = RowLayout::id_of(at.row());
    if (id < n_rows) {
      by_row.put(static_cast<std::int64_t>(id), at.row() + RowLayout::kValuesAt);
      continue;
    }
    ++n_outside;
    outside = std::min(id, outside.value_or(id));
  }
  if (!outside) return;
  fail(
      ErrorKind::checkpoint,
      "table \"{}\" of checkpoint {} has {} row{} that variable \"{}\" has not, which is dense with rows 0 to "
      "{}; the first is {}: give it more rows, make it a table, or leave it out of warm_start.map",
      saved_name, reader.path(), n_outside, n_outside == 1 ? "" : "s", variable, n_rows - 1,
      id_text(table.spec.ids, *outside));
}

void read_dense_as_rows(CheckpointReader& reader, const RowPlan::Table& table, const std::string& saved_name,
                        ServerId server, const TakeRowValues& take) {
  const VariableSpec& saved =
      *std::ranges::find(reader.manifest().variables.variables(), saved_name, &VariableSpec::full_name);
  const Shape& full = saved.full_shape();
  const auto row_bytes = static_cast<std::int64_t>(table.row_bytes());
  const std::int64_t band = std::max<std::int64_t>(1, kBandBytes / row_bytes);
  for (std::int64_t begin = 0; begin < full[0]; begin += band) {
    const Slice box{full, Shape{begin, 0}, Shape{std::min(band, full[0] - begin), table.units}};
    Tensor rows(table.dtype, box.extent);
    reader.read(saved_name, "", box, rows.view());
    for (std::int64_t i = 0; i < box.extent[0]; ++i) {
      const auto id = static_cast<std::uint64_t>(begin + i);
      if (table.server_of(id) == server) take(id, rows.view().bytes() + i * row_bytes);
    }
  }
}

}  // namespace varscope
