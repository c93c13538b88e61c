#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/restore_plan.h"
#include "checkpoint/storage/fs.h"
#include "common/base/tensor.h"
#include "common/variables/row_layout.h"
#include "common/variables/slice.h"

namespace varscope {

// A checkpoint that has been looked for and found.
struct FoundCheckpoint {
  std::string path;
  std::vector<std::string> warnings;      // newer ones that cannot be used and why; a bad LATEST
  std::optional<Manifest> manifest = {};  // where it was decoded on the way
};

// One checkpoint, open for reading: any box of any variable, whatever boxes and whatever parts it was saved
// in. Variables are found by VariableSpec::full_name(): a part is a box of its whole. Every byte it hands out
// has been checked: against its record's digest where all of a record is wanted, else against the crc32c of
// its CRC block. Not thread-safe; borrows the Fs. Errors are Error(checkpoint) when the bytes are wrong and
// Error(io) when they cannot be read.
class CheckpointReader {
 public:
  // Reads and checks the manifest and the sizes of the files.
  static CheckpointReader open(Fs& fs, const std::string& path);
  // The same with a manifest that was read before: what is read from the files must be what it says.
  static CheckpointReader open(Fs& fs, const std::string& path, Manifest manifest);
  static CheckpointReader open(Fs& fs, FoundCheckpoint found);

  const Manifest& manifest() const { return manifest_; }
  const std::string& path() const { return path_; }
  Digest values_hash() const { return values_hash_of(manifest_); }

  // Checks every byte of every file: checksums of CRC blocks, digests of files and of tensors. A line for
  // each problem, which names the file and the CRC block; none when all is well.
  std::vector<std::string> verify() const;

  // Throws one Error(checkpoint) with every difference between the checkpoint and what a job wants: variables
  // that are missing or extra, other shapes or dtypes (both values), slots, optimizer. How a variable is
  // divided into parts is no difference. Of tables: plan_restore().
  void check_model(const VariableTable& wanted, const std::vector<std::string>& slots,
                   const std::string& optimizer, const RowSlots& row_slots = {}) const;

  // `variable` is a whole variable's name, or that of a part that was saved.
  bool has(const std::string& variable, const std::string& slot) const;
  // Of the stored values. Throws Error(checkpoint) when there are none.
  DType dtype(const std::string& variable, const std::string& slot) const;

  // Fills `out` (row-major, the elements of `box`, of the stored dtype) by intersecting the saved boxes with
  // `box`. Throws Error(argument) for a box or memory that does not fit the variable. When it throws, `out`
  // may be half filled.
  void read(const std::string& variable, const std::string& slot, const Slice& box, TensorView out);
  // The same for a variable as the reader's job has it: `box` is of variable.shape, be it whole or a part.
  void read(const VariableSpec& variable, const std::string& slot, const Slice& box, TensorView out);

  // The tables, none in most checkpoints. In what follows a table is named as in the checkpoint;
  // Error(checkpoint) for one that it does not have.
  const std::vector<TableRecord>& tables() const { return manifest_.tables; }
  const TableRecord& table(const std::string& name) const;
  RowLayout row_layout(const std::string& table) const {
    return row_layout_of(manifest_, this->table(table));
  }
  // How many rows a part has. Throws Error(argument) for a part that the table does not have.
  std::int64_t n_rows(const std::string& table, int part) const;
  // Replaces `out` by all of a part: rows, records as row_layout() says, and waiting ids (PartRows),
  // ascending by mix_row_id(), without what is expired. Each piece of its chain is read once. All of it is
  // checked: digests, order, that the ids are of the part, how many there are, and the sum of the rows'
  // hashes; what is wrong is an Error(checkpoint) that names table and part, of a sum both sums. Memory: the
  // pieces, and the result.
  void read_part(const std::string& table, int part, PartRows& out);
  // The rows alone; the waiting ids alone.
  void read_rows(const std::string& table, int part, std::vector<std::byte>& rows);
  void read_waiting(const std::string& table, int part, std::vector<std::byte>& waiting);

  // A whole file, for worker-00007.state; checked against its checksums.
  std::string read_file(const std::string& name);

  // Read from files by all calls so far, the manifest not counted. A box that is made of whole saved ones
  // costs its own bytes; of others, the CRC blocks that it touches are read.
  std::uint64_t n_bytes_read() const { return n_bytes_read_; }

 private:
  struct Saved {
    Slice box;                   // of the whole variable
    const TensorRecord* record;  // in manifest_, whose vectors keep their memory when it is moved
  };
  struct CrcBlock {
    std::uint32_t file = 0;
    std::uint64_t index = 0;
    std::vector<std::byte> bytes;  // empty: nothing is cached here
  };

  static constexpr std::size_t kPieceBytes = 256 << 10;

  CheckpointReader(Fs& fs, std::string path, Manifest manifest);
  // The part that was saved under this name; nullptr when there is none.
  const VariableSpec* saved_part(const std::string& name) const;
  const std::string& full_name(const std::string& name) const;
  const std::vector<Saved>& find(const std::string& variable, const std::string& slot) const;
  void copy_common(const Saved& saved, const Slice& common, const Slice& box, TensorView out);
  void read_record(const TensorRecord& record, std::span<std::byte> out);
  // nullptr: there is nothing of the part.
  const RowPartRecord* find_part(const std::string& table, int part) const;
  // Bytes of one digest. `what`: "slice 3 of variable \"w\"", for the message.
  struct Digested {
    std::uint32_t file;
    std::uint64_t begin;
    const Digest* digest;
  };
  void read_digested(const Digested& from, std::span<std::byte> out,
                     const std::function<std::string()>& what);
  void read_piece(const TableRecord& table, const RowLayout& layout, int part, const RowPiece& piece,
                  PartRows& out);
  ReadFile& open_file(std::uint32_t file);
  void read_bytes(std::uint32_t file, std::uint64_t begin, std::span<std::byte> out);
  const CrcBlock& cached_block(std::uint32_t file, std::uint64_t index);
  void read_block(std::uint32_t file, std::uint64_t index, std::span<std::byte> out);

  Fs* fs_;
  std::string path_;
  Manifest manifest_;
  // By (full name, slot); sorted by place on disk.
  std::map<std::pair<std::string, std::string>, std::vector<Saved>> saved_;
  // Of each table, by part; those of which there is nothing are not there.
  std::map<std::string, std::map<int, const RowPartRecord*>> parts_;
  std::vector<std::unique_ptr<ReadFile>> files_;  // opened when first read
  std::array<CrcBlock, 8> cache_;
  std::vector<std::byte> scratch_;  // a record
  std::size_t next_victim_ = 0;
  std::uint64_t n_bytes_read_ = 0;
};

// Every byte of one of the manifest's files, by its index: a line for each problem, which names the file and
// the CRC block; one that cannot be read is a problem.
std::vector<std::string> verify_file(Fs& fs, const std::string& path, const Manifest& manifest,
                                     std::uint32_t file);
// All of them, in the manifest's order.
std::vector<std::string> verify_files(Fs& fs, const std::string& path, const Manifest& manifest);
// Who does that: this process, unless a job shares the work.
using VerifyFiles =
    std::function<std::vector<std::string>(Fs& fs, const std::string& path, const Manifest& manifest)>;
struct Verification {
  std::vector<std::string> problems;
  std::optional<Manifest> manifest;  // where there are none
};
// All of a checkpoint, also of one that cannot be opened: its manifest, its files and its name.
Verification verify_whole(Fs& fs, const std::string& path, const VerifyFiles& verify = verify_files);
// Its problems alone.
std::vector<std::string> verify_checkpoint(Fs& fs, const std::string& path,
                                           const VerifyFiles& verify = verify_files);

// The newest checkpoint of the directory that verifies to the last byte, with its manifest; older ones are
// not looked at. Throws Error(checkpoint) with what is wrong with each when none does, or saying that there
// are none and what to do.
FoundCheckpoint newest_checkpoint(Fs& fs, const std::string& dir, const VerifyFiles& verify = verify_files);

}  // namespace varscope
