#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/row_check.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/storage/fs.h"
#include "common/variables/row_layout.h"
#include "common/variables/table_spec.h"

namespace varscope {

// The rows of all tables that are on one server. A job with tables has one such file per server, also of a
// server without rows. Integers are little-endian.
//
//   row file = magic version server step length id padding piece*
//   magic    = 8 bytes, "VSCPROWS"
//   version  = u32, 2; 1 had rows only
//   server   = u32
//   step     = i64
//   length   = u64, bytes of the id
//   id       = text, that of the checkpoint
//   padding  = zeros, up to a multiple of 8
//   piece    = rows waiting removed, of one part; by tables, then parts
//   rows     = as RowLayout has them, ascending by mix_row_id()
//   waiting  = id (u64) last (u32) count (u32), ascending by mix_row_id()
//   removed  = ids (u64), ascending by mix_row_id()
//
// Where a piece is, which it is and its checksums are in the manifest alone (RowPiece); the id serves the
// message about a file that was swapped with one of another checkpoint.
inline constexpr std::string_view kRowFileMagic = "VSCPROWS";
inline constexpr std::uint32_t kRowFileVersion = 2;

// A table of which a server writes some parts.
struct RowFileTable {
  std::string variable;
  TableSpec spec;
  RowLayout layout;
  std::vector<int> parts;  // that are here, ascending; maybe none
};

// What a save of changes goes on from: chains of a committed save, whose files have been linked into the new
// directory (checkpoint/directory/link_rows.h).
struct RowBase {
  using Part = std::pair<std::string, int>;  // variable, part
  // The pieces that are kept of a part; the new one is of what has changed after step `since`.
  struct Chain {
    RowPartRecord record;  // whose pieces' `file` is one of `files`
    std::int64_t since = 0;
  };
  std::int64_t step = 0;          // of that save
  std::vector<FileRecord> files;  // as they are called in the new directory
  std::map<Part, Chain> chains;   // of parts of which changes are written

  // nullptr: all of the part is written.
  const Chain* chain_of(const std::string& variable, int part) const {
    const auto found = chains.find({variable, part});
    return found == chains.end() ? nullptr : &found->second;
  }
};
// What there is of a part after the save, which its changes alone do not tell.
struct PartTotals {
  std::int64_t n_rows = 0, n_waiting = 0;
  Digest hash_sum;
};

// Replaces `rows` by those of a part as they shall be written, all of it or, where the base has a chain of
// it, what has changed since its `since`. Called once for each part in the order of the tables and parts.
// What it throws goes through.
using ReadPart = std::function<void(std::size_t table, int part, PartRows& rows)>;
using TotalsOfPart = std::function<PartTotals(std::size_t table, int part)>;

struct RowFileReport {
  std::vector<FileRecord> files;     // the one that was written, then those linked ones that are needed
  std::vector<TableRecord> tables;   // all of them, also those without rows here
  std::vector<RowPartRecord> parts;  // that there are; `file` is an index into files
  std::vector<NotFiniteTensor> not_finite;
};

// What a row file is of.
struct RowFileOf {
  int server = 0, n_servers = 1;
  std::int64_t step = 0;
  std::string checkpoint_id;
};

// Writes dir/rows-<server>-of-<n_servers>.bin of the job's tables, all of them in the job's order on each
// server: created exclusively, checksummed from the caller's memory, fsynced, closed. One part at a time is
// in memory. With a base, chains go on, and links that no chain needs any more are removed; `totals` is asked
// for parts of which changes were read. Throws Error(io) of the first operation that failed, and
// Error(argument) for rows that are not whole, not in order or of another part. Uses nothing global: any
// thread may call it.
RowFileReport write_row_file(Fs& fs, const std::string& dir, const RowFileOf& of,
                             std::span<const RowFileTable> tables, const ReadPart& read,
                             const RowBase* base = nullptr, const TotalsOfPart& totals = {});

// Adds it to what the same server says of its shard.
void add_row_file(ShardReport& report, RowFileReport rows);

// What a row file's header says of it; nothing when that cannot be read.
struct RowFileHeader {
  std::uint32_t version = 0, server = 0;
  std::int64_t step = 0;
  std::string checkpoint_id;
};
std::optional<RowFileHeader> read_row_file_header(Fs& fs, const std::string& path);

}  // namespace varscope
