// What is not finite is not encoded; bytes that no encoder makes are refused; and the words of both.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "common/compression/codec.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

constexpr CodecType kTypes[] = {CodecType::bf16, CodecType::fp16, CodecType::onebit, CodecType::topk};
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool same_bits(std::span<const float> a, std::span<const float> b) {
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  return std::ranges::equal(a, b, {}, bits, bits);
}

TEST(CodecErrors, TellsTheFirstElementThatIsNotFinite) {
  for (const CodecType type : kTypes) {
    const Codec codec{type, 0.1};
    for (const std::size_t n : {std::size_t{1}, std::size_t{15}, std::size_t{33}, std::size_t{100}}) {
      for (std::size_t at = 0; at < n; at += 1 + n / 20) {
        for (const float bad : {kInf, -kInf, kNan, -kNan}) {
          std::vector<float> g(n, 0.5F), residual(has_residual(type) ? n : 0, 0.25F);
          g[at] = bad;
          g[n - 1] = at == n - 1 ? bad : kNan;  // a later one
          const std::vector<float> before = residual;
          std::vector<std::byte> bytes(encoded_bytes(type, n, codec.ratio));
          const auto found = encode_gradient(codec, g, residual, bytes);
          ASSERT_TRUE(found) << to_string(type) << " of " << n << ": " << at;
          EXPECT_EQ(found->element, static_cast<std::int64_t>(at));
          EXPECT_STREQ(found->what, std::isnan(bad) ? "nan" : bad > 0 ? "inf" : "-inf");
          EXPECT_TRUE(same_bits(residual, before)) << to_string(type);
        }
      }
    }
  }
}

TEST(CodecErrors, TellsASumWithTheResidualThatOverflows) {
  for (const CodecType type : {CodecType::onebit, CodecType::topk}) {
    std::vector<float> g(40, 1.0F), residual(40);
    g[7] = residual[7] = -0.6F * FLT_MAX;
    std::vector<std::byte> bytes(encoded_bytes(type, 40, 0.1));
    const std::vector<float> before = residual;
    const auto found = encode_gradient({type, 0.1}, g, residual, bytes);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->element, 7);
    EXPECT_STREQ(found->what, "-inf");
    EXPECT_TRUE(same_bits(residual, before));
  }
}

TEST(CodecErrors, SharesOfTopkAreAbove0AndAtMost1) {
  for (const double ratio :
       {0.0, -0.1, 1.5, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    EXPECT_THAT_THROWN(encoded_bytes(CodecType::topk, 10, ratio), ErrorKind::argument,
                       {"topk cannot send a share of", "above 0 and at most 1"});
  EXPECT_EQ(encoded_bytes(CodecType::bf16, 10, 0.0), 20U) << "a share is of topk alone";
  EXPECT_THAT_THROWN(encoded_bytes(CodecType::topk, std::size_t{1} << 32, 0.5), ErrorKind::argument,
                     {"a slice of 4294967296 elements", "32 bits"});
  EXPECT_EQ(encoded_bytes(CodecType::topk, (std::size_t{1} << 32) - 1, 1), ((std::size_t{1} << 32) - 1) * 8);
}

TEST(CodecErrors, RefusesWrongCalls) {
  const std::vector<float> g(33);
  std::vector<float> residual(33), out(33);
  std::vector<std::byte> bytes(200);
  const auto to = [&](std::size_t n) { return std::span(bytes).first(n); };
  const std::span<float> r(residual);
  EXPECT_THAT_THROWN(encode_gradient({CodecType::onebit}, g, {}, to(16)), ErrorKind::argument,
                     {"onebit of 33 elements needs a residual of 33 and 16 bytes, and was given 0 and 16"});
  EXPECT_THAT_THROWN(encode_gradient({CodecType::topk, 0.1}, g, r.first(32), to(32)), ErrorKind::argument,
                     {"needs a residual of 33", "given 32"});
  EXPECT_THAT_THROWN(encode_gradient({CodecType::bf16}, g, r, to(68)), ErrorKind::argument,
                     {"bf16 of 33 elements needs a residual of 0"});
  EXPECT_THAT_THROWN(encode_gradient({CodecType::fp16}, g, {}, to(68)), ErrorKind::argument,
                     {"fp16 of 33 elements", "72 bytes"});
  EXPECT_THAT_THROWN(encode_gradient({CodecType::bf16}, g, {}, std::span(bytes).subspan(2, 68)),
                     ErrorKind::argument, {"no multiple of 4"});
  EXPECT_THAT_THROWN(decode_gradient({CodecType::bf16}, std::span(bytes).subspan(1, 68), out),
                     ErrorKind::argument, {"no multiple of 4"});
}

// Neither decodes nor adds; and nothing is added.
void expect_refused(const Codec& codec, std::span<const std::byte> bytes, std::size_t n,
                    std::initializer_list<const char*> words) {
  std::vector<float> into(n, 7.0F);
  EXPECT_THAT_THROWN(decode_gradient(codec, bytes, into), ErrorKind::protocol, words);
  std::fill(into.begin(), into.end(), 7.0F);
  EXPECT_THAT_THROWN(add_gradient(codec, bytes, into), ErrorKind::protocol, words);
  EXPECT_EQ(into, std::vector<float>(n, 7.0F));
}

TEST(CodecErrors, RefusesBytesOfAnotherLength) {
  for (const CodecType type : kTypes) {
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{33}}) {
      const std::size_t n_bytes = encoded_bytes(type, n, 0.1);
      const std::vector<std::byte> bytes(n_bytes + 4);
      const std::string words = fmt::format("a gradient of {} elements came as {} bytes of {} instead of {}",
                                            n, n_bytes + 4, to_string(type), n_bytes);
      expect_refused({type, 0.1}, bytes, n, {words.c_str()});
      expect_refused({type, 0.1}, std::span(bytes).first(n_bytes + 1), n, {"instead of"});
      if (n > 0) expect_refused({type, 0.1}, std::span(bytes).first(n_bytes - 1), n, {"instead of"});
      if (n > 0) expect_refused({type, 0.1}, {}, n, {" came as 0 bytes of "});
    }
  }
}

TEST(CodecErrors, RefusesIndicesThatDoNotAscendOrLieOutside) {
  const auto refused = [](std::vector<std::uint32_t> indices, std::initializer_list<const char*> words) {
    std::vector<std::byte> bytes(8 * indices.size());
    std::memcpy(bytes.data(), indices.data(), 4 * indices.size());
    expect_refused({CodecType::topk, 0.1}, bytes, 10 * indices.size(), words);
  };
  refused({10}, {"topk gradient of 10 elements has index 10 at place 0 of 1: indices ascend and lie inside"});
  refused({~0U}, {"index 4294967295 at place 0"});
  refused({3, 3, 4}, {"has index 3 at place 1 of 3, behind 3:"});
  refused({3, 7, 6}, {"has index 6 at place 2 of 3, behind 7:"});
  refused({3, 7, 30}, {"has index 30 at place 2 of 3, behind 7:", "damaged"});
  refused({40, 1, 2}, {"has index 40 at place 0"});
  refused({1, 50, 2}, {"has index 50 at place 1"});
}

TEST(CodecErrors, RefusesAUnitThatIsNoPowerOfTwoInRange) {
  for (const float unit :
       {0.0F, -0.0F, -1.0F, 3.0F, 1.0000001F, kInf, -kInf, kNan, 0x1p-127F, 0x1p114F, FLT_MAX}) {
    std::vector<std::byte> bytes(encoded_bytes(CodecType::fp16, 5, 1));
    std::memcpy(bytes.data(), &unit, sizeof unit);
    expect_refused({CodecType::fp16}, bytes, 5,
                   {"fp16 gradient of 5 elements has the unit", "no power of two"});
  }
  for (const float unit : {0x1p-126F, 1.0F, 0x1p113F}) {
    std::vector<std::byte> bytes(encoded_bytes(CodecType::fp16, 5, 1));
    std::memcpy(bytes.data(), &unit, sizeof unit);
    std::vector<float> into(5, 7.0F);
    add_gradient({CodecType::fp16}, bytes, into);
    EXPECT_EQ(into, std::vector<float>(5, 7.0F));
  }
}

TEST(CodecErrors, AnyBytesAreDecodedOrRefused) {
  std::mt19937 random(3);
  for (int i = 0; i < 4000; ++i) {
    const Codec codec{kTypes[i % 4], 0.02};
    const std::size_t n = random() % 100;
    std::vector<std::byte> bytes(encoded_bytes(codec.type, n, codec.ratio));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    std::vector<float> values(n), into(n);
    try {
      decode_gradient(codec, bytes, values);
    } catch (const Error& e) {
      ASSERT_EQ(e.kind(), ErrorKind::protocol);
      continue;
    }
    add_gradient(codec, bytes, into);
    for (std::size_t j = 0; j < n; ++j)
      ASSERT_TRUE(into[j] == values[j] || (std::isnan(into[j]) && std::isnan(values[j])));
  }
}

}  // namespace
}  // namespace varscope
