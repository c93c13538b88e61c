#include "worker/data/gzip_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

#include "tests/support/other_user.h"
#include "tests/support/thrown.h"
#include "worker/data/idx.h"
#include "worker/data/text.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::thrown;

// One member.
std::string packed(const std::string& text) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&z, text.size()) + 64, '\0');
  std::string in = text;
  z.next_in = reinterpret_cast<Bytef*>(in.data());
  z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string words(int n, const std::string& word) {
  std::string text;
  for (int i = 0; i < n; ++i) text += word + std::to_string(i) + "\n";
  return text;
}

class GzipFile : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(dir_); }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string write(const std::string& bytes, const std::string& name = "text.gz") {
    const std::string path = file(name);
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string read(const std::string& bytes, const std::string& name = "text.gz") {
    return read_gzip_file(write(bytes, name), 1 << 30);
  }
  std::string error(const std::string& bytes, const std::string& name = "text.gz") {
    return thrown([&] { read(bytes, name); });
  }
  std::string file(const std::string& name) const { return (dir_ / name).string(); }
  const std::filesystem::path dir_ =
      std::filesystem::temp_directory_path() / fmt::format("varscope_gzip_file_test_{}", getpid());
  const std::string first_ = words(1000, "first"), second_ = words(30000, "second");
};

TEST_F(GzipFile, AllMembersAreRead) {
  EXPECT_EQ(read(packed(first_)), first_);
  EXPECT_EQ(read(packed(first_) + packed(second_)), first_ + second_);
  EXPECT_EQ(read(packed(first_) + packed("") + packed(second_)), first_ + second_);
  EXPECT_EQ(read(packed("")), "");
  EXPECT_EQ(read(packed(first_) + packed(second_), "without_suffix"), first_ + second_);
}

TEST_F(GzipFile, ZerosBetweenAndAfterMembersAreReadOver) {
  const std::string a = packed(first_), b = packed(second_);
  for (const std::size_t n : {std::size_t{1}, std::size_t{511}, std::size_t{300'000}}) {
    const std::string zeros(n, '\0');
    EXPECT_EQ(read(a + zeros), first_) << n;
    EXPECT_EQ(read(a + zeros + b + zeros), first_ + second_) << n;
  }
}

// Members begin and end at every place of the blocks in which the file is read.
TEST_F(GzipFile, MembersMayBeginAnywhereInABlock) {
  const std::string a = packed(first_), b = packed(second_);
  for (std::size_t shift = 0; shift < a.size() + 24; shift += 7) {
    const std::size_t zeros = (256U << 10) - std::min<std::size_t>(shift, 256U << 10);
    ASSERT_EQ(read(a + std::string(zeros, '\0') + b), first_ + second_) << shift;
  }
}

TEST_F(GzipFile, EveryBitOfALaterHeaderThatMattersIsChecked) {
  const std::string a = packed(first_), b = packed(second_);
  for (int bit = 0; bit < 24; ++bit) {  // magic and method
    std::string damaged = b;
    damaged[static_cast<std::size_t>(bit / 8)] =
        static_cast<char>(damaged[static_cast<std::size_t>(bit / 8)] ^ (1 << bit % 8));
    const std::string text = error(a + damaged);
    EXPECT_THAT(text, AllOf(StartsWith("data: " + file("text.gz") + ": damaged gzip data at byte "),
                            HasSubstr(" in member 2: ")))
        << "bit " << bit;
    EXPECT_THAT(error(damaged), HasSubstr("damaged gzip data")) << "bit " << bit << " of the first";
  }
  for (int bit = 5; bit < 8; ++bit) {  // flags that do not exist
    std::string damaged = b;
    damaged[3] = static_cast<char>(1 << bit);
    EXPECT_THAT(error(a + damaged), HasSubstr("unknown header flags set")) << bit;
  }
}

// A file is read as it was written or not at all: some bits mean nothing, such as the time in a header.
TEST_F(GzipFile, NoWrongBitChangesWhatIsRead) {
  const std::string a = packed("one two three"), b = packed("four five six");
  int n_refused = 0;
  for (std::size_t bit = 0; bit < 8 * (a.size() + b.size()); ++bit) {
    std::string damaged = a + b;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    const std::string text = error(damaged);
    if (text == "no error") {
      ASSERT_EQ(read(damaged), "one two threefour five six") << "bit " << bit;
      continue;
    }
    ++n_refused;
    ASSERT_THAT(text, ::testing::AnyOf(HasSubstr("damaged gzip data"), HasSubstr("truncated gzip data"),
                                       HasSubstr("is compressed by")))
        << "bit " << bit;
  }
  EXPECT_GT(n_refused, static_cast<int>(4 * (a.size() + b.size())));
}

TEST_F(GzipFile, WhateverFollowsAMemberAndIsNoneIsRefused) {
  EXPECT_THAT(error(packed(first_) + "junk"),
              HasSubstr(" in member 2: incorrect header check; fetch or write it anew"));
  EXPECT_THAT(error(packed(first_) + std::string(100, '\0') + "junk"), HasSubstr("damaged gzip data"));
}

TEST_F(GzipFile, ACutIsFoundWhereverItIs) {
  const std::string a = packed("one two three"), b = packed("four five six");
  for (std::size_t n = 1; n < b.size(); ++n) {
    EXPECT_THAT(error(a + b.substr(0, n)), AllOf(HasSubstr("truncated gzip data"), HasSubstr("in member 2")))
        << n;
    EXPECT_THAT(error(b.substr(0, n)), HasSubstr("truncated gzip data")) << n;
  }
  EXPECT_THAT(error(""), HasSubstr("truncated gzip data at byte 0: it is empty"));
}

TEST_F(GzipFile, APlainFileIsReadUnlessItIsNamedGz) {
  EXPECT_EQ(read(first_, "plain"), first_);
  EXPECT_EQ(read("", "plain"), "");
  EXPECT_EQ(read("\x1f", "plain"), "\x1f");
  EXPECT_THAT(error(first_),
              HasSubstr("damaged gzip data at byte 0: it does not begin as gzip data do; if it is not "
                        "compressed, take \".gz\" off its name"));
}

TEST_F(GzipFile, OtherCompressionsAreNamed) {
  const std::pair<std::string, std::string> starts[] = {{std::string("\xfd\x37zXZ\0", 6), "xz"},
                                                        {"BZh91AY&SY", "bzip2"},
                                                        {"\x28\xb5\x2f\xfd", "zstd"},
                                                        {"\x04\x22\x4d\x18", "lz4"},
                                                        {"PK\x03\x04", "zip"},
                                                        {"\x1f\x9d", "compress"}};
  for (const auto& [start, name] : starts) {
    for (const char* file : {"x", "x.gz"})
      EXPECT_THAT(error(start + "rest", file),
                  HasSubstr("is compressed by " + name + "; unpack it first, or compress it with gzip"));
  }
  EXPECT_EQ(read("BZh is a word", "x"), "BZh is a word");
}

TEST_F(GzipFile, WhatCannotBeReadIsSaid) {
  EXPECT_THAT(thrown([&] { GzipReader reader(file("none")); }), HasSubstr("no such file"));
  EXPECT_THAT(thrown([&] { GzipReader reader(dir_); }), HasSubstr("is a folder"));
  const std::string path = write("secret", "x");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  const testing::OtherUser user;
  EXPECT_THAT(thrown([&] { GzipReader reader(path); }), HasSubstr("cannot be opened: Permission denied"));
}

// The data sets say the same: nothing of a damaged file is trained on.
TEST_F(GzipFile, TextAndImagesRefuseADamagedSecondMember) {
  std::string damaged = packed(second_);
  damaged[0] ^= 1;
  const std::string text = write(packed(first_) + damaged);
  EXPECT_THAT(thrown([&] { TextDataset data(text, {.test_fraction = 0}); }),
              AllOf(HasSubstr(text), HasSubstr("damaged gzip data")));
  const std::string header = {0, 0, 8, 1, 0, 0, 0, 2};
  std::string labels = packed(header + '\1') + packed("\2");
  EXPECT_EQ(read_idx(write(labels, "labels.gz"), 1).elements, (std::vector<std::uint8_t>{1, 2}));
  EXPECT_EQ(read_idx(write(labels + std::string(512, '\0'), "labels.gz"), 1).elements.size(), 2U);
  labels[packed(header + '\1').size() + 1] ^= 4;
  EXPECT_THAT(thrown([&] { read_idx(write(labels, "labels.gz"), 1); }), HasSubstr("damaged gzip data"));
  EXPECT_THAT(thrown([&] { read_idx(write(packed(header + "\1\2") + damaged, "labels.gz"), 1); }),
              HasSubstr("damaged gzip data"));
}

TEST_F(GzipFile, ATextWithAZeroByteIsNone) {
  const std::string path = write(std::string("a b\0c", 5), "text");
  EXPECT_THAT(
      thrown([&] { TextDataset data(path, {.test_fraction = 0}); }),
      HasSubstr(path +
                ": is no text: its byte 3 is 0; a text is UTF-8 or ASCII, plain or compressed by gzip"));
}

}  // namespace
}  // namespace varscope
