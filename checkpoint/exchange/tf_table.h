#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/storage/fs.h"

namespace varscope {

// A sorted table as LevelDB and TensorFlow write them (LevelDB, doc/table_format.md), without compression:
//
//   table   = block* index footer          a metaindex block, of no use here, is among them
//   footer  = handle handle padding magic  of the metaindex and the index; 48 bytes; magic 0xdb4775248b80fb57
//   handle  = varint offset varint size    of a block without its trailer
//   trailer = type crc                     type 0: not compressed; crc: u32, masked crc32c of block and type
//   block   = entry* restart* u32 count    restarts: u32 each
//   entry   = varint shared, varint unshared, varint length, bytes of the key, bytes of the value
using TableEntries = std::vector<std::pair<std::string, std::string>>;

// Writes the entries, whose keys are in strictly increasing bytewise order, with LevelDB's TableBuilder:
// blocks of 262144 bytes, the bytes TensorFlow would write. Throws Error(io) and Error(checkpoint).
void write_table(Fs& fs, const std::string& path, const TableEntries& entries);

// All entries, every block verified. Throws Error(checkpoint) that begins with the path for anything but a
// whole table with increasing keys. LevelDB's own reader trusts lengths and is not used.
TableEntries read_table(Fs& fs, const std::string& path);

}  // namespace varscope
