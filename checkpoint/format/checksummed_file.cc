#include "checkpoint/format/checksummed_file.h"

#include <algorithm>

namespace varscope {

void ChecksummedFile::write(std::span<const std::byte> bytes) {
  checksum(bytes);
  if (bytes.size() <= kGatherBytes) {
    std::ranges::copy(bytes, make_room(bytes.size()).begin());
    return;
  }
  flush();
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), kWriteBytes);
    file_->write(bytes.first(n));
    bytes = bytes.subspan(n);
  }
}

FileRecord ChecksummedFile::finish() {
  flush();
  if (in_block_ > 0) record_.crc32c.push_back(crc_);
  file_->sync();
  file_->close();
  record_.digest = digester_.finish();
  return std::move(record_);
}

void ChecksummedFile::checksum(std::span<const std::byte> bytes) {
  digester_.update(bytes);
  record_.size += bytes.size();
  while (!bytes.empty()) {
    const std::size_t n = std::min<std::size_t>(bytes.size(), kCrcBlockBytes - in_block_);
    crc_ = crc32c(bytes.first(n), crc_);
    in_block_ += n;
    bytes = bytes.subspan(n);
    if (in_block_ < kCrcBlockBytes) return;
    record_.crc32c.push_back(crc_);
    crc_ = 0;
    in_block_ = 0;
  }
}

std::span<std::byte> ChecksummedFile::make_room(std::size_t n) {
  if (gathered_ + n > kGatherBytes) flush();
  gathered_ += n;
  return {buffer_.get() + gathered_ - n, n};
}

void ChecksummedFile::flush() {
  if (gathered_ > 0) file_->write({buffer_.get(), gathered_});
  gathered_ = 0;
}

}  // namespace varscope
