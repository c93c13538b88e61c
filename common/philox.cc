#include "common/philox.h"

#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <numbers>

namespace varscope {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k[0] += 0x9E3779B9U;
    k[1] += 0xBB67AE85U;
  }
  return c;
}

RandomStream::RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t stream) {
  const std::uint64_t words[3] = {seed, static_cast<std::uint64_t>(purpose), stream};
  unsigned char bytes[sizeof words];
  for (std::size_t i = 0; i < sizeof words; ++i) {
    bytes[i] = static_cast<unsigned char>(words[i / 8] >> (8 * (i % 8)));
  }
  const XXH128_hash_t h = XXH3_128bits(bytes, sizeof bytes);
  key_ = {static_cast<std::uint32_t>(h.low64), static_cast<std::uint32_t>(h.low64 >> 32)};
  high_ = {static_cast<std::uint32_t>(h.high64), static_cast<std::uint32_t>(h.high64 >> 32)};
}

std::array<std::uint32_t, 4> RandomStream::words(std::uint64_t element) const {
  return philox4x32(
      {static_cast<std::uint32_t>(element), static_cast<std::uint32_t>(element >> 32), high_[0], high_[1]},
      key_);
}

double RandomStream::uniform(std::uint64_t element) const {
  const auto w = words(element);
  return static_cast<double>((std::uint64_t{w[0]} << 21) ^ (w[1] >> 11)) * 0x1p-53;
}

double RandomStream::normal(std::uint64_t element) const {
  const auto w = words(element);
  const double u =
      (static_cast<double>((std::uint64_t{w[0]} << 21) ^ (w[1] >> 11)) + 1.0) * 0x1p-53;  // (0, 1]
  const double v = static_cast<double>((std::uint64_t{w[2]} << 21) ^ (w[3] >> 11)) * 0x1p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::uint64_t RandomStream::below(std::uint64_t element, std::uint64_t bound) const {
  const auto w = words(element);
  const std::uint64_t x = (std::uint64_t{w[0]} << 32) | w[1];
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(x) * bound) >> 64);
}

}  // namespace varscope
