#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "common/base/hash.h"

namespace varscope {

// What `varscope ingest` keeps in its directory, in the file .ingest, from one file to the next: the newest
// file that counts, and how many records of each named stream have come with it and all before it. It is
// replaced before that file gets its name, and decides whether it gets it (RecordLog).
struct IngestState {
  std::uint64_t number = 0;   // of the newest file; 0: there was none
  std::string file;           // its name
  std::uint64_t bytes = 0;    // its size
  Digest digest;              // of its bytes
  std::uint64_t records = 0;  // in all files, without headers
  bool has_header = false;
  std::string header;                            // the line that all files begin with, and its end
  std::map<std::string, std::uint64_t> streams;  // records by name
};

// An envelope (checkpoint/storage/envelope.h) with magic VSCPINGS around a text archive.
std::string encode_ingest_state(const IngestState& state);
// Throws Error(checkpoint) that begins with `what`, a path, for anything else.
IngestState decode_ingest_state(std::string_view bytes, const std::string& what);

}  // namespace varscope
