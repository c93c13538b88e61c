#include "common/base/philox.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "common/base/vector_clones.h"

namespace varscope {
namespace {

// Philox of n / 4 counters that follow each other, without calls, so that the loop vectorises.
VARSCOPE_VECTOR_CLONES void fill_words(std::uint32_t* to, std::size_t n, std::uint64_t first,
                                       std::array<std::uint32_t, 2> high, std::array<std::uint32_t, 2> key) {
  for (std::size_t i = 0; i < n / 4; ++i) {
    const std::uint64_t counter = first + i;
    std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32);
    std::uint32_t c2 = high[0], c3 = high[1], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    to[4 * i] = c0;
    to[4 * i + 1] = c1;
    to[4 * i + 2] = c2;
    to[4 * i + 3] = c3;
  }
}

// Of the four words of an element.
double uniform_of(const std::uint32_t* w) {
  return static_cast<double>((std::uint64_t{w[0]} << 21) ^ (w[1] >> 11)) * 0x1p-53;
}
double normal_of(const std::uint32_t* w) {
  const double u =
      (static_cast<double>((std::uint64_t{w[0]} << 21) ^ (w[1] >> 11)) + 1.0) * 0x1p-53;  // (0, 1]
  const double v = uniform_of(w + 2);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

// Calls of(words) for each element, the words being made in blocks.
template <class Of>
void fill_draws(const RandomStream& stream, std::uint64_t first, std::span<double> to, Of of) {
  constexpr std::size_t kBlock = 16;
  std::array<std::uint32_t, 4 * kBlock> words{};
  for (std::size_t i = 0; i < to.size(); i += kBlock) {
    const std::size_t n = std::min(kBlock, to.size() - i);
    stream.words(first + i, std::span(words).first(4 * n));
    for (std::size_t j = 0; j < n; ++j) to[i + j] = of(&words[4 * j]);
  }
}

}  // namespace

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

void RandomStream::words(std::uint64_t first, std::span<std::uint32_t> to) const {
  fill_words(to.data(), to.size(), first, high_, key_);
  const std::size_t whole = to.size() / 4 * 4;
  if (whole == to.size()) return;
  const auto last = words(first + whole / 4);
  std::copy_n(last.begin(), to.size() - whole, to.begin() + static_cast<std::ptrdiff_t>(whole));
}

double RandomStream::uniform(std::uint64_t element) const { return uniform_of(words(element).data()); }
double RandomStream::normal(std::uint64_t element) const { return normal_of(words(element).data()); }
void RandomStream::uniform(std::uint64_t first, std::span<double> to) const {
  fill_draws(*this, first, to, uniform_of);
}
void RandomStream::normal(std::uint64_t first, std::span<double> to) const {
  fill_draws(*this, first, to, normal_of);
}

std::uint64_t RandomStream::below(std::uint64_t element, std::uint64_t bound) const {
  const auto w = words(element);
  const std::uint64_t x = (std::uint64_t{w[0]} << 32) | w[1];
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(x) * bound) >> 64);
}

}  // namespace varscope
