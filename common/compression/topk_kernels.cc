#include "common/compression/topk_kernels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <span>

#include "common/base/finite.h"
#include "common/base/vector_clones.h"
#include "common/compression/word_bits.h"

namespace varscope::compression {
namespace {

// A magnitude has 31 bits; the first digit is the exponent.
struct Digit {
  int shift;
  int bits;
};
constexpr Digit kDigits[] = {{23, 8}, {15, 8}, {7, 8}, {0, 7}};

// How often each value of a digit occurs. Four tables, used in turns: neighbours are often of one size, and
// an increment waits for the one before it of the same number.
struct Counts {
  std::array<std::uint32_t, 1 << 8> of[4] = {};
};

// Magnitudes from `least` to `most`.
struct Range {
  std::int32_t least = 0;
  std::int32_t most = 0x7fffffff;
  // All ones for one that is not in it; by differences, whose signs every processor has in its vectors.
  std::uint32_t outside(std::int32_t bits) const {
    return static_cast<std::uint32_t>(((bits - least) | (most - bits)) >> 31);
  }
  bool is_all() const { return least == 0 && most == 0x7fffffff; }
  // Those whose bits above a digit are `prefix`.
  static Range of(std::int32_t prefix, Digit digit) {
    const std::int64_t low = static_cast<std::int64_t>(prefix) << (digit.shift + digit.bits);
    const std::int64_t size = std::int64_t{1} << (digit.shift + digit.bits);
    return {static_cast<std::int32_t>(low), static_cast<std::int32_t>(low + size - 1)};
  }
};

// Which of n <= kWord elements are in the range. The full word apart, so that it is vectorized.
inline std::uint32_t in_range(const float* h, Range range, std::int64_t n) {
  std::uint32_t word = 0;
  if (n == kWord) {
    for (std::int64_t j = 0; j < kWord; ++j) word |= kBit[j] & ~range.outside(magnitude_bits(h[j]));
  } else {
    for (std::int64_t j = 0; j < n; ++j) word |= kBit[j] & ~range.outside(magnitude_bits(h[j]));
  }
  return word;
}

// The places of the elements that are in a range, at most kGroup of them at a time.
constexpr std::int64_t kGroup = 1024, kAhead = 8;
using Places = std::array<std::uint32_t, kGroup + kAhead>;

// Writes the places of a word's bits, and perhaps some that mean nothing behind them; returns how many bits
// there are. Few bits cost no branch, which would be foretold wrongly as often as not.
inline std::int64_t put_places(std::uint32_t* places, std::uint32_t word, std::uint32_t first) {
  const std::int64_t n = std::popcount(word);
  const auto put = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      places[j] = first + static_cast<std::uint32_t>(std::countr_zero(word | 1U << 31));
      word &= word - 1;
    }
  };
  put(0, 4);
  if (n > 4) put(4, 8);
  if (n > 8) put(8, n);
  return n;
}

inline std::int64_t places_in(Places& places, const float* h, Range range, std::int64_t n) {
  std::int64_t n_places = 0;
  for (std::int64_t i = 0; i < n; i += kWord)
    n_places += put_places(places.data() + n_places, in_range(h + i, range, std::min(kWord, n - i)),
                           static_cast<std::uint32_t>(i));
  return n_places;
}

// Makes r into h = g + r, and copies those h that are in the range to `found`, while there is room. Returns
// how many are in the range.
VARSCOPE_VECTOR_CLONES std::int64_t add_and_find(std::span<float> found, float* r, const float* g,
                                                 Range range, std::int64_t n) {
  const auto room = static_cast<std::int64_t>(found.size());
  std::int64_t n_found = 0;
  Places places;
  for (std::int64_t i = 0; i < n; i += kGroup) {
    const std::int64_t n_here = std::min(kGroup, n - i);
#pragma GCC ivdep
    for (std::int64_t j = 0; j < n_here; ++j) r[i + j] = g[i + j] + r[i + j];
    const std::int64_t n_places = places_in(places, r + i, range, n_here);
    if (n_found + n_places <= room) {
      float* to = found.data() + n_found;
      for (std::int64_t p = 0; p < n_places; ++p) to[p] = r[i + places[static_cast<std::size_t>(p)]];
    }
    n_found += n_places;
  }
  return n_found;
}

// Counts a digit of the elements in the range.
VARSCOPE_VECTOR_CLONES void count_digit(Counts& counts, const float* h, Digit digit, Range range,
                                        std::int64_t n) {
  const std::int32_t mask = (1 << digit.bits) - 1;
  if (range.is_all()) {
    for (std::int64_t i = 0; i < n; ++i)
      ++counts.of[i % 4][static_cast<std::size_t>(magnitude_bits(h[i]) >> digit.shift & mask)];
    return;
  }
  Places places;
  for (std::int64_t i = 0; i < n; i += kGroup) {
    const std::int64_t n_places = places_in(places, h + i, range, std::min(kGroup, n - i));
    for (std::int64_t p = 0; p < n_places; ++p) {
      const std::int32_t bits = magnitude_bits(h[i + places[static_cast<std::size_t>(p)]]);
      ++counts.of[p % 4][static_cast<std::size_t>(bits >> digit.shift & mask)];
    }
  }
}

// The digit in which the need'th largest lies; takes those above it off `need`.
std::int32_t digit_of(const Counts& counts, int bits, std::int64_t& need) {
  for (std::int32_t d = (1 << bits) - 1; d > 0; --d) {
    std::int64_t n = 0;
    for (const auto& table : counts.of) n += table[static_cast<std::size_t>(d)];
    if (n >= need) return d;
    need -= n;
  }
  return 0;
}

// The floor of the k largest of h, by digits of the bits, the upper ones first: each pass counts how often
// each value of the next digit occurs among those elements whose upper digits are the floor's.
TopkFloor floor_of(const float* h, std::int64_t k, std::int64_t n) {
  TopkFloor floor{0, k};
  for (const Digit digit : kDigits) {
    Counts counts;
    count_digit(counts, h, digit, Range::of(floor.bits, digit), n);
    floor.bits = floor.bits << digit.bits | digit_of(counts, digit.bits, floor.n_equal);
  }
  return floor;
}

// Magnitude bits that nearly always have k of the sums g + r or some more at or above them, from a sample;
// kNoGuess, which none has, where that is not worth its time. The sums are taken at an odd distance, so that
// columns of matrices are mixed.
constexpr std::int32_t kNoGuess = 0x7fffffff;
std::int32_t guess_floor(const float* g, const float* r, std::int64_t k, std::int64_t n) {
  constexpr std::int64_t kLeast = 64, kMost = 2048;
  if (n < 8 * kLeast) return kNoGuess;
  const std::int64_t n_sample = std::clamp(n / 64, kLeast, kMost);
  // As many of the sample as it should have of the k, and two and a half deviations.
  const double expected = static_cast<double>(k) / static_cast<double>(n) * static_cast<double>(n_sample);
  const auto above = static_cast<std::int64_t>(expected + 2.5 * std::sqrt(expected) + 2);
  if (above >= n_sample) return kNoGuess;
  std::array<std::int32_t, kMost> sample;
  const std::int64_t distance = (n / n_sample - 1) | 1;
  for (std::int64_t i = 0; i < n_sample; ++i)
    sample[static_cast<std::size_t>(i)] = magnitude_bits(g[i * distance] + r[i * distance]);
  std::nth_element(sample.begin(), sample.begin() + above, sample.begin() + n_sample, std::greater<>());
  return sample[static_cast<std::size_t>(above)];
}

}  // namespace

VARSCOPE_VECTOR_CLONES std::int32_t largest_sum(const float* g, const float* r, std::int64_t n) {
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, magnitude_bits(g[i] + r[i]));
  return largest;
}

// A guess leaves few sums to select from. It saves time, and decides nothing: where it leaves too few, or
// more than there is room for, all are looked at.
TopkFloor find_floor(const float* g, float* r, std::int64_t k, std::int64_t n) {
  std::array<float, 1 << 15> found;
  const std::int64_t n_found = add_and_find(found, r, g, Range{guess_floor(g, r, k, n)}, n);
  if (n_found < k || n_found > static_cast<std::int64_t>(found.size())) return floor_of(r, k, n);
  return floor_of(found.data(), k, n_found);
}

VARSCOPE_VECTOR_CLONES void take_largest(std::uint32_t* indices, float* values, float* h, TopkFloor floor,
                                         std::int64_t n) {
  std::int64_t n_equal = floor.n_equal;
  Places places;
  for (std::int64_t i = 0; i < n; i += kGroup) {
    const Range range{n_equal > 0 ? floor.bits : floor.bits + 1};
    const std::int64_t n_places = places_in(places, h + i, range, std::min(kGroup, n - i));
    for (std::int64_t p = 0; p < n_places; ++p) {
      const std::int64_t at = i + places[static_cast<std::size_t>(p)];
      if (magnitude_bits(h[at]) == floor.bits && n_equal-- <= 0) continue;
      *indices++ = static_cast<std::uint32_t>(at);
      *values++ = h[at];
      h[at] = 0;
    }
  }
}

VARSCOPE_VECTOR_CLONES std::int64_t first_wrong(const std::uint32_t* indices, std::int64_t k,
                                                std::int64_t n) {
  if (k == 0) return 0;
  std::int32_t any = 0;
  for (std::int64_t i = 1; i < k; ++i) any |= static_cast<std::int32_t>(indices[i - 1] >= indices[i]);
  if (any == 0 && indices[k - 1] < n) return k;
  if (indices[0] >= n) return 0;
  for (std::int64_t i = 1; i < k; ++i)
    if (indices[i - 1] >= indices[i] || indices[i] >= n) return i;
  return k;
}

}  // namespace varscope::compression
