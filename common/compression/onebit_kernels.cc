#include "common/compression/onebit_kernels.h"

#include <algorithm>
#include <bit>

#include "common/base/finite.h"
#include "common/base/vector_clones.h"
#include "common/compression/word_bits.h"

namespace varscope::compression {
namespace {

constexpr std::int64_t kLanes = 16;
// All ones for a number with a sign, -0 among them. Masks instead of comparisons: every processor has them in
// its vectors.
inline std::int32_t sign_mask(float x) { return std::bit_cast<std::int32_t>(x) >> 31; }
// x, or +0.
inline float masked(float x, std::int32_t mask) {
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(x) & mask);
}
inline float one_of(float up, float down, std::int32_t sign) {
  return std::bit_cast<float>((std::bit_cast<std::int32_t>(up) & ~sign) |
                              (std::bit_cast<std::int32_t>(down) & sign));
}

// Element i is summed in lane i % kLanes, whatever the width of vectors.
struct Lanes {
  double not_negative[kLanes] = {};
  double negative[kLanes] = {};
  std::int32_t n_negative[kLanes] = {};
  std::int32_t largest[kLanes] = {};
};

inline void add_to_lane(Lanes& lanes, std::int64_t j, float h) {
  const std::int32_t sign = sign_mask(h);
  lanes.not_negative[j] += static_cast<double>(masked(h, ~sign));
  lanes.negative[j] += static_cast<double>(masked(h, sign));
  lanes.n_negative[j] -= sign;
  lanes.largest[j] = std::max(lanes.largest[j], magnitude_bits(h));
}

VARSCOPE_VECTOR_CLONES void sum_sides(Lanes& result, const float* g, const float* r, std::int64_t n) {
  Lanes lanes;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) add_to_lane(lanes, j, g[i + j] + r[i + j]);
  }
  for (std::int64_t j = 0; i + j < n; ++j) add_to_lane(lanes, j, g[i + j] + r[i + j]);
  result = lanes;
}

}  // namespace

SideMeans side_means(const float* g, const float* r, std::int64_t n) {
  Lanes lanes;
  sum_sides(lanes, g, r, n);
  double not_negative = 0, negative = 0;
  std::int64_t n_negative = 0;
  SideMeans means;
  for (std::int64_t j = 0; j < kLanes; ++j) {
    not_negative += lanes.not_negative[j];
    negative += lanes.negative[j];
    n_negative += lanes.n_negative[j];
    means.largest = std::max(means.largest, lanes.largest[j]);
  }
  if (n_negative < n)
    means.not_negative = static_cast<float>(not_negative / static_cast<double>(n - n_negative));
  if (n_negative > 0) means.negative = static_cast<float>(negative / static_cast<double>(n_negative));
  return means;
}

VARSCOPE_VECTOR_CLONES void to_signs(std::uint32_t* words, const float* g, float* r, const SideMeans& means,
                                     std::int64_t n) {
  const float up = means.not_negative, down = means.negative;
  for (std::int64_t i = 0; i < n; i += kWord) {
    std::uint32_t word = 0;
    const std::int64_t n_bits = n - i < kWord ? n - i : kWord;
    if (n_bits == kWord) {
#pragma GCC ivdep
      for (std::int64_t j = 0; j < kWord; ++j) {
        const float h = g[i + j] + r[i + j];
        word |= kBit[j] & static_cast<std::uint32_t>(sign_mask(h));
        r[i + j] = h - one_of(up, down, sign_mask(h));
      }
    } else {
      for (std::int64_t j = 0; j < n_bits; ++j) {
        const float h = g[i + j] + r[i + j];
        word |= kBit[j] & static_cast<std::uint32_t>(sign_mask(h));
        r[i + j] = h - one_of(up, down, sign_mask(h));
      }
    }
    words[i / kWord] = word;
  }
}

VARSCOPE_VECTOR_CLONES void from_signs(float* to, const std::uint32_t* words, const SideMeans& means,
                                       std::int64_t n) {
  const float up = means.not_negative, down = means.negative;
  std::int64_t i = 0;
  for (; i + kWord <= n; i += kWord) {
    const std::uint32_t word = *words++;
#pragma GCC ivdep
    for (std::int64_t j = 0; j < kWord; ++j) to[i + j] = (word & kBit[j]) != 0 ? down : up;
  }
  for (std::int64_t j = 0; i + j < n; ++j) to[i + j] = (*words & kBit[j]) != 0 ? down : up;
}

VARSCOPE_VECTOR_CLONES void add_signs(float* into, const std::uint32_t* words, const SideMeans& means,
                                      std::int64_t n) {
  const float up = means.not_negative, down = means.negative;
  std::int64_t i = 0;
  for (; i + kWord <= n; i += kWord) {
    const std::uint32_t word = *words++;
#pragma GCC ivdep
    for (std::int64_t j = 0; j < kWord; ++j) into[i + j] += (word & kBit[j]) != 0 ? down : up;
  }
  for (std::int64_t j = 0; i + j < n; ++j) into[i + j] += (*words & kBit[j]) != 0 ? down : up;
}

}  // namespace varscope::compression
