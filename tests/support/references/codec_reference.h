#pragma once

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace varscope::testing {

// Encoders as they are defined, one element after the other, in double. Each returns the bytes that a slice
// becomes; those with a residual change it.

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto* p = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), p, p + sizeof value);
}

// x as sign, and the multiple of a power of two that is nearest, even in a tie: a number of `digits` binary
// digits whose last place is not below 2^least.
inline double rounded(double x, int digits, int least) {
  if (x == 0) return x;
  const double last = std::ldexp(1.0, std::max(std::ilogb(x) - digits + 1, least));
  return std::nearbyint(x / last) * last;  // exact but for nearbyint, which goes to even
}

inline std::vector<std::byte> reference_bf16(std::span<const float> g) {
  const double largest = std::ldexp(255.0, 120);  // 8 ones
  std::vector<std::byte> bytes;
  for (const float x : g) {
    const double value = std::clamp(rounded(x, 8, -133), -largest, largest);
    append(bytes, static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16));
  }
  if (g.size() % 2 == 1) append(bytes, std::uint16_t{0});
  return bytes;
}

// The bits of a double that binary16 has.
inline std::uint16_t half_of(double x) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double size = std::abs(x);
  if (size < std::ldexp(1.0, -14))
    return static_cast<std::uint16_t>(sign | static_cast<int>(std::ldexp(size, 24)));
  const int exponent = std::ilogb(size);
  const int fraction = static_cast<int>(std::ldexp(size, 10 - exponent)) - 1024;
  return static_cast<std::uint16_t>(sign | (exponent + 15) << 10 | fraction);
}

inline std::vector<std::byte> reference_fp16(std::span<const float> g) {
  std::vector<std::byte> bytes;
  if (g.empty()) return bytes;
  double most = 0;
  for (const float x : g) most = std::max(most, static_cast<double>(std::abs(x)));
  const double unit = most == 0 ? 1 : std::ldexp(1.0, std::max(std::ilogb(most) - 14, -126));
  append(bytes, static_cast<float>(unit));
  for (const float x : g) {
    double half = rounded(x / unit, 11, -24);
    if (std::abs(half) * unit > FLT_MAX) half = std::copysign(32768.0 - 16, half);
    append(bytes, half_of(half));
  }
  if (g.size() % 2 == 1) append(bytes, std::uint16_t{0});
  return bytes;
}

inline std::vector<float> sum_of(std::span<const float> g, std::span<const float> r) {
  std::vector<float> h;
  for (std::size_t i = 0; i < g.size(); ++i) h.push_back(g[i] + r[i]);
  return h;
}

// Each side is summed in 16 turns, and these one after the other.
inline std::vector<std::byte> reference_onebit(std::span<const float> g, std::span<float> r) {
  constexpr std::size_t kTurns = 16;
  std::vector<std::byte> bytes;
  if (g.empty()) return bytes;
  const std::vector<float> h = sum_of(g, r);
  double sum[2] = {0, 0};
  double count[2] = {0, 0};
  for (std::size_t turn = 0; turn < kTurns; ++turn) {
    double of_turn[2] = {0, 0};
    for (std::size_t i = turn; i < h.size(); i += kTurns) {
      of_turn[std::signbit(h[i])] += h[i];
      count[std::signbit(h[i])] += 1;
    }
    for (const int side : {0, 1}) sum[side] += of_turn[side];
  }
  float mean[2];
  for (const int side : {0, 1})
    mean[side] = count[side] == 0 ? 0.0F : static_cast<float>(sum[side] / count[side]);
  append(bytes, mean[0]);
  append(bytes, mean[1]);
  std::vector<std::uint32_t> words((h.size() + 31) / 32);
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (std::signbit(h[i])) words[i / 32] |= 1U << i % 32;
    r[i] = h[i] - mean[std::signbit(h[i])];
  }
  for (const std::uint32_t word : words) append(bytes, word);
  return bytes;
}

inline std::vector<std::byte> reference_topk(std::span<const float> g, std::span<float> r, std::size_t k) {
  const std::vector<float> h = sum_of(g, r);
  std::vector<std::uint32_t> order(h.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return std::abs(h[a]) > std::abs(h[b]); });
  order.resize(k);
  std::sort(order.begin(), order.end());
  std::vector<std::byte> bytes;
  std::copy(h.begin(), h.end(), r.begin());
  for (const std::uint32_t i : order) append(bytes, i);
  for (const std::uint32_t i : order) {
    append(bytes, h[i]);
    r[i] = 0;
  }
  return bytes;
}

}  // namespace varscope::testing
