#include "common/base/hash.h"

#include <isa-l/crc.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

// The same functions, by the widest vectors that this processor has.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#endif

#include "common/base/error.h"

namespace varscope {
namespace {

Digest to_digest(XXH128_hash_t h) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, h);
  Digest d;
  std::memcpy(d.bytes.data(), canonical.digest, d.bytes.size());
  return d;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::uint64_t hash64(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

std::string Digest::hex() const {
  static const char* digits = "0123456789abcdef";
  std::string s;
  for (std::uint8_t b : bytes) {
    s += digits[b >> 4];
    s += digits[b & 15];
  }
  return s;
}

Digest Digest::from_hex(std::string_view hex) {
  Digest d;
  if (hex.size() != 2 * d.bytes.size())
    fail(ErrorKind::data, "\"{}\" is not a 128-bit hash in hexadecimal", hex);
  for (std::size_t i = 0; i < d.bytes.size(); ++i) {
    const int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) fail(ErrorKind::data, "\"{}\" is not a 128-bit hash in hexadecimal", hex);
    d.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return d;
}

Digest digest_of(std::span<const std::byte> bytes) {
  return to_digest(XXH3_128bits(bytes.data(), bytes.size()));
}
Digest digest_of(std::string_view text) { return to_digest(XXH3_128bits(text.data(), text.size())); }

Digester::Digester() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}
Digester::~Digester() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
void Digester::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
}
void Digester::update(std::string_view text) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), text.data(), text.size());
}
Digest Digester::finish() const { return to_digest(XXH3_128bits_digest(static_cast<XXH3_state_t*>(state_))); }

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
  // ISA-L's parameter lacks a const, and its length is an int. It neither inverts before nor after.
  constexpr std::size_t kMost = 1U << 30;
  crc = ~crc;
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), kMost);
    auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    crc = crc32_iscsi(p, static_cast<int>(n), crc);
    bytes = bytes.subspan(n);
  }
  return ~crc;
}

}  // namespace varscope
