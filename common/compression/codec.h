#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/base/finite.h"

namespace varscope {

// Compression of gradients, one slice at a time. A slice's n float32 become a number of bytes that its length
// alone decides, so that receives can be posted before anything has come. All are pure functions of their
// operands, with the same bits at every vector width; safe from any thread. Nothing is allocated.
//
// What a slice becomes (numbers little-endian; every form has a multiple of 4 bytes, and none for n = 0):
//
//   bf16    n u16, the upper halves of float32 rounded to nearest even; a zero u16 behind them where n is odd
//   fp16    f32 unit, a power of two; n IEEE binary16 in that unit, nearest even; zeros as with bf16
//   onebit  f32 mean of what has no sign; f32 mean of what has one, 0 where there is none of either;
//           ceil(n / 32) u32, where bit i % 32 of word i / 32 is the sign of element i; zeros behind the last
//   topk    k u32 indices, ascending; k f32, the elements there; k = topk_count(n, ratio)
//
// onebit (Seide, Fu, Droppo, Li, Yu, "1-bit stochastic gradient descent and its application to data-parallel
// distributed training of speech DNNs", 2014) and topk lose most of a gradient. What they lose is kept in a
// residual r of the sender's, and sent with later gradients: h = g + r is encoded, and r becomes h - decoded.
enum class CodecType : std::uint8_t { bf16 = 1, fp16 = 2, onebit = 3, topk = 4 };

const char* to_string(CodecType type);  // "bf16", ...
bool has_residual(CodecType type);      // onebit, topk

// How the slices of a bucket are compressed.
struct Codec {
  CodecType type = CodecType::bf16;
  double ratio = 0.01;  // of topk: the share of elements that is sent
};

// The elements that topk sends of n: ceil(ratio * n), where a millionth of an element is nothing, so that
// 0.07 of 100 is 7 though the product of doubles is a little more; at least 1, unless n is 0. Throws
// Error(argument) unless 0 < ratio <= 1 and n < 2^32.
std::size_t topk_count(std::size_t n, double ratio);

// The bytes that n elements become. Throws as topk_count does, for topk.
std::size_t encoded_bytes(CodecType type, std::size_t n, double ratio);

// Encodes gradient + residual into `to`, and leaves in `residual` what that loses. The residual of a codec
// without one is empty; a new one is zero.
//
// When an element is not finite, or its sum with the residual is not, nothing is encoded: the first such
// element is returned, `residual` is as it was, and the contents of `to` mean nothing. Otherwise all that is
// encoded, and all of `residual`, is finite. bf16 and fp16 make no infinities: what would be rounded to one
// becomes the largest finite number.
//
// Throws Error(argument) unless residual has gradient's size (or is empty, see has_residual), `to` has
// encoded_bytes() and begins at a multiple of 4. REQUIRES: finite residuals, spans that do not overlap.
[[nodiscard]] std::optional<NotFinite> encode_gradient(const Codec& codec, std::span<const float> gradient,
                                                       std::span<float> residual, std::span<std::byte> to);

// Values as bf16, nearest even, NaN and infinities as they are, and no others made: what would be rounded to
// an infinity becomes the largest finite number. Throws Error(argument) unless `to` has encoded_bytes() and
// begins at a multiple of 4. decode_gradient() undoes it.
void encode_values(std::span<const float> values, std::span<std::byte> to);
// Makes values what they are after encode_values() and decode_gradient().
void round_values(std::span<float> values);

// Bytes of the network to float32; overwrites all of `to`. What topk has left out becomes -0, the number that
// changes nothing when it is added. Throws Error(protocol) when `from` has not the bytes that to.size()
// elements become, or when they are what no encoder makes: topk's indices that do not ascend or lie outside,
// a unit of fp16 that is no power of two from 2^-126 to 2^113. Values are not looked at: whoever applies them
// looks for what is not finite. Throws Error(argument) unless `from` begins at a multiple of 4.
void decode_gradient(const Codec& codec, std::span<const std::byte> from, std::span<float> to);

// The same, added to `into`: the bits are those of decode_gradient() and then add_into() (common/base/sum.h).
// When it throws, nothing has been added.
void add_gradient(const Codec& codec, std::span<const std::byte> from, std::span<float> into);

}  // namespace varscope
