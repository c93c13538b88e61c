#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace varscope {

// XXH3 of a string, 64 bits; the scope hash.
std::uint64_t hash64(std::string_view text);

// XXH3-128 in its canonical (big-endian) byte order.
struct Digest {
  std::array<std::uint8_t, 16> bytes{};
  std::string hex() const;
  static Digest from_hex(std::string_view hex);  // throws Error(data)
  friend auto operator<=>(const Digest&, const Digest&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    for (auto& b : bytes) ar& b;
  }
};
Digest digest_of(std::span<const std::byte> bytes);
Digest digest_of(std::string_view text);

// Streaming XXH3-128. Not thread-safe.
class Digester {
 public:
  Digester();
  ~Digester();
  Digester(const Digester&) = delete;
  Digester& operator=(const Digester&) = delete;
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  Digest finish() const;

 private:
  void* state_;
};

// CRC-32C (Castagnoli, RFC 3720), by ISA-L. `crc` continues a previous value.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace varscope
