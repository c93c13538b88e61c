#include "common/compression/codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

#include "common/base/error.h"
#include "common/compression/half_kernels.h"
#include "common/compression/onebit_kernels.h"
#include "common/compression/topk_kernels.h"

namespace varscope {
namespace {

using namespace compression;

constexpr std::size_t kNumber = sizeof(float);  // bytes of each f32 and u32; all forms are multiples of it

std::size_t halves_bytes(std::size_t n) { return (n + 1) / 2 * kNumber; }
std::size_t words_bytes(std::size_t n) { return (n + 31) / 32 * kNumber; }

void require_aligned(const void* bytes, const char* what) {
  if (std::bit_cast<std::uintptr_t>(bytes) % kNumber == 0) return;
  fail(ErrorKind::argument, "the bytes of {} begin at {}, which is no multiple of {}", what, bytes, kNumber);
}

// The number at a place of encoded bytes; those lie aligned.
template <class T>
T* numbers(std::byte* bytes, std::size_t at) {
  return reinterpret_cast<T*>(bytes + at);
}
template <class T>
const T* numbers(const std::byte* bytes, std::size_t at) {
  return reinterpret_cast<const T*>(bytes + at);
}

// The zero behind an odd number of halves.
void end_halves(std::uint16_t* halves, std::size_t n) {
  if (n % 2 == 1) halves[n] = 0;
}

// The first element of g + r that is not finite. r may be empty.
std::optional<NotFinite> find_bad_sum(std::span<const float> g, std::span<const float> r) {
  for (std::size_t i = 0; i < g.size(); ++i) {
    const float h = r.empty() ? g[i] : g[i] + r[i];
    if (!std::isfinite(h)) return NotFinite{static_cast<std::int64_t>(i), not_finite_text(h)};
  }
  return std::nullopt;
}

// Each of these returns false, and has changed nothing but `to`, when something is not finite.
bool encode_bfloat16(std::span<const float> g, std::byte* to) {
  auto* halves = numbers<std::uint16_t>(to, 0);
  end_halves(halves, g.size());
  return is_finite_magnitude(to_bfloat16(halves, g.data(), static_cast<std::int64_t>(g.size())));
}

bool encode_half(std::span<const float> g, std::byte* to) {
  const auto n = static_cast<std::int64_t>(g.size());
  const std::int32_t largest = largest_magnitude(g.data(), n);
  if (!is_finite_magnitude(largest)) return false;
  const HalfScale by = half_scale(largest);
  *numbers<float>(to, 0) = by.unit;
  auto* halves = numbers<std::uint16_t>(to, kNumber);
  end_halves(halves, g.size());
  to_half(halves, g.data(), by, n);
  return true;
}

bool encode_onebit(std::span<const float> g, std::span<float> r, std::byte* to) {
  const auto n = static_cast<std::int64_t>(g.size());
  const SideMeans means = side_means(g.data(), r.data(), n);
  if (!is_finite_magnitude(means.largest)) return false;
  numbers<float>(to, 0)[0] = means.not_negative;
  numbers<float>(to, 0)[1] = means.negative;
  to_signs(numbers<std::uint32_t>(to, 2 * kNumber), g.data(), r.data(), means, n);
  return true;
}

bool encode_topk(std::span<const float> g, std::span<float> r, std::size_t k, std::byte* to) {
  const auto n = static_cast<std::int64_t>(g.size()), n_taken = static_cast<std::int64_t>(k);
  if (!is_finite_magnitude(largest_sum(g.data(), r.data(), n))) return false;
  const TopkFloor floor = find_floor(g.data(), r.data(), n_taken, n);
  take_largest(numbers<std::uint32_t>(to, 0), numbers<float>(to, k * kNumber), r.data(), floor, n);
  return true;
}

bool encode(const Codec& codec, std::span<const float> g, std::span<float> r, std::byte* to) {
  switch (codec.type) {
    case CodecType::bf16:
      return encode_bfloat16(g, to);
    case CodecType::fp16:
      return encode_half(g, to);
    case CodecType::onebit:
      return encode_onebit(g, r, to);
    case CodecType::topk:
      break;
  }
  return encode_topk(g, r, topk_count(g.size(), codec.ratio), to);
}

// What is done with the elements that come out of the bytes.
enum class Into : std::uint8_t { overwrite, add };

void put_half(const std::byte* from, std::span<float> to, Into how) {
  const float unit = *numbers<float>(from, 0);
  if (!is_half_unit(unit)) {
    fail(ErrorKind::protocol,
         "an fp16 gradient of {} elements has the unit {:g}, which is no power of two from 2^-126 to 2^113: "
         "the bytes were damaged, or written by another version",
         to.size(), unit);
  }
  const auto* halves = numbers<std::uint16_t>(from, kNumber);
  (how == Into::add ? add_half : from_half)(to.data(), halves, unit, static_cast<std::int64_t>(to.size()));
}

void put_bfloat16(const std::byte* from, std::span<float> to, Into how) {
  (how == Into::add ? add_bfloat16 : from_bfloat16)(to.data(), numbers<std::uint16_t>(from, 0),
                                                    static_cast<std::int64_t>(to.size()));
}

void put_signs(const std::byte* from, std::span<float> to, Into how) {
  SideMeans means;
  means.not_negative = numbers<float>(from, 0)[0];
  means.negative = numbers<float>(from, 0)[1];
  (how == Into::add ? add_signs : from_signs)(to.data(), numbers<std::uint32_t>(from, 2 * kNumber), means,
                                              static_cast<std::int64_t>(to.size()));
}

void put_largest(const std::byte* from, std::size_t k, std::span<float> to, Into how) {
  const auto* indices = numbers<std::uint32_t>(from, 0);
  const auto* values = numbers<float>(from, k * kNumber);
  const auto n = static_cast<std::int64_t>(to.size());
  const auto wrong = static_cast<std::size_t>(first_wrong(indices, static_cast<std::int64_t>(k), n));
  if (wrong < k) {
    fail(
        ErrorKind::protocol,
        "a topk gradient of {} elements has index {} at place {} of {}{}: indices ascend and lie inside; the "
        "bytes were damaged, or written by another version",
        to.size(), indices[wrong], wrong, k,
        wrong == 0 ? std::string() : fmt::format(", behind {}", indices[wrong - 1]));
  }
  if (how == Into::add) {
    for (std::size_t i = 0; i < k; ++i) to[indices[i]] += values[i];
    return;
  }
  std::ranges::fill(to, -0.0F);
  for (std::size_t i = 0; i < k; ++i) to[indices[i]] = values[i];
}

void put(const Codec& codec, std::span<const std::byte> from, std::span<float> to, Into how) {
  const std::size_t expected = encoded_bytes(codec.type, to.size(), codec.ratio);
  if (from.size() != expected) {
    fail(ErrorKind::protocol, "a gradient of {} elements came as {} bytes of {} instead of {}", to.size(),
         from.size(), to_string(codec.type), expected);
  }
  if (to.empty()) return;
  require_aligned(from.data(), "an encoded gradient");
  switch (codec.type) {
    case CodecType::bf16:
      return put_bfloat16(from.data(), to, how);
    case CodecType::fp16:
      return put_half(from.data(), to, how);
    case CodecType::onebit:
      return put_signs(from.data(), to, how);
    case CodecType::topk:
      return put_largest(from.data(), topk_count(to.size(), codec.ratio), to, how);
  }
}

}  // namespace

const char* to_string(CodecType type) {
  switch (type) {
    case CodecType::bf16:
      return "bf16";
    case CodecType::fp16:
      return "fp16";
    case CodecType::onebit:
      return "onebit";
    case CodecType::topk:
      return "topk";
  }
  return "unknown codec";
}

bool has_residual(CodecType type) { return type == CodecType::onebit || type == CodecType::topk; }

std::size_t topk_count(std::size_t n, double ratio) {
  if (!(ratio > 0 && ratio <= 1)) {
    fail(ErrorKind::argument, "topk cannot send a share of {:g}: it must be above 0 and at most 1", ratio);
  }
  if (n > UINT32_MAX) {
    fail(ErrorKind::argument, "topk cannot send a slice of {} elements: its indices have 32 bits", n);
  }
  if (n == 0) return 0;
  const double exact = std::ceil(ratio * static_cast<double>(n) - 1e-6);
  return exact < 1 ? 1 : static_cast<std::size_t>(exact);
}

std::size_t encoded_bytes(CodecType type, std::size_t n, double ratio) {
  const std::size_t k = type == CodecType::topk ? topk_count(n, ratio) : 0;
  if (n == 0) return 0;
  switch (type) {
    case CodecType::bf16:
      return halves_bytes(n);
    case CodecType::fp16:
      return kNumber + halves_bytes(n);
    case CodecType::onebit:
      return 2 * kNumber + words_bytes(n);
    case CodecType::topk:
      break;
  }
  return 2 * k * kNumber;
}

std::optional<NotFinite> encode_gradient(const Codec& codec, std::span<const float> gradient,
                                         std::span<float> residual, std::span<std::byte> to) {
  const std::size_t n = gradient.size(), n_residual = has_residual(codec.type) ? n : 0;
  const std::size_t expected = encoded_bytes(codec.type, n, codec.ratio);
  if (residual.size() != n_residual || to.size() != expected) {
    fail(ErrorKind::argument,
         "{} of {} elements needs a residual of {} and {} bytes, and was given {} and {}",
         to_string(codec.type), n, n_residual, expected, residual.size(), to.size());
  }
  if (n == 0) return std::nullopt;
  require_aligned(to.data(), "an encoded gradient");
  if (encode(codec, gradient, residual, to.data())) return std::nullopt;
  return find_bad_sum(gradient, residual);
}

void encode_values(std::span<const float> values, std::span<std::byte> to) {
  const std::size_t n = values.size(), expected = encoded_bytes(CodecType::bf16, n, 1);
  if (to.size() != expected) {
    fail(ErrorKind::argument, "{} values become {} bytes of bf16, and were given {}", n, expected, to.size());
  }
  if (n == 0) return;
  require_aligned(to.data(), "encoded values");
  if (encode_bfloat16(values, to.data())) return;
  auto* halves = numbers<std::uint16_t>(to.data(), 0);
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t quiet = std::isnan(values[i]) ? 0x40 : 0;  // a NaN stays one without its lower half
    if (!is_finite_magnitude(to_bfloat16(&halves[i], &values[i], 1)))
      halves[i] = static_cast<std::uint16_t>(bits >> 16 | quiet);
  }
}

void round_values(std::span<float> values) {
  constexpr std::size_t kAtOnce = 4096;
  alignas(kNumber) std::array<std::byte, 2 * kAtOnce> bytes;
  for (std::size_t begin = 0; begin < values.size(); begin += kAtOnce) {
    const std::span<float> some = values.subspan(begin, std::min(kAtOnce, values.size() - begin));
    const std::span<std::byte> encoded(bytes.data(), encoded_bytes(CodecType::bf16, some.size(), 1));
    encode_values(some, encoded);
    decode_gradient({CodecType::bf16}, encoded, some);
  }
}

void decode_gradient(const Codec& codec, std::span<const std::byte> from, std::span<float> to) {
  put(codec, from, to, Into::overwrite);
}

void add_gradient(const Codec& codec, std::span<const std::byte> from, std::span<float> into) {
  put(codec, from, into, Into::add);
}

}  // namespace varscope
