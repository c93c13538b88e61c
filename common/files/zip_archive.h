#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/files/random_bytes.h"

namespace varscope {

// The records of a zip archive [1]. Members are written without compression, and with zip64 fields always, so
// that one path serves every size; without times: the same members make the same file.
//
// [1] https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT

struct ZipMember {
  std::string name;  // shorter than 64 KiB
  std::uint32_t crc = 0;
  std::uint64_t size = 0;    // bytes of the data
  std::uint64_t offset = 0;  // of the local header
  // Of a member that has been read; what is written is stored.
  std::uint16_t method = 0;  // 0: stored, 8: deflated
  std::uint64_t packed = 0;  // bytes that the data take in the file
  bool is_compressed() const { return method != 0; }
};

// What stands before a member's data; its record in the directory; what stands behind the directory.
std::string zip_local_header(const ZipMember& member);
std::string zip_central_header(const ZipMember& member);
std::string zip_end(std::uint64_t n_members, std::uint64_t directory, std::uint64_t n_bytes);

// Continues the crc32 of a member with more of its data; begins with 0.
std::uint32_t add_zip_crc(std::uint32_t crc, const void* data, std::size_t n);

// The directory of a file. Throws Error(data) that begins "has" or "is" when there is none or it is
// malformed, and for encrypted members.
std::vector<ZipMember> read_zip_directory(const RandomBytes& file);
// Where a member's data begin. Throws Error(data) when they would lie outside the file.
std::uint64_t zip_data_of(const RandomBytes& file, const ZipMember& member);
// Reads all data of a stored member. Throws Error(data) when its crc32 is another one.
void check_zip_crc(const RandomBytes& file, std::uint64_t begin, const ZipMember& member);

}  // namespace varscope
