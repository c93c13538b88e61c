#include "common/base/record_file.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "common/base/error.h"
#include "common/base/hash.h"

namespace varscope {
namespace {

constexpr std::size_t kLengthBytes = 8, kCrcBytes = 4, kHeaderBytes = kLengthBytes + kCrcBytes;

template <class T>
void append_little_endian(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof value; ++i)
    out.push_back(static_cast<char>(static_cast<unsigned char>(value >> (8 * i))));
}

template <class T>
T little_endian(std::string_view bytes) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i)
    value |= static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return value;
}

std::uint32_t masked_crc_of(std::string_view bytes) {
  return mask_crc(crc32c(std::as_bytes(std::span(bytes))));
}

}  // namespace

std::uint32_t mask_crc(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8U; }

void append_record(std::string& out, std::string_view data) {
  const std::size_t begin = out.size();
  append_little_endian(out, std::uint64_t{data.size()});
  append_little_endian(out, masked_crc_of(std::string_view(out).substr(begin, kLengthBytes)));
  out.append(data);
  append_little_endian(out, masked_crc_of(data));
}

RecordReader::RecordReader(Read read, std::string name, std::uint64_t max_bytes)
    : read_(std::move(read)), name_(std::move(name)), max_bytes_(max_bytes) {}

std::size_t RecordReader::fill(std::span<char> memory) {
  std::size_t done = 0;
  while (done < memory.size()) {
    const std::size_t n = read_(std::as_writable_bytes(memory.subspan(done)));
    if (n == 0) break;
    done += n;
  }
  position_ += done;
  return done;
}

std::string RecordReader::who() const {
  return fmt::format("{}: record {} at byte {}", name_, n_records_, record_begin_);
}

void RecordReader::check_length(std::string_view header, std::uint64_t length) const {
  const auto stored = little_endian<std::uint32_t>(header.substr(kLengthBytes));
  const std::uint32_t found = masked_crc_of(header.substr(0, kLengthBytes));
  if (stored != found) {
    const bool is_gzip = n_records_ == 0 && header.starts_with("\x1f\x8b");
    fail(ErrorKind::data, "{}: its length has crc32c {:08x} instead of {:08x} (masked): {}", who(), found,
         stored, is_gzip ? "the file is compressed by gzip" : "the file is damaged, or holds no TFRecords");
  }
  if (length > max_bytes_) {
    fail(ErrorKind::data, "{} claims {} bytes, which is more than the {} that a record may have", who(),
         length, max_bytes_);
  }
}

bool RecordReader::next(std::string& data) {
  record_begin_ = position_;
  char header[kHeaderBytes];
  const std::size_t n_header = fill(header);
  if (n_header == 0) return false;
  if (n_header < kHeaderBytes) {
    fail(ErrorKind::data, "{} is cut off: {} bytes of {} that begin it", who(), n_header, kHeaderBytes);
  }
  const std::string_view head(header, kHeaderBytes);
  const auto length = little_endian<std::uint64_t>(head);
  check_length(head, length);
  // The length is the file's word: memory follows what is really there.
  constexpr std::uint64_t kStep = 1 << 20;
  const std::uint64_t due = length + kCrcBytes;
  data.clear();
  while (data.size() < due) {
    const std::size_t before = data.size();
    data.resize(before + static_cast<std::size_t>(std::min(kStep, due - before)));
    const std::size_t n = fill(std::span(data).subspan(before));
    if (before + n < data.size())
      fail(ErrorKind::data, "{} is cut off: {} bytes of {}", who(), before + n, due);
  }
  const auto stored =
      little_endian<std::uint32_t>(std::string_view(data).substr(static_cast<std::size_t>(length)));
  data.resize(static_cast<std::size_t>(length));
  if (const std::uint32_t found = masked_crc_of(data); found != stored) {
    fail(ErrorKind::data, "{} is damaged: its {} bytes have crc32c {:08x} instead of {:08x} (masked)", who(),
         length, found, stored);
  }
  ++n_records_;
  return true;
}

}  // namespace varscope
