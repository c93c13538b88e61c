#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace varscope::compression {

constexpr std::int64_t kWord = 32;  // elements of a word, one bit each

// Bit j, as a table: not every processor shifts the numbers of a vector each by its own distance.
inline constexpr std::array<std::uint32_t, kWord> kBit = [] {
  std::array<std::uint32_t, kWord> bit{};
  for (std::uint32_t j = 0; j < kWord; ++j) bit[j] = 1U << j;
  return bit;
}();

// Calls f(j) for each bit of a word, the lowest first.
template <class F>
inline void for_each_bit(std::uint32_t word, const F& f) {
  for (; word != 0; word &= word - 1) f(static_cast<std::int64_t>(std::countr_zero(word)));
}

}  // namespace varscope::compression
