#include "common/base/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "common/base/hash.h"
#include "tests/support/references/event_reader.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::masked_crc_by_bits;
using testing::thrown;

std::string file_of(const std::vector<std::string>& records) {
  std::string file;
  for (const std::string& r : records) append_record(file, r);
  return file;
}

// At most `piece` bytes at a time, as a pipe or a gzip stream hands them out.
RecordReader::Read source(const std::string& file, std::size_t piece) {
  return [&file, piece, at = std::size_t{0}](std::span<std::byte> memory) mutable {
    const std::size_t n = std::min({piece, memory.size(), file.size() - at});
    std::memcpy(memory.data(), file.data() + at, n);
    at += n;
    return n;
  };
}

std::vector<std::string> read_all(const std::string& file, std::size_t piece = 1 << 20,
                                  std::uint64_t max_bytes = RecordReader::kMaxBytes) {
  RecordReader reader(source(file, piece), "x.tfrecord", max_bytes);
  std::vector<std::string> records;
  for (std::string r; reader.next(r);) records.push_back(r);
  return records;
}

TEST(MaskCrc, IsThatOfTheSpecification) {
  EXPECT_EQ(mask_crc(0), 0xa282ead8U);
  EXPECT_EQ(mask_crc(crc32c(std::as_bytes(std::span("foo", 3)))), masked_crc_by_bits("foo"));
}

// The bytes that TensorFlow writes for an empty record are known.
TEST(RecordFile, HasTheBytesOfTheFormat) {
  const std::string empty = file_of({""});
  EXPECT_EQ(empty, std::string("\0\0\0\0\0\0\0\0\x29\x03\x98\x07\xd8\xea\x82\xa2", 16));
  EXPECT_THAT(testing::records_by_the_rules(file_of({"a", "", std::string(70000, 'x')})),
              ElementsAre("a", "", std::string(70000, 'x')));
}

TEST(RecordFile, IsReadInPiecesOfAnySize) {
  const std::vector<std::string> records = {"", "a", std::string(300, '\0'), std::string((2 << 20) + 5, 'y')};
  const std::string file = file_of(records);
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{4096}, file.size()})
    EXPECT_EQ(read_all(file, piece), records) << piece;
  EXPECT_THAT(read_all(""), IsEmpty());
}

TEST(RecordFile, TellsWhereARecordBegins) {
  const std::string file = file_of({"abc", "", "d"});
  RecordReader reader(source(file, 5), "x");
  std::string r;
  ASSERT_TRUE(reader.next(r) && reader.next(r) && reader.next(r));
  EXPECT_EQ(r, "d");
  EXPECT_EQ(reader.index(), 2);
  EXPECT_EQ(reader.offset(), 16U + 3 + 16);
  EXPECT_FALSE(reader.next(r));
}

TEST(RecordFile, OfAnyLengthThatIsNotWholeSaysSo) {
  const std::string file = file_of({"abc", "defgh"});
  for (std::size_t n = 0; n < file.size(); ++n) {
    const std::string what = thrown([&] { read_all(file.substr(0, n)); });
    if (n == 0 || n == 19) {
      EXPECT_EQ(what, "no error") << n;
    } else {
      EXPECT_THAT(what, HasSubstr(fmt::format("data: x.tfrecord: record {} at byte {} is cut off: ",
                                              n < 19 ? 0 : 1, n < 19 ? 0 : 19)));
    }
  }
  EXPECT_EQ(thrown([&] { read_all(file.substr(0, 25)); }),
            "data: x.tfrecord: record 1 at byte 19 is cut off: 6 bytes of 12 that begin it");
  EXPECT_EQ(thrown([&] { read_all(file.substr(0, 33)); }),
            "data: x.tfrecord: record 1 at byte 19 is cut off: 2 bytes of 9");
}

TEST(RecordFile, NoFlippedBitPasses) {
  const std::string file = file_of({"abc", "defgh"});
  for (std::size_t i = 0; i < file.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = file;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      EXPECT_THAT(thrown([&] { read_all(damaged); }), HasSubstr("data: x.tfrecord: record ")) << i;
    }
  }
  std::string damaged = file;
  damaged[13] = 'x';
  EXPECT_EQ(thrown([&] { read_all(damaged); }),
            fmt::format(
                "data: x.tfrecord: record 0 at byte 0 is damaged: its 3 bytes have crc32c {:08x} instead of "
                "{:08x} (masked)",
                masked_crc_by_bits("axc"), masked_crc_by_bits("abc")));
  EXPECT_THAT(thrown([&] { read_all("some text, and no records"); }),
              HasSubstr("(masked): the file is damaged, or holds no TFRecords"));
  EXPECT_THAT(thrown([&] { read_all("\x1f\x8b\x08 and so on, as gzip has it"); }),
              HasSubstr("(masked): the file is compressed by gzip"));
}

// A length with a right checksum of its own may still be a lie.
TEST(RecordFile, BelievesNoLength) {
  const auto claims = [](std::uint64_t length) {
    std::string header;
    for (int i = 0; i < 8; ++i) header.push_back(static_cast<char>(length >> (8 * i)));
    const std::uint32_t crc = masked_crc_by_bits(header);
    for (int i = 0; i < 4; ++i) header.push_back(static_cast<char>(crc >> (8 * i)));
    return header + "a few bytes";
  };
  EXPECT_EQ(thrown([&] { read_all(claims(~std::uint64_t{0})); }),
            "data: x.tfrecord: record 0 at byte 0 claims 18446744073709551615 bytes, which is more than the "
            "1073741824 that a record may have");
  EXPECT_EQ(thrown([&] { read_all(claims(std::uint64_t{1} << 30)); }),
            "data: x.tfrecord: record 0 at byte 0 is cut off: 11 bytes of 1073741828");
  EXPECT_EQ(thrown([&] { read_all(file_of({"abc"}), 100, 3); }), "no error");
  EXPECT_THAT(thrown([&] { read_all(file_of({"abcd"}), 100, 3); }), HasSubstr("claims 4 bytes"));
}

}  // namespace
}  // namespace varscope
