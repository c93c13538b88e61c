#include "common/base/row_id.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace varscope {
namespace {

XXH128_hash_t hash_of(std::uint64_t id, std::span<const std::byte> values) {
  return XXH3_128bits_withSeed(values.data(), values.size(), id);
}

}  // namespace

std::uint64_t string_row_id(std::string_view text, std::uint64_t seed) {
  return XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

void RowHashSum::add(std::uint64_t id, std::span<const std::byte> values) {
  const XXH128_hash_t h = hash_of(id, values);
  low_ += h.low64;
  high_ += h.high64 + (low_ < h.low64 ? 1 : 0);
}

void RowHashSum::remove(std::uint64_t id, std::span<const std::byte> values) {
  const XXH128_hash_t h = hash_of(id, values);
  high_ -= h.high64 + (low_ < h.low64 ? 1 : 0);
  low_ -= h.low64;
}

RowHashSum& RowHashSum::operator+=(const RowHashSum& other) {
  low_ += other.low_;
  high_ += other.high_ + (low_ < other.low_ ? 1 : 0);
  return *this;
}

Digest RowHashSum::digest() const {
  Digest digest;
  for (std::size_t i = 0; i < 8; ++i) {
    digest.bytes[i] = static_cast<std::uint8_t>(high_ >> (56 - 8 * i));
    digest.bytes[8 + i] = static_cast<std::uint8_t>(low_ >> (56 - 8 * i));
  }
  return digest;
}

RowHashSum RowHashSum::from(const Digest& digest) {
  RowHashSum sum;
  for (std::size_t i = 0; i < 8; ++i) {
    sum.high_ = sum.high_ << 8 | digest.bytes[i];
    sum.low_ = sum.low_ << 8 | digest.bytes[8 + i];
  }
  return sum;
}

}  // namespace varscope
