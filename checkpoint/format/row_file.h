#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/storage/fs.h"
#include "common/base/row_id.h"
#include "common/variables/row_layout.h"
#include "common/variables/table_spec.h"

namespace varscope {

// The rows of all tables that are on one server. A job with tables has one such file per server, also of a
// server without rows. Integers are little-endian.
//
//   row file = magic version server step length id padding part*
//   magic    = 8 bytes, "VSCPROWS"
//   version  = u32, 1
//   server   = u32
//   step     = i64
//   length   = u64, bytes of the id
//   id       = text, that of the checkpoint
//   padding  = zeros, up to a multiple of 8
//   part     = the rows of one part, as RowLayout has them, ascending by mix_row_id(); by tables, then parts
//
// Where a part is, which it is and its checksums are in the manifest alone; the id serves the message about a
// file that was swapped with one of another checkpoint.
inline constexpr std::string_view kRowFileMagic = "VSCPROWS";
inline constexpr std::uint32_t kRowFileVersion = 1;

// Looks at the rows of one part piece by piece: whole records, ascending by mix_row_id(), ids of that part;
// sums up their hashes. The pieces may cut records anywhere. Borrows the layout. Not thread-safe.
class RowsCheck {
 public:
  RowsCheck(const RowLayout& layout, const TableSpec& spec, int part)
      : layout_(&layout), spec_(spec), part_(part) {}
  void add(std::span<const std::byte> bytes);

  // "" or what was wrong first, in words that follow the part's name, after all bytes.
  std::string problem() const;
  std::int64_t n_rows() const { return n_rows_; }
  const RowHashSum& sum() const { return sum_; }

 private:
  void add_row(const std::byte* row);
  const RowLayout* layout_;
  TableSpec spec_;
  int part_;
  std::vector<std::byte> cut_;  // the beginning of a record whose end is in the next piece
  std::int64_t n_rows_ = 0;
  std::uint64_t last_mixed_ = 0;
  std::string problem_;
  RowHashSum sum_;
};
// Of the whole part, whose record says what it must be: "" or what is wrong.
std::string rows_problem(const RowsCheck& check, const RowPartRecord& record);

// A table of which a server writes some parts.
struct RowFileTable {
  std::string variable;
  TableSpec spec;
  RowLayout layout;
  std::vector<int> parts;  // that are here, ascending; maybe none
};

// Replaces `rows` by those of a part as they shall be written: ascending by mix_row_id(); none: empty. Called
// once for each part in the order of the tables and parts. What it throws goes through.
using ReadPart = std::function<void(std::size_t table, int part, std::vector<std::byte>& rows)>;

struct RowFileReport {
  FileRecord file;
  std::vector<TableRecord> tables;   // all of them, also those without rows here
  std::vector<RowPartRecord> parts;  // that have rows; `file` is 0
  std::vector<NotFiniteTensor> not_finite;
};

// Writes dir/rows-<server>-of-<n_servers>.bin of the job's tables, all of them in the job's order on each
// server: created exclusively, checksummed from the caller's memory, fsynced, closed. One part at a time is
// in memory. Throws Error(io) of the first operation that failed, and Error(argument) for rows that are not
// whole, not in order or of another part. Uses nothing global: any thread may call it.
RowFileReport write_row_file(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                             const std::string& checkpoint_id, std::span<const RowFileTable> tables,
                             const ReadPart& read);

// Adds it to what the same server says of its shard.
void add_row_file(ShardReport& report, RowFileReport rows);

// The checkpoint id in a row file's header, or "" when the header cannot be read.
std::string checkpoint_id_of_row_file(Fs& fs, const std::string& path);

}  // namespace varscope
