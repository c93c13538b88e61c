#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"
#include "common/base/types.h"
#include "common/variables/slice.h"

namespace varscope {

// One slice to write: its value (slot "") or one of its optimizer slots. The memory is contiguous, in
// row-major order of the box, and must not change until write_shard returns.
struct ShardTensor {
  std::string variable;
  std::string slot;
  std::int64_t slice = 0;
  DType dtype = DType::float32;
  Slice box;
  ConstPiece data;
};

// What a server tells the coordinator after its shard is on disk.
struct ShardReport {
  int server = 0;
  std::int64_t step = 0;
  std::vector<std::int64_t> worker_clocks;  // Manifest::worker_clocks
  FileRecord file;
  std::vector<TensorRecord> tensors;
  std::vector<NotFiniteTensor> not_finite;  // one for each slice that has such elements
  // Of a job with tables, see add_row_file() (checkpoint/format/row_file.h).
  std::vector<FileRecord> row_files = {};  // its own, then those of older saves that are linked
  std::vector<TableRecord> tables = {};
  std::vector<RowPartRecord> row_parts = {};

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& server& step& worker_clocks& file& tensors& not_finite& row_files& tables& row_parts;
  }
};

// A shard is a safetensors file (checkpoint/format/safetensors_header.h) with the tensors in the order given;
// its data begin at a multiple of 4096. Its header:
//
//   "<variable>@<slice>" or "<variable>/.slot-<slot>@<slice>" -> {"dtype", "shape" = the box's extent,
//       "data_offsets"}
//   "__metadata__" -> "varscope.format", "varscope.checkpoint" (the id), "varscope.step", "varscope.server",
//       and "box:<tensor name>" -> Slice::spec()
inline constexpr std::uint64_t kDataAlignment = 4096;
std::string tensor_name(const std::string& variable, const std::string& slot, std::int64_t slice);

// Writes dir/shard-<server>-of-<n_servers>.safetensors: created exclusively, checksummed from the caller's
// memory, fsynced, closed. Throws Error(io) of the first operation that failed, and Error(argument) for
// tensors that make no sense (before anything is written). Uses nothing global: any thread may call it.
ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors);

// The same with the memory of one tensor at a time: `load` is called with each index in order, and what it
// returns must last until the next call. `data.data` is not looked at, `data.n_bytes` must be right.
using LoadTensor = std::function<std::span<const std::byte>(std::size_t)>;
ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors, const LoadTensor& load);

// The same for memory that changes meanwhile: `read` copies bytes [offset, offset + out.size()) of tensors[i]
// as they shall be written; it is called once for each piece of kShardPieceBytes (a tensor's last may be
// shorter), in order. What it throws goes through. Of `data` only the size counts.
inline constexpr std::size_t kShardPieceBytes = 64 << 10;
using ReadPiece = std::function<void(std::size_t i, std::size_t offset, std::span<std::byte> out)>;
ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors, const ReadPiece& read);

// The same for a file of opaque bytes, such as worker-00007.state.
FileRecord write_blob(Fs& fs, const std::string& dir, const std::string& name, std::string_view bytes);

// The checkpoint id in a shard's header, or "" when the header cannot be read. For messages about a shard
// that does not match its manifest.
std::string checkpoint_id_of_shard(Fs& fs, const std::string& path);

}  // namespace varscope

BOOST_CLASS_IMPLEMENTATION(varscope::ShardReport, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::ShardReport, boost::serialization::track_never)
