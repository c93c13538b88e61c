#include "common/files/zip_archive.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "common/base/error.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::uint32_t kLocalMagic = 0x04034b50, kCentralMagic = 0x02014b50, kEndMagic = 0x06054b50,
                        kEnd64Magic = 0x06064b50, kLocator64Magic = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                      kLocatorBytes = 20;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the value is in the zip64 field
constexpr std::uint16_t kZip64Field = 1, kZip64Version = 45, kUtf8 = 1 << 11, kEncrypted = 1;
constexpr std::uint16_t kEpoch = 0x21;  // 1980-01-01
constexpr std::uint64_t kMaxDirectory = 256 << 20;

// What local and central headers have in common: from "version needed" to the length of the name.
std::string common_fields(const ZipMember& m) {
  std::string out;
  put_le(out, kZip64Version);
  put_le(out, kUtf8);
  put_le(out, std::uint16_t{0});  // stored
  put_le(out, std::uint16_t{0});  // time
  put_le(out, kEpoch);
  put_le(out, m.crc);
  put_le(out, kIn64);
  put_le(out, kIn64);
  put_le(out, static_cast<std::uint16_t>(m.name.size()));
  return out;
}

struct Directory {
  std::uint64_t offset = 0, n_bytes = 0, n_members = 0;
};

Directory find_directory(const RandomBytes& file) {
  const std::uint64_t size = file.size;
  if (size < kEndBytes) fail(ErrorKind::data, "is no .npz file: it has {} bytes", size);
  const std::uint64_t n_tail = std::min<std::uint64_t>(size, kEndBytes + 0xffff + kLocatorBytes);
  const std::string tail = file.range(size - n_tail, n_tail);
  std::size_t at = tail.size() - kEndBytes;
  while (get_le<std::uint32_t>(tail, at) != kEndMagic) {
    if (at == 0)
      fail(ErrorKind::data, "is no .npz file, or is cut off: the end of a zip archive was not found");
    --at;
  }
  Directory d{get_le<std::uint32_t>(tail, at + 16), get_le<std::uint32_t>(tail, at + 12),
              get_le<std::uint16_t>(tail, at + 10)};
  std::uint64_t end = size - n_tail + at;
  if (at >= kLocatorBytes && get_le<std::uint32_t>(tail, at - kLocatorBytes) == kLocator64Magic) {
    const auto where = get_le<std::uint64_t>(tail, at - kLocatorBytes + 8);
    if (where > size || size - where < kEnd64Bytes)
      fail(ErrorKind::data, "has a zip64 end that lies outside the file");
    const std::string end64 = file.range(where, kEnd64Bytes);
    if (get_le<std::uint32_t>(end64, 0) != kEnd64Magic)
      fail(ErrorKind::data, "has no zip64 end where it should be");
    d = {get_le<std::uint64_t>(end64, 48), get_le<std::uint64_t>(end64, 40),
         get_le<std::uint64_t>(end64, 32)};
    end = where;
  }
  if (d.n_bytes > kMaxDirectory || d.offset > end || d.n_bytes > end - d.offset ||
      d.n_members > d.n_bytes / kCentralBytes)
    fail(ErrorKind::data, "has a directory of {} members in {} bytes from byte {}, outside its {} bytes",
         d.n_members, d.n_bytes, d.offset, size);
  return d;
}

// Replaces the values that stand in the zip64 field, which has them in this order.
void apply_zip64(std::string_view extra, std::initializer_list<std::uint64_t*> values) {
  while (extra.size() >= 4) {
    const auto id = get_le<std::uint16_t>(extra, 0);
    const std::size_t n = get_le<std::uint16_t>(extra, 2);
    if (n > extra.size() - 4) fail(ErrorKind::data, "has a member with a malformed extra field");
    std::string_view field = extra.substr(4, n);
    extra.remove_prefix(4 + n);
    if (id != kZip64Field) continue;
    for (std::uint64_t* value : values) {
      if (*value != kIn64) continue;
      if (field.size() < 8) fail(ErrorKind::data, "has a member with a malformed zip64 field");
      *value = get_le<std::uint64_t>(field, 0);
      field.remove_prefix(8);
    }
    return;
  }
}

}  // namespace

std::uint32_t add_zip_crc(std::uint32_t crc, const void* data, std::size_t n) {
  return ::crc32_gzip_refl(crc, static_cast<const unsigned char*>(data), n);
}

std::string zip_local_header(const ZipMember& m) {
  std::string out;
  put_le(out, kLocalMagic);
  out += common_fields(m);
  put_le(out, std::uint16_t{20});  // of the zip64 field
  out += m.name;
  put_le(out, kZip64Field);
  put_le(out, std::uint16_t{16});
  put_le(out, m.size);
  put_le(out, m.size);
  return out;
}

std::string zip_central_header(const ZipMember& m) {
  std::string out;
  put_le(out, kCentralMagic);
  put_le(out, kZip64Version);
  out += common_fields(m);
  put_le(out, std::uint16_t{28});  // of the zip64 field
  put_le(out, std::uint16_t{0});   // comment
  put_le(out, std::uint16_t{0});   // disk
  put_le(out, std::uint16_t{0});   // internal attributes
  put_le(out, std::uint32_t{0});   // external attributes
  put_le(out, kIn64);
  out += m.name;
  put_le(out, kZip64Field);
  put_le(out, std::uint16_t{24});
  put_le(out, m.size);
  put_le(out, m.size);
  put_le(out, m.offset);
  return out;
}

std::string zip_end(std::uint64_t n, std::uint64_t directory, std::uint64_t n_bytes) {
  std::string out;
  put_le(out, kEnd64Magic);
  put_le(out, std::uint64_t{kEnd64Bytes - 12});
  put_le(out, kZip64Version);
  put_le(out, kZip64Version);
  put_le(out, std::uint64_t{0});  // disks
  put_le(out, n);
  put_le(out, n);
  put_le(out, n_bytes);
  put_le(out, directory);
  put_le(out, kLocator64Magic);
  put_le(out, std::uint32_t{0});
  put_le(out, directory + n_bytes);
  put_le(out, std::uint32_t{1});
  put_le(out, kEndMagic);
  put_le(out, std::uint32_t{0});
  put_le(out, std::uint16_t{0xffff});
  put_le(out, std::uint16_t{0xffff});
  put_le(out, kIn64);
  put_le(out, kIn64);
  put_le(out, std::uint16_t{0});
  return out;
}

std::vector<ZipMember> read_zip_directory(const RandomBytes& file) {
  const Directory d = find_directory(file);
  const std::string bytes = file.range(d.offset, d.n_bytes);
  std::string_view rest = bytes;
  std::vector<ZipMember> members;
  for (std::uint64_t i = 0; i < d.n_members; ++i) {
    if (rest.size() < kCentralBytes || get_le<std::uint32_t>(rest, 0) != kCentralMagic)
      fail(ErrorKind::data, "has a malformed directory");
    const std::size_t n_name = get_le<std::uint16_t>(rest, 28), n_extra = get_le<std::uint16_t>(rest, 30),
                      n_comment = get_le<std::uint16_t>(rest, 32);
    if (n_name + n_extra + n_comment > rest.size() - kCentralBytes)
      fail(ErrorKind::data, "has a malformed directory");
    ZipMember m{std::string(rest.substr(kCentralBytes, n_name)), get_le<std::uint32_t>(rest, 16),
                get_le<std::uint32_t>(rest, 24), get_le<std::uint32_t>(rest, 42)};
    m.method = get_le<std::uint16_t>(rest, 10);
    m.packed = get_le<std::uint32_t>(rest, 20);
    apply_zip64(rest.substr(kCentralBytes + n_name, n_extra), {&m.size, &m.packed, &m.offset});
    if (!m.is_compressed() && m.packed != m.size)
      fail(ErrorKind::data, "has the stored member \"{}\" of {} bytes in {}", m.name, m.size, m.packed);
    if ((get_le<std::uint16_t>(rest, 8) & kEncrypted) != 0)
      fail(ErrorKind::data, "has the encrypted member \"{}\"", m.name);
    rest.remove_prefix(kCentralBytes + n_name + n_extra + n_comment);
    members.push_back(std::move(m));
  }
  return members;
}

std::uint64_t zip_data_of(const RandomBytes& file, const ZipMember& m) {
  const std::uint64_t size = file.size;
  if (m.offset > size || size - m.offset < kLocalBytes)
    fail(ErrorKind::data, "has the member \"{}\" outside the file", m.name);
  const std::string local = file.range(m.offset, kLocalBytes);
  if (get_le<std::uint32_t>(local, 0) != kLocalMagic)
    fail(ErrorKind::data, "has no member \"{}\" where its directory says", m.name);
  const std::uint64_t begin =
      m.offset + kLocalBytes + get_le<std::uint16_t>(local, 26) + get_le<std::uint16_t>(local, 28);
  if (begin > size || m.packed > size - begin)
    fail(ErrorKind::data, "has the member \"{}\" of {} bytes outside the file", m.name, m.packed);
  return begin;
}

void check_zip_crc(const RandomBytes& file, std::uint64_t begin, const ZipMember& m) {
  std::vector<std::byte> memory;
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0; at < m.size; at += memory.size()) {
    memory.resize(static_cast<std::size_t>(std::min<std::uint64_t>(m.size - at, 1 << 20)));
    file.read_at(begin + at, memory);
    crc = add_zip_crc(crc, memory.data(), memory.size());
  }
  if (crc != m.crc)
    fail(ErrorKind::data, "is damaged: \"{}\" has crc32 {:08x} instead of {:08x}", m.name, crc, m.crc);
}

}  // namespace varscope
