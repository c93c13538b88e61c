#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"

namespace varscope {

// The records of a zip archive [1] whose members are stored without compression. Written with zip64 fields
// always, so that one path serves every size; without times: the same members make the same file.
//
// [1] https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

struct ZipMember {
  std::string name;  // shorter than 64 KiB
  std::uint32_t crc = 0;
  std::uint64_t size = 0;    // bytes of the data
  std::uint64_t offset = 0;  // of the local header
};

// What stands before a member's data; its record in the directory; what stands behind the directory.
std::string zip_local_header(const ZipMember& member);
std::string zip_central_header(const ZipMember& member);
std::string zip_end(std::uint64_t n_members, std::uint64_t directory, std::uint64_t n_bytes);

// Continues the crc32 of a member with more of its data; begins with 0.
std::uint32_t add_zip_crc(std::uint32_t crc, const void* data, std::size_t n);

// The directory of a file. Throws Error(checkpoint) when there is none or it is malformed, and for compressed
// or encrypted members.
std::vector<ZipMember> read_zip_directory(ReadFile& file);
// Where a member's data begin. Throws Error(checkpoint) when they would lie outside the file.
std::uint64_t zip_data_of(ReadFile& file, const ZipMember& member);
// Reads all of a member's data. Throws Error(checkpoint) when its crc32 is another one.
void check_zip_crc(ReadFile& file, std::uint64_t begin, const ZipMember& member);

}  // namespace varscope
