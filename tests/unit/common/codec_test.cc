// Gradients become the bytes that the definitions say, of every length and kind of number, and come back.
#include "common/compression/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/base/sum.h"
#include "common/files/half.h"
#include "tests/support/references/codec_reference.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using namespace testing;

constexpr CodecType kTypes[] = {CodecType::bf16, CodecType::fp16, CodecType::onebit, CodecType::topk};

// Kinds of gradients.
enum class Kind : std::uint8_t {
  normal,
  tiny,
  subnormal,
  huge,
  wide,
  ties,
  zeros,
  signed_zeros,
  negative,
  one
};
constexpr Kind kKinds[] = {Kind::normal, Kind::tiny,  Kind::subnormal,    Kind::huge,     Kind::wide,
                           Kind::ties,   Kind::zeros, Kind::signed_zeros, Kind::negative, Kind::one};

float number(Kind kind, std::mt19937& random, std::size_t i) {
  const double x = static_cast<double>(random()) / 2147483648.0 - 1;  // -1 to 1
  const auto bits = static_cast<std::uint32_t>(random());
  switch (kind) {
    case Kind::normal:
      return static_cast<float>(x);
    case Kind::tiny:
      return static_cast<float>(x * 1e-7);
    case Kind::subnormal:
      return std::bit_cast<float>(bits & 0x807fffffU);
    case Kind::huge:  // up to the largest there is; sums with residuals stay below it
      return i % 5 == 0 ? std::copysign(FLT_MAX, static_cast<float>(x)) : static_cast<float>(x * 1.6e38);
    case Kind::wide:  // any number below 2
      return std::bit_cast<float>(bits & 0xbfffffffU);
    case Kind::ties:
      return static_cast<float>(static_cast<int>(bits % 5) - 2) * 0.5F;
    case Kind::zeros:
      return 0;
    case Kind::signed_zeros:
      return bits % 7 == 0 ? 0.25F : bits % 2 == 0 ? 0.0F : -0.0F;
    case Kind::negative:
      return static_cast<float>(-1 - x / 2);
    case Kind::one:
      break;
  }
  return i == 2 ? -3.0F : 0.0F;
}

std::vector<float> gradient(Kind kind, std::size_t n, unsigned seed) {
  std::mt19937 random(seed * 1000003U + static_cast<unsigned>(n) * 31U + static_cast<unsigned>(kind));
  std::vector<float> g;
  for (std::size_t i = 0; i < n; ++i) g.push_back(number(kind, random, i));
  return g;
}

// Memory for encoded bytes, full of something else before.
std::vector<std::byte> room(const Codec& codec, std::size_t n, int fill = 0xa5) {
  return std::vector<std::byte>(encoded_bytes(codec.type, n, codec.ratio), static_cast<std::byte>(fill));
}

std::vector<float> new_residual(const Codec& codec, std::size_t n) {
  return std::vector<float>(has_residual(codec.type) ? n : 0);
}

std::vector<std::byte> encoded(const Codec& codec, std::span<const float> g, std::span<float> residual,
                               int fill = 0xa5) {
  std::vector<std::byte> bytes = room(codec, g.size(), fill);
  const auto bad = encode_gradient(codec, g, residual, bytes);
  EXPECT_FALSE(bad) << bad->element << " is " << bad->what;
  return bytes;
}

std::vector<std::byte> reference(const Codec& codec, std::span<const float> g, std::span<float> residual) {
  switch (codec.type) {
    case CodecType::bf16:
      return reference_bf16(g);
    case CodecType::fp16:
      return reference_fp16(g);
    case CodecType::onebit:
      return reference_onebit(g, residual);
    case CodecType::topk:
      break;
  }
  return reference_topk(g, residual, topk_count(g.size(), codec.ratio));
}

std::vector<std::uint32_t> bits_of(std::span<const float> v) {
  std::vector<std::uint32_t> bits;
  for (const float x : v) bits.push_back(std::bit_cast<std::uint32_t>(x));
  return bits;
}

std::vector<float> decoded(const Codec& codec, std::span<const std::byte> bytes, std::size_t n) {
  std::vector<float> values(n, std::numeric_limits<float>::quiet_NaN());
  decode_gradient(codec, bytes, values);
  return values;
}

std::string named(const Codec& codec, Kind kind, std::size_t n) {
  return fmt::format("{} {} of kind {}, {} elements", to_string(codec.type), codec.ratio,
                     static_cast<int>(kind), n);
}

// Three steps of one slice, beside the reference.
void expect_reference(const Codec& codec, Kind kind, std::size_t n) {
  std::vector<float> residual = new_residual(codec, n);
  if (kind == Kind::signed_zeros) std::ranges::fill(residual, -0.0F);  // a sum of -0 needs both
  std::vector<float> expected_residual = residual;
  for (unsigned step = 0; step < 3; ++step) {
    std::vector<float> g = gradient(kind, n, step);
    if (kind == Kind::huge && has_residual(codec.type) && step > 0)
      for (float& x : g) x *= 0x1p-126F;  // the residuals are as large as a float32 can be
    const std::vector<std::byte> bytes = encoded(codec, g, residual);
    ASSERT_EQ(bytes, reference(codec, g, expected_residual)) << named(codec, kind, n) << ", step " << step;
    ASSERT_EQ(bits_of(residual), bits_of(expected_residual)) << named(codec, kind, n) << ", step " << step;
    for (const float r : residual) ASSERT_TRUE(std::isfinite(r)) << named(codec, kind, n);
    for (const float x : decoded(codec, bytes, n)) ASSERT_TRUE(std::isfinite(x)) << named(codec, kind, n);
  }
}

TEST(Codec, MakesTheBytesAndResidualsOfItsDefinition) {
  for (const CodecType type : kTypes) {
    for (const Kind kind : kKinds) {
      for (std::size_t n = 0; n <= 300; ++n) expect_reference({type, 0.1}, kind, n);
    }
  }
}

TEST(Codec, MakesTheBytesOfItsDefinitionOfLongSlices) {
  for (const std::size_t n : {std::size_t{1025}, std::size_t{8192}}) {
    for (const Kind kind : kKinds) {
      for (const CodecType type : kTypes) expect_reference({type, 0.01}, kind, n);
      for (const double ratio : {1e-9, 0.3, 1.0}) expect_reference({CodecType::topk, ratio}, kind, n);
    }
  }
  for (const Kind kind : {Kind::normal, Kind::ties, Kind::signed_zeros}) {
    for (const double ratio : {0.0005, 0.01, 0.9}) expect_reference({CodecType::topk, ratio}, kind, 50001);
  }
  expect_reference({CodecType::topk, 0.01}, Kind::normal, 262144);  // the longest slice of a job
}

// A selection that begins with a sample: here all that is large, and too little, lies where it looks.
TEST(Codec, TopkFindsTheLargestWhereverTheyLie) {
  constexpr std::size_t n = 20000;
  for (const std::size_t distance :
       {std::size_t{1}, std::size_t{2}, std::size_t{7}, std::size_t{9}, std::size_t{11}}) {
    for (const std::size_t n_large :
         {std::size_t{10}, std::size_t{45}, std::size_t{199}, std::size_t{201}, std::size_t{1500}}) {
      std::vector<float> g = gradient(Kind::tiny, n, 1), residual(n), expected(n);
      for (std::size_t i = 0; i < n_large; ++i) g[i * distance] = 1.0F + static_cast<float>(i % 50);
      const Codec codec{CodecType::topk, 0.01};
      ASSERT_EQ(encoded(codec, g, residual), reference_topk(g, expected, 200)) << distance << " " << n_large;
      ASSERT_EQ(bits_of(residual), bits_of(expected));
    }
  }
}

TEST(Codec, TopkTakesTheFirstOfEquals) {
  const std::vector<float> g{1, -2, 2, 0, 2, -2};
  std::vector<float> residual(g.size());
  const Codec codec{CodecType::topk, 0.5};
  EXPECT_EQ(decoded(codec, encoded(codec, g, residual), g.size()), (std::vector<float>{0, -2, 2, 0, 2, 0}));
  EXPECT_EQ(residual, (std::vector<float>{1, 0, 0, 0, 0, -2}));
}

TEST(Codec, OnebitSendsTheMeansOfBothSides) {
  const std::vector<float> g{1, -4, 3, 0, -2};
  std::vector<float> residual(g.size());
  const Codec codec{CodecType::onebit};
  const float up = 4.0F / 3;
  EXPECT_EQ(decoded(codec, encoded(codec, g, residual), g.size()), (std::vector<float>{up, -3, up, up, -3}));
  EXPECT_EQ(residual, (std::vector<float>{1 - up, -1, 3 - up, -up, 1}));
}

TEST(Codec, OnebitMeansAreThoseOfExactSums) {
  for (const std::size_t n : {std::size_t{5}, std::size_t{1000}, std::size_t{100003}}) {
    const std::vector<float> g = gradient(Kind::normal, n, 3);
    long double sum[2] = {0, 0}, count[2] = {0, 0};
    for (const float x : g) sum[x < 0] += x, count[x < 0] += 1;
    std::vector<float> residual(n);
    const std::vector<std::byte> bytes = encoded({CodecType::onebit}, g, residual);
    for (const int side : {0, 1}) {
      float mean;
      std::memcpy(&mean, bytes.data() + 4 * side, sizeof mean);
      EXPECT_FLOAT_EQ(mean, static_cast<float>(sum[side] / count[side])) << n;
    }
  }
}

// Two ones that are summed by themselves tip a tie between two float32; added to 2^53 each, they are lost.
TEST(Codec, OnebitSumsEachSideInSixteenTurns) {
  std::vector<float> g(32), residual(32);
  g[0] = 0x1p53F;
  g[16] = 0x1p29F;
  g[8] = g[24] = 1;
  float mean;
  std::memcpy(&mean, encoded({CodecType::onebit}, g, residual).data(), sizeof mean);
  EXPECT_EQ(mean, std::nextafter(0x1p48F, FLT_MAX));
}

TEST(Codec, ZerosStayZerosAndLeaveNothing) {
  for (const CodecType type : kTypes) {
    const Codec codec{type, 0.1};
    const std::vector<float> zeros(77);
    std::vector<float> residual = new_residual(codec, zeros.size());
    EXPECT_EQ(decoded(codec, encoded(codec, zeros, residual), zeros.size()), zeros) << to_string(type);
    EXPECT_EQ(bits_of(residual), bits_of(new_residual(codec, zeros.size()))) << to_string(type);
  }
}

TEST(Codec, BytesDependOnNothingButTheNumbers) {
  for (const CodecType type : kTypes) {
    const Codec codec{type, 0.05};
    for (const std::size_t n : {std::size_t{31}, std::size_t{64}, std::size_t{1000}, std::size_t{9001}}) {
      const std::vector<float> g = gradient(Kind::wide, n, 7);
      std::vector<float> residual = new_residual(codec, n);
      const std::vector<std::byte> bytes = encoded(codec, g, residual);
      for (std::size_t shift = 1; shift < 17; shift += 3) {  // elsewhere in memory, over other bytes
        std::vector<float> moved(shift, 1.0F), other = new_residual(codec, n + shift);
        moved.insert(moved.end(), g.begin(), g.end());
        const auto moved_residual = std::span(other).last(residual.size());
        ASSERT_EQ(encoded(codec, std::span(moved).subspan(shift), moved_residual, 0xff), bytes);
        ASSERT_EQ(bits_of(moved_residual), bits_of(residual));
      }
    }
  }
}

TEST(Codec, SizesAreExact) {
  struct Case {
    Codec codec;
    std::size_t n, n_bytes;
  };
  const Codec bf16{CodecType::bf16}, fp16{CodecType::fp16}, onebit{CodecType::onebit};
  const Case cases[] = {{bf16, 0, 0},
                        {bf16, 1, 4},
                        {bf16, 2, 4},
                        {bf16, 262144, 524288},
                        {fp16, 0, 0},
                        {fp16, 1, 8},
                        {fp16, 3, 12},
                        {fp16, 262144, 524292},
                        {onebit, 0, 0},
                        {onebit, 1, 12},
                        {onebit, 32, 12},
                        {onebit, 33, 16},
                        {onebit, 262144, 32776},
                        {{CodecType::topk, 0.01}, 0, 0},
                        {{CodecType::topk, 0.01}, 1, 8},
                        {{CodecType::topk, 0.01}, 100, 8},
                        {{CodecType::topk, 0.01}, 101, 16},
                        {{CodecType::topk, 0.01}, 262144, 2622 * 8},
                        {{CodecType::topk, 0.07}, 100, 7 * 8},  // 0.07 * 100 is a little more than 7
                        {{CodecType::topk, 1.0 / 3}, 300, 100 * 8},
                        {{CodecType::topk, 1e-12}, 1000, 8},
                        {{CodecType::topk, 1}, 7, 56}};
  for (const Case& c : cases)
    EXPECT_EQ(encoded_bytes(c.codec.type, c.n, c.codec.ratio), c.n_bytes)
        << to_string(c.codec.type) << " " << c.codec.ratio << ", " << c.n << " elements";
}

TEST(Codec, AddsWhatItDecodes) {
  for (const CodecType type : kTypes) {
    const Codec codec{type, 0.1};
    for (const Kind kind : kKinds) {
      for (std::size_t n = 0; n < 130; ++n) {
        const std::vector<float> g = gradient(kind, n, 1);
        std::vector<float> residual = new_residual(codec, n);
        const std::vector<std::byte> bytes = encoded(codec, g, residual);
        std::vector<float> into = gradient(n % 2 == 0 ? Kind::signed_zeros : Kind::normal, n, 2),
                           expected = into;
        const std::vector<float> values = decoded(codec, bytes, n);
        add_into(DType::float32, reinterpret_cast<std::byte*>(expected.data()),
                 reinterpret_cast<const std::byte*>(values.data()), n * sizeof(float));
        add_gradient(codec, bytes, into);
        ASSERT_EQ(bits_of(into), bits_of(expected)) << named(codec, kind, n);
      }
    }
  }
}

TEST(Codec, DecodesEveryHalf) {
  constexpr std::size_t n = 65536;
  const Codec codec{CodecType::fp16};
  for (const int exponent : {-126, -20, 0, 5, 113}) {
    std::vector<std::byte> bytes;
    append(bytes, std::ldexp(1.0F, exponent));
    for (std::uint32_t half = 0; half < n; ++half) append(bytes, static_cast<std::uint16_t>(half));
    const std::vector<float> values = decoded(codec, bytes, n);
    for (std::uint32_t half = 0; half < n; ++half) {
      const float expected = from_half(static_cast<std::uint16_t>(half)) * std::ldexp(1.0F, exponent);
      if (std::isnan(expected))
        ASSERT_TRUE(std::isnan(values[half])) << half;
      else
        ASSERT_EQ(std::bit_cast<std::uint32_t>(values[half]), std::bit_cast<std::uint32_t>(expected)) << half;
    }
  }
}

// Binary16 alone has no number below 6e-8, and 3 digits below 6e-5.
TEST(Codec, HalfKeepsGradientsOfAnySize) {
  for (const float size : {1e-40F, 1e-30F, 1e-8F, 1e-5F, 1.0F, 1e5F, 1e38F}) {
    std::vector<float> g = gradient(Kind::normal, 200, 1);
    for (float& x : g) x *= size;
    const std::vector<float> values = decoded({CodecType::fp16}, encoded({CodecType::fp16}, g, {}), g.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      const double most = std::abs(static_cast<double>(g[i])) * 0x1p-11 + static_cast<double>(size) * 0x1p-38;
      ASSERT_NEAR(values[i], g[i], most) << size;
    }
  }
}

TEST(Codec, RoundsHugeNumbersToNoInfinity) {
  const std::vector<float> g{FLT_MAX, -FLT_MAX, 3.39e38F, 1};
  EXPECT_EQ(decoded({CodecType::bf16}, encoded({CodecType::bf16}, g, {}), 4),
            (std::vector<float>{0x1.fep127F, -0x1.fep127F, 0x1.fep127F, 1}));
  EXPECT_EQ(decoded({CodecType::fp16}, encoded({CodecType::fp16}, g, {}), 4),
            (std::vector<float>{0x1.ffcp127F, -0x1.ffcp127F, 0x1.fe0p127F, 0}));
}

TEST(Codec, ValuesAreRoundedAsGradientsAreAndKeepWhatIsNotFinite) {
  std::mt19937 random(3);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const Kind kind : kKinds) {
    for (const std::size_t n : {0, 1, 2, 31, 4096, 9001}) {
      std::vector<float> values(n), decoded(n);
      for (std::size_t i = 0; i < n; ++i) values[i] = number(kind, random, i);
      std::vector<std::byte> as_values(encoded_bytes(CodecType::bf16, n, 1)), as_gradient(as_values.size());
      encode_values(values, as_values);
      ASSERT_FALSE(encode_gradient({CodecType::bf16}, values, {}, as_gradient));
      EXPECT_EQ(as_values, as_gradient);
      decode_gradient({CodecType::bf16}, as_values, decoded);
      round_values(values);
      EXPECT_EQ(std::memcmp(values.data(), decoded.data(), n * sizeof(float)), 0);
      round_values(decoded);
      EXPECT_EQ(std::memcmp(values.data(), decoded.data(), n * sizeof(float)), 0) << "twice is once";
    }
  }
  std::vector<float> bad{1.001F, kInf, -kInf, std::bit_cast<float>(0x7f800001U), FLT_MAX};
  round_values(bad);
  EXPECT_EQ(bad[0], 1.0F);
  EXPECT_EQ(bad[1], kInf);
  EXPECT_EQ(bad[2], -kInf);
  EXPECT_TRUE(std::isnan(bad[3])) << "its bits were all in the lower half";
  EXPECT_TRUE(std::isfinite(bad[4]));
  std::vector<std::byte> few(4);
  EXPECT_EQ(thrown([&] { encode_values(bad, few); }),
            "argument: 5 values become 12 bytes of bf16, and were given 4");
}

}  // namespace
}  // namespace varscope
