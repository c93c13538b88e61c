#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/exchange/stored_type.h"
#include "checkpoint/format/named_tensor.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/whole_tensors.h"
#include "checkpoint/storage/fs.h"
#include "common/base/error.h"
#include "common/base/tensor.h"
#include "common/files/random_bytes.h"
#include "common/variables/slice.h"

namespace varscope {

class TableTensors;

// Whole tensors that are read by pieces: a checkpoint, or a file of another format. Not thread-safe. Errors
// are Error(checkpoint) when the bytes are wrong and Error(io) when they cannot be read.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // No two of one name.
  virtual const std::vector<NamedTensor>& tensors() const = 0;
  // Fills `out` with the piece, row-major and little-endian. REQUIRES: `piece` is one of
  // slice_variable(shape, dtype) of that tensor, and out has its size.
  virtual void read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) = 0;
};

// Calls `sink` with the bytes of a tensor from front to back, by pieces of about 1 MiB at most.
void stream_tensor(TensorSource& source, std::size_t tensor,
                   const std::function<void(std::span<const std::byte>)>& sink);

// The values of a checkpoint, and its optimizer slots as "<variable>/<slot>" if asked for; then its tables,
// as TableTensors has them. Borrows the reader.
enum class ExportSlots : std::uint8_t { leave_out, include };
class CheckpointSource : public TensorSource {
 public:
  // Throws Error(checkpoint) when the name of a slot, or of a tensor of a table, would be that of a variable.
  CheckpointSource(CheckpointReader& reader, ExportSlots slots);
  ~CheckpointSource() override;
  const std::vector<NamedTensor>& tensors() const override { return named_; }
  void read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) override;

 private:
  CheckpointReader& reader_;
  std::vector<WholeTensor> whole_;
  std::vector<NamedTensor> named_;  // those of whole_, then those of the tables
  std::vector<std::unique_ptr<TableTensors>> tables_;
};

// Tensors that lie in one piece in files. Those of a type that varscope does not have are widened on the way.
class FileSource : public TensorSource {
 public:
  struct Place {
    std::size_t file = 0;     // index into the files
    std::uint64_t begin = 0;  // bytes from the start of the file
    StoredType type;          // its dtype is the tensor's
  };
  // The ranges have been checked against the sizes of the files.
  FileSource(std::vector<std::unique_ptr<ReadFile>> files, std::vector<NamedTensor> tensors,
             std::vector<Place> places)
      : files_(std::move(files)), tensors_(std::move(tensors)), places_(std::move(places)) {}
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  void read(std::size_t tensor, const Slice& piece, std::span<std::byte> out) override;

 private:
  std::vector<std::unique_ptr<ReadFile>> files_;
  std::vector<NamedTensor> tensors_;
  std::vector<Place> places_;
  std::vector<std::byte> scratch_;
};

// The shape of extents from a file. Throws Error(checkpoint) that begins with `what` when one is negative,
// when there are more than 32, or when the bytes of such a tensor, as they are stored or as they are read,
// are more than `most` or more than can be.
Shape checked_shape(const std::vector<std::int64_t>& extents, const StoredType& type, std::uint64_t most,
                    const std::string& what);
// Of a shape that has passed.
inline std::uint64_t stored_bytes(const Shape& shape, const StoredType& type) {
  return static_cast<std::uint64_t>(shape.n_elements()) * type.size();
}

// The bytes of a file. Borrows it.
inline RandomBytes bytes_of(ReadFile& file) {
  return {file.size(), [&file](std::uint64_t at, std::span<std::byte> out) { file.read_at(at, out); }};
}

// What `parse(file)` makes of a file; what it finds wrong with the bytes (Error(checkpoint), Error(data) of
// common/files) is an Error(checkpoint) that begins with the path.
template <class Parse>
std::unique_ptr<TensorSource> open_source(Fs& fs, const std::string& path, const Parse& parse) {
  auto file = fs.open(path);
  try {
    return parse(std::move(file));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::checkpoint && e.kind() != ErrorKind::data) throw;
    fail(ErrorKind::checkpoint, "{}: {}", path, e.what());
  }
}

}  // namespace varscope
