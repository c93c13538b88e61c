#include "common/base/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include <boost/crc.hpp>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::vector<std::byte> random_bytes(std::size_t n) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(crc32c({}), 0U);
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283U);
  std::vector<std::byte> block(32, std::byte{0});
  EXPECT_EQ(crc32c(block), 0x8a9136aaU);
  std::fill(block.begin(), block.end(), std::byte{0xff});
  EXPECT_EQ(crc32c(block), 0x62a8ab43U);
  for (std::size_t i = 0; i < 32; ++i) block[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(block), 0x46dd794eU);
  std::reverse(block.begin(), block.end());
  EXPECT_EQ(crc32c(block), 0x113fdb5cU);
}

TEST(Crc32c, AgreesWithBoostAtEveryLengthAndAlignment) {
  const auto bytes = random_bytes(160);
  for (std::size_t begin = 0; begin < 9; ++begin) {
    for (std::size_t n = 0; begin + n <= bytes.size(); ++n) {
      boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> reference;
      reference.process_bytes(bytes.data() + begin, n);
      ASSERT_EQ(crc32c(std::span(bytes).subspan(begin, n)), reference.checksum()) << begin << " " << n;
    }
  }
}

TEST(Crc32c, ContinuesAnywhere) {
  const auto bytes = random_bytes(200);
  const std::uint32_t whole = crc32c(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const std::uint32_t first = crc32c(std::span(bytes).first(cut));
    ASSERT_EQ(crc32c(std::span(bytes).subspan(cut), first), whole) << cut;
  }
}

TEST(Crc32c, SeesEveryBit) {
  auto bytes = random_bytes(33);
  const std::uint32_t whole = crc32c(bytes);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_NE(crc32c(bytes), whole) << bit;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

// From the specification of xxHash.
TEST(Hash64, IsXxh3) {
  EXPECT_EQ(hash64(""), 0x2d06800538d394c2U);
  EXPECT_EQ(hash64("a"), 0xe6c632b61e964e1fU);
  EXPECT_EQ(hash64("abc"), 0x78af5f94892f3950U);
}

TEST(Digest, IsXxh3InCanonicalOrder) {
  EXPECT_EQ(digest_of("").hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(digest_of("abc").hex(), "06b05ab6733a618578af5f94892f3950");
  EXPECT_EQ(digest_of(bytes_of("abc")), digest_of("abc"));
}

TEST(Digest, HexGoesThereAndBack) {
  const Digest d = digest_of("some text");
  EXPECT_EQ(Digest::from_hex(d.hex()), d);
}

TEST(Digest, RefusesWhatIsNoHash) {
  const std::string good = digest_of("x").hex();
  for (const std::string& bad : {std::string(), good.substr(1), good + "0", std::string(32, 'g'),
                                 "-" + good.substr(1), std::string(32, 'A'), std::string(32, '\0')}) {
    const std::string error = thrown([&] { Digest::from_hex(bad); });
    EXPECT_TRUE(error.starts_with("data: ")) << error;
  }
}

TEST(Digester, AnySplitGivesTheSame) {
  const auto bytes = random_bytes(3000);
  const Digest whole = digest_of(bytes);
  for (std::size_t step : {1, 7, 64, 1000, 3000, 5000}) {
    Digester digester;
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      digester.update(std::span(bytes).subspan(at, std::min(step, bytes.size() - at)));
    }
    EXPECT_EQ(digester.finish(), whole) << step;
  }
  EXPECT_EQ(Digester().finish(), digest_of(""));
}

}  // namespace
}  // namespace varscope
