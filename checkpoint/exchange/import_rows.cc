#include "checkpoint/exchange/import_rows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

constexpr std::string_view kIds = ".ids", kValues = ".values", kLast = ".last", kCount = ".count",
                           kSlots = ".slots.";

bool is_row_number(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }

std::string text_of(const NamedTensor& t) {
  return fmt::format("\"{}\" is {} {}", t.name, t.is_unsigned ? "uint64" : to_string(t.dtype), t.shape.str());
}

}  // namespace

std::map<std::string, std::vector<std::size_t>> ImportedTable::find(const std::vector<NamedTensor>& tensors) {
  std::map<std::string_view, std::size_t> by_name;
  for (std::size_t i = 0; i < tensors.size(); ++i) by_name[tensors[i].name] = i;
  std::map<std::string, std::vector<std::size_t>> tables;
  for (const NamedTensor& t : tensors) {
    if (!t.name.ends_with(kIds) || t.dtype != DType::int64 || t.shape.rank() != 1) continue;
    const std::string base = t.name.substr(0, t.name.size() - kIds.size());
    const auto values = by_name.find(base + std::string(kValues));
    if (base.empty() || values == by_name.end() || !is_row_number(tensors[values->second].dtype)) continue;
    std::vector<std::size_t>& of_table = tables[base];
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::string_view name = tensors[i].name;
      if (!name.starts_with(base)) continue;
      const std::string_view rest = name.substr(base.size());
      if (rest == kIds || rest == kValues || rest == kLast || rest == kCount || rest.starts_with(kSlots))
        of_table.push_back(i);
    }
  }
  return tables;
}

ImportedTable::ImportedTable(TensorSource& source, const std::string& file, const std::string& name,
                             const std::vector<std::size_t>& tensors, const TableSpec& spec,
                             std::size_t most_bytes)
    : source_(source), file_(file), name_(name), spec_(spec), most_bytes_(most_bytes) {
  std::size_t ids = 0, values = 0;
  for (const std::size_t i : tensors) {
    if (tensor(i).name == name_ + std::string(kIds)) ids = i;
    if (tensor(i).name == name_ + std::string(kValues)) values = i;
  }
  const NamedTensor& v = tensor(values);
  if (v.shape.rank() != 2 || v.shape[0] != tensor(ids).shape[0] || v.shape[1] < 1)
    bad(fmt::format("{}, but {}: there must be a row for each id", text_of(v), text_of(tensor(ids))));
  add_fields(tensors, values);
  read_ids(ids);
}

void ImportedTable::bad(const std::string& what) const {
  fail(ErrorKind::data, "{}: table \"{}\": {}", file_, name_, what);
}

VariableSpec ImportedTable::variable() const {
  VariableSpec v;
  v.name = name_;
  const std::size_t slash = name_.rfind('/');
  v.scope = slash == std::string::npos ? "" : name_.substr(0, slash);
  v.dtype = layout_.dtype();
  v.shape = Shape{0, layout_.units()};
  v.table = spec_;
  return v;
}

void ImportedTable::add_fields(const std::vector<std::size_t>& tensors, std::size_t values) {
  const NamedTensor& v = tensor(values);
  const std::int64_t n = v.shape[0], units = v.shape[1];
  std::vector<RowSlot> slots;
  std::vector<std::size_t> of_slot;
  const std::string prefix = name_ + std::string(kSlots);
  for (const std::size_t i : tensors) {
    const NamedTensor& t = tensor(i);
    if (!t.name.starts_with(prefix)) continue;
    if (t.dtype != v.dtype || (t.shape != Shape{n, units} && t.shape != Shape{n}))
      bad(fmt::format("{}, but as a slot beside {} it must be [{}, {}] or [{}] of that type", text_of(t),
                      text_of(v), n, units, n));
    slots.push_back({t.name.substr(prefix.size()), t.shape.rank() == 2 ? units : 1});
    of_slot.push_back(i);
  }
  layout_ = RowLayout(v.dtype, units, std::move(slots));
  fields_.push_back({values, RowLayout::kValuesAt, layout_.value_bytes(), nullptr});
  for (std::size_t s = 0; s < of_slot.size(); ++s)
    fields_.push_back({of_slot[s], layout_.slot_at(s), layout_.slot_bytes(s), nullptr});
  for (const std::size_t i : tensors) {
    if (tensor(i).name == name_ + std::string(kLast)) add_number(i, RowLayout::kLastAt, "last step");
    if (tensor(i).name == name_ + std::string(kCount)) add_number(i, RowLayout::kCountAt, "count");
  }
}

void ImportedTable::add_number(std::size_t i, std::size_t at, const char* name) {
  const std::int64_t n = tensor(fields_[0].tensor).shape[0];
  if (tensor(i).dtype != DType::int64 || tensor(i).is_unsigned || tensor(i).shape != Shape{n})
    bad(fmt::format("{}, but must be int64 [{}]", text_of(tensor(i)), n));
  fields_.push_back({i, at, sizeof(std::int64_t), name});
}

void ImportedTable::read_ids(std::size_t ids) {
  std::vector<std::pair<std::uint64_t, std::size_t>> order;
  stream_tensor(source_, ids, [&](std::span<const std::byte> bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
      std::uint64_t id = 0;
      std::memcpy(&id, bytes.data() + at, sizeof id);
      order.emplace_back(mix_row_id(id), order.size());
    }
  });
  std::ranges::sort(order);
  place_.resize(order.size());
  mixed_.reserve(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && order[i].first == order[i - 1].first)
      bad(fmt::format("the id {} is there twice, in rows {} and {}",
                      id_text(spec_.ids, unmix_row_id(order[i].first)), order[i - 1].second,
                      order[i].second));
    place_[order[i].second] = i;
    mixed_.push_back(order[i].first);
  }
}

std::size_t ImportedTable::first_of_part(int part) const {
  const auto it = std::ranges::partition_point(
      mixed_, [&](std::uint64_t mixed) { return row_part(mixed, spec_.parts) < part; });
  return static_cast<std::size_t>(it - mixed_.begin());
}

void ImportedTable::read_part(int part, std::vector<std::byte>& rows) {
  const std::size_t n = layout_.row_bytes(), first = first_of_part(part), end = first_of_part(part + 1);
  rows.clear();
  if (first == end) return;
  if (first < first_ || end > end_)
    load(first, std::min(mixed_.size(), std::max(end, first + most_bytes_ / n)));
  const auto from = window_.begin() + static_cast<std::ptrdiff_t>((first - first_) * n);
  rows.assign(from, from + static_cast<std::ptrdiff_t>((end - first) * n));
}

void ImportedTable::load(std::size_t first, std::size_t end) {
  first_ = first;
  end_ = end;
  window_.assign((end - first) * layout_.row_bytes(), std::byte{0});
  for (std::size_t i = first; i < end; ++i)
    RowLayout::set_id(window_.data() + (i - first) * layout_.row_bytes(), unmix_row_id(mixed_[i]));
  for (const Field& field : fields_) load_field(field);
  check_finite();
}

// The tensor from front to back; pieces may begin and end within a row.
void ImportedTable::load_field(const Field& field) {
  std::uint64_t begin = 0;  // of the piece, in bytes of the tensor
  stream_tensor(source_, field.tensor, [&](std::span<const std::byte> bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t within = (begin + at) % field.n_bytes;
      const std::size_t n = std::min(field.n_bytes - within, bytes.size() - at);
      const std::size_t place = place_[(begin + at) / field.n_bytes];
      if (place >= first_ && place < end_) {
        std::byte* row = window_.data() + (place - first_) * layout_.row_bytes();
        if (field.number != nullptr) {
          put_number(field, row, bytes.data() + at);
        } else {
          std::memcpy(row + field.at + within, bytes.data() + at, n);
        }
      }
      at += n;
    }
    begin += bytes.size();
  });
}

// Pieces hold whole numbers: they are cut by elements.
void ImportedTable::put_number(const Field& field, std::byte* row, const std::byte* from) const {
  std::int64_t number = 0;
  std::memcpy(&number, from, sizeof number);
  if (number < 0 || number > std::numeric_limits<std::uint32_t>::max())
    bad(fmt::format("row {} has the {} {}", id_text(spec_.ids, RowLayout::id_of(row)), field.number, number));
  const auto small = static_cast<std::uint32_t>(number);
  std::memcpy(row + field.at, &small, sizeof small);
}

void ImportedTable::check_finite() const {
  for (std::size_t at = 0; at < window_.size(); at += layout_.row_bytes()) {
    const std::byte* row = window_.data() + at;
    const auto found = find_not_finite(layout_.dtype(), {row + RowLayout::kValuesAt, layout_.value_bytes()});
    if (found)
      bad(fmt::format("row {} has {} in column {}", id_text(spec_.ids, RowLayout::id_of(row)), found->what,
                      found->element));
  }
}

}  // namespace varscope
