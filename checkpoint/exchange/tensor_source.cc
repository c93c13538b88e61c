#include "checkpoint/exchange/tensor_source.h"

#include <set>

#include "checkpoint/exchange/table_tensors.h"
#include "common/base/error.h"

namespace varscope {

void stream_tensor(TensorSource& source, std::size_t tensor,
                   const std::function<void(std::span<const std::byte>)>& sink) {
  const NamedTensor& t = source.tensors()[tensor];
  std::vector<std::byte> memory;
  for (const Slice& piece : slice_variable(t.shape, t.dtype)) {
    memory.resize(static_cast<std::size_t>(piece.n_elements()) * size_of(t.dtype));
    source.read(tensor, piece, memory);
    sink(memory);
  }
}

CheckpointSource::CheckpointSource(CheckpointReader& reader, ExportSlots slots) : reader_(reader) {
  std::set<std::string> names;
  for (WholeTensor& t : whole_tensors(reader)) {
    if (!t.slot.empty() && slots == ExportSlots::leave_out) continue;
    if (!names.insert(t.name()).second) {
      fail(ErrorKind::checkpoint,
           "both a variable and the slot \"{}\" of \"{}\" would be named \"{}\"; leave out --slots", t.slot,
           t.variable, t.name());
    }
    named_.push_back({t.name(), t.dtype, t.shape});
    whole_.push_back(std::move(t));
  }
  for (const TableRecord& table : reader.tables()) {
    tables_.push_back(std::make_unique<TableTensors>(reader, table.variable, slots));
    for (const NamedTensor& t : tables_.back()->tensors()) {
      if (!names.insert(t.name).second)
        fail(ErrorKind::checkpoint, "both a variable and a tensor of table \"{}\" would be named \"{}\"",
             table.variable, t.name);
      named_.push_back(t);
    }
  }
}

CheckpointSource::~CheckpointSource() = default;

void CheckpointSource::read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) {
  if (tensor >= whole_.size()) {
    std::size_t i = tensor - whole_.size();
    for (const auto& table : tables_) {
      if (i < table->tensors().size()) return table->read(i, piece, out);
      i -= table->tensors().size();
    }
  }
  const WholeTensor& t = whole_[tensor];
  reader_.read(t.variable, t.slot, piece, TensorView(t.dtype, piece.extent, out.data()));
}

void FileSource::read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) {
  const auto first = static_cast<std::uint64_t>(piece.linear_begin());
  const Place& place = places_[tensor];
  const std::uint64_t begin = place.begin + first * place.type.size();
  if (place.type.foreign == nullptr) return files_[place.file]->read_at(begin, out);
  scratch_.resize(static_cast<std::size_t>(piece.n_elements()) * place.type.size());
  files_[place.file]->read_at(begin, scratch_);
  widen(*place.type.foreign, scratch_, out);
}

Shape checked_shape(const std::vector<std::int64_t>& extents, const StoredType& type, std::uint64_t most,
                    const std::string& what) {
  constexpr std::size_t kMostAxes = 32;
  if (extents.size() > kMostAxes)
    fail(ErrorKind::checkpoint, "{} has {} axes, more than {}", what, extents.size(), kMostAxes);
  // Without the extents that are 0: those too must make sense. A wider element has 4 bytes for 1 at most.
  std::uint64_t n = type.size();
  bool empty = false;
  for (const std::int64_t e : extents) {
    if (e < 0) fail(ErrorKind::checkpoint, "{} has the extent {}", what, e);
    empty = empty || e == 0;
    if (e > 0 && static_cast<std::uint64_t>(e) > (std::uint64_t{1} << 60) / n)
      fail(ErrorKind::checkpoint, "{} has more elements than there can be", what);
    if (e > 0) n *= static_cast<std::uint64_t>(e);
  }
  if (!empty && n > most) {
    fail(ErrorKind::checkpoint, "{} needs {} bytes where there are {}", what, n, most);
  }
  return Shape(extents);
}

}  // namespace varscope
