#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace varscope {

// TensorFlow's record files: TFRecord data and TensorBoard's events. Records one after the other, without a
// header:
//
//   record = length: u64  masked_crc(length): u32  data: length bytes  masked_crc(data): u32
//
// all little-endian; the checksums are CRC-32C. Source: TensorFlow, core/lib/io/record_writer.h.

// A CRC-32C as TensorFlow's and LevelDB's files store it, so that a checksum over bytes that hold checksums
// stays a good one.
std::uint32_t mask_crc(std::uint32_t crc);

// Appends one record that holds `data`.
void append_record(std::string& out, std::string_view data);

// Reads records from anywhere. Throws Error(data) that begins with the name, and says which record (from 0)
// at which byte, for a wrong checksum, a record that is cut off, and one that claims more than `max_bytes`;
// after that it is of no use. A length is believed no further than bytes arrive. Not thread-safe; owns no
// memory but what a record needs.
class RecordReader {
 public:
  // Fills the front of `memory` and returns with how many bytes; 0 only where there are no more.
  using Read = std::function<std::size_t(std::span<std::byte> memory)>;
  static constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;

  RecordReader(Read read, std::string name, std::uint64_t max_bytes = kMaxBytes);

  // The next record's data; false at the end, which comes after a whole record.
  bool next(std::string& data);
  // Of the record that next() gave last.
  std::int64_t index() const { return n_records_ - 1; }
  std::uint64_t offset() const { return record_begin_; }

 private:
  std::size_t fill(std::span<char> memory);
  std::string who() const;  // "FILE: record 3 at byte 120"
  void check_length(std::string_view header, std::uint64_t length) const;

  Read read_;
  std::string name_;
  std::uint64_t max_bytes_;
  std::int64_t n_records_ = 0;
  std::uint64_t record_begin_ = 0;
  std::uint64_t position_ = 0;
};

}  // namespace varscope
