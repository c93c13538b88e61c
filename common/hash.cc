#include "common/hash.h"

#include <xxhash.h>

#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#include "common/error.h"

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

std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) ? (c >> 1) ^ 0x82F63B78U : c >> 1;
    table[i] = c;
  }
  return table;
}

std::uint32_t crc_portable(const unsigned char* p, std::size_t n, std::uint32_t c) {
  static const std::array<std::uint32_t, 256> table = make_crc_table();
  for (std::size_t i = 0; i < n; ++i) c = table[(c ^ p[i]) & 0xff] ^ (c >> 8);
  return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc_sse42(const unsigned char* p, std::size_t n,
                                                          std::uint32_t c) {
  std::uint64_t c64 = c;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    c64 = _mm_crc32_u64(c64, word);
  }
  c = static_cast<std::uint32_t>(c64);
  for (; n > 0; ++p, --n) c = _mm_crc32_u8(c, *p);
  return c;
}
#endif

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
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return ~crc_sse42(p, bytes.size(), ~crc);
#endif
  return ~crc_portable(p, bytes.size(), ~crc);
}

}  // namespace varscope
