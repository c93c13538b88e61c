#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "checkpoint/format/shard.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/safetensors_reader.h"

namespace varscope {
namespace {

using testing::error_of;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::Safetensors;
using testing::slurp;
using testing::TempDir;

struct Memory {
  std::vector<std::vector<std::byte>> blocks;
  ConstPiece make(std::size_t n, unsigned seed) {
    std::mt19937 random(seed);
    auto& block = blocks.emplace_back(n);
    for (auto& b : block) b = static_cast<std::byte>(random());
    return {block.data(), n};
  }
};

Slice whole(Shape shape) { return {shape, Shape(std::vector<std::int64_t>(shape.rank(), 0)), shape}; }

std::string text_of(ConstPiece p) { return {reinterpret_cast<const char*>(p.data), p.n_bytes}; }

TEST(Shard, IsAValidSafetensorsFile) {
  TempDir dir;
  PosixFs fs;
  Memory memory;
  const Slice part = Slice::from_spec("20 43 4,6:0,43");
  const std::vector<ShardTensor> tensors = {
      {"hidden/w", "", 3, DType::float32, part, memory.make(6 * 43 * 4, 1)},
      {"hidden/w", "m", 3, DType::float32, part, memory.make(6 * 43 * 4, 2)},
      {"scale", "", 0, DType::uint8, Slice{}, memory.make(1, 3)},
      {"d", "", 0, DType::float64, whole({2, 3}), memory.make(48, 4)},
      {"i", "", 0, DType::int32, whole({5}), memory.make(20, 5)},
      {"l", "", 0, DType::int64, whole({1, 1, 1}), memory.make(8, 6)},
      {"quote\"\\ name", "", 0, DType::bfloat16, whole({7}), memory.make(14, 7)},
  };
  const ShardReport report = write_shard(fs, dir.path(), 3, 8, 12, {12, 12}, "id-1", tensors);
  EXPECT_EQ(report.file.name, "shard-00003-of-00008.safetensors");
  const std::string bytes = slurp(dir / report.file.name);
  const Safetensors read(bytes);
  EXPECT_EQ(read.data_begin % 4096, 0U);
  ASSERT_EQ(read.tensors.size(), tensors.size());
  EXPECT_EQ(read.tensors.at("hidden/w@3").shape, (std::vector<std::int64_t>{6, 43}));
  EXPECT_EQ(read.tensors.at("hidden/w@3").bytes, text_of(tensors[0].data));
  EXPECT_EQ(read.tensors.at("hidden/w/.slot-m@3").bytes, text_of(tensors[1].data));
  EXPECT_EQ(read.tensors.at("scale@0").shape, (std::vector<std::int64_t>{}));
  EXPECT_EQ(read.tensors.at("d@0").dtype, "F64");
  EXPECT_EQ(read.tensors.at("i@0").dtype, "I32");
  EXPECT_EQ(read.tensors.at("l@0").dtype, "I64");
  EXPECT_EQ(read.tensors.at("quote\"\\ name@0").dtype, "BF16");
  EXPECT_EQ(read.metadata.at("box:hidden/w/.slot-m@3"), "20 43 4,6:0,43");
  EXPECT_EQ(read.metadata.at("box:scale@0"), "");
  EXPECT_EQ(read.metadata.at("varscope.checkpoint"), "id-1");
  EXPECT_EQ(read.metadata.at("varscope.step"), "12");
  EXPECT_EQ(read.metadata.at("varscope.format"), "1.2");
}

// The test's reader refuses what the format forbids.
TEST(Shard, TheIndependentReaderFindsWhatIsWrong) {
  const auto file = [](const std::string& header, const std::string& data) {
    std::string bytes;
    for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i));
    return bytes + header + data;
  };
  const auto words = [](const std::string& bytes) -> std::string {
    try {
      const Safetensors read(bytes);
      return "good";
    } catch (const std::exception& e) {
      return e.what();
    }
  };
  const std::string a = R"("a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_EQ(words(file("{" + a + "}", "1234")), "good");
  EXPECT_EQ(words(file(" {" + a + "}", "1234")), "header begins with {");
  EXPECT_EQ(words(file("{" + a + "}", "12345")), "nothing behind the last tensor");
  EXPECT_EQ(words(file("{" + a + "}", "123")), "offsets inside the data");
  EXPECT_EQ(words(file("{" + a + "," + a + "}", "1234")), "unique keys");
  EXPECT_EQ(words(file(R"({"a":{"dtype":"I32","shape":[1],"data_offsets":[1,5]}})", "12345")), "no holes");
  EXPECT_EQ(words(file(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,4]}})", "1234")),
            "bytes of the shape");
  std::string long_header = file("{" + a + "}", "1234");
  long_header[4] = 1;
  EXPECT_EQ(words(long_header), "header length");
  EXPECT_NE(words("1234567"), "good");
}

TEST(Shard, ReportDescribesTheFile) {
  TempDir dir;
  PosixFs fs;
  Memory memory;
  // Three CRC blocks, pieces both smaller and larger than the writer's buffer, and boundaries inside pieces.
  std::vector<ShardTensor> tensors;
  const std::vector<std::int64_t> sizes = {700'001, 3, 300'000, 262'144, 1'000'000, 9};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensors.push_back({fmt::format("v{}", i), "", 0, DType::uint8, whole({sizes[i]}),
                       memory.make(static_cast<std::size_t>(sizes[i]), static_cast<unsigned>(i))});
  }
  const ShardReport report = write_shard(fs, dir.path(), 0, 1, 5, {5}, "id", tensors);
  const std::string bytes = slurp(dir / report.file.name);
  EXPECT_EQ(report.file.size, bytes.size());
  EXPECT_EQ(report.file.digest, digest_of(std::string_view(bytes)));
  ASSERT_EQ(report.file.crc32c.size(), (bytes.size() + kCrcBlockBytes - 1) / kCrcBlockBytes);
  for (std::size_t i = 0; i < report.file.crc32c.size(); ++i) {
    const std::string block = bytes.substr(i * kCrcBlockBytes, kCrcBlockBytes);
    EXPECT_EQ(report.file.crc32c[i], crc32c(std::as_bytes(std::span(block)))) << "CRC block " << i;
  }
  ASSERT_EQ(report.tensors.size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorRecord& t = report.tensors[i];
    EXPECT_EQ(bytes.substr(t.begin, t.end - t.begin), text_of(tensors[i].data));
    EXPECT_EQ(t.digest, digest_of(std::string_view(text_of(tensors[i].data))));
  }
  EXPECT_EQ(Safetensors(bytes).tensors.size(), tensors.size());
}

TEST(Shard, OfAServerWithoutSlicesIsValidToo) {
  TempDir dir;
  PosixFs fs;
  const ShardReport report = write_shard(fs, dir.path(), 0, 1, 5, {5}, "id", {});
  const Safetensors read(slurp(dir / report.file.name));
  EXPECT_TRUE(read.tensors.empty());
  EXPECT_EQ(report.file.size, 4096U);
}

TEST(Shard, ChunkBoundaryIsExact) {
  TempDir dir;
  PosixFs fs;
  for (const std::size_t n : {kCrcBlockBytes - 1, kCrcBlockBytes, kCrcBlockBytes + 1}) {
    const std::string bytes(n, 'x');
    const FileRecord record = write_blob(fs, dir.path(), "blob-" + std::to_string(n), bytes);
    EXPECT_EQ(record.crc32c.size(), n > kCrcBlockBytes ? 2U : 1U);
    EXPECT_EQ(record.size, n);
  }
  EXPECT_TRUE(write_blob(fs, dir.path(), "empty", "").crc32c.empty());
}

TEST(Shard, RefusesTensorsThatMakeNoSense) {
  TempDir dir;
  PosixFs fs;
  Memory memory;
  const auto words = [&](std::vector<ShardTensor> tensors) {
    return error_of([&] { write_shard(fs, dir.path(), 0, 1, 5, {5}, "id", tensors); });
  };
  EXPECT_EQ(
      words({{"w", "m", 2, DType::float32, whole({3}), memory.make(8, 1)}}),
      "argument: slice 2 of \"w\" slot \"m\" has 8 bytes of memory for the 12 bytes of its box \"3 0,3\"");
  EXPECT_THAT(words({{"w", "", 0, DType::float32, whole({0}), {}}}), HasSubstr("0 bytes of its box"));
  const ShardTensor good{"w", "", 0, DType::uint8, whole({3}), memory.make(3, 1)};
  EXPECT_EQ(words({good, good}), "argument: two tensors are named \"w@0\"");
  EXPECT_TRUE(fs.list(dir.path()).empty());
}

TEST(Shard, NeverWritesIntoAnExistingFile) {
  TempDir dir;
  PosixFs fs;
  write_shard(fs, dir.path(), 0, 1, 5, {5}, "id", {});
  EXPECT_THAT(error_of([&] { write_shard(fs, dir.path(), 0, 1, 5, {5}, "id", {}); }),
              HasSubstr("File exists"));
}

TEST(Shard, EveryFailedOperationIsReported) {
  TempDir dir;
  PosixFs posix;
  int n = 0;
  for (const FsOp op : {FsOp::create, FsOp::write, FsOp::sync, FsOp::close}) {
    FaultFs fs(posix);
    fs.fail_nth(op, 1, EIO);
    const std::string sub = dir / std::to_string(n++);
    posix.make_dir(sub);
    const std::string words = error_of([&] { write_shard(fs, sub, 0, 1, 5, {5}, "id", {}); });
    EXPECT_EQ(words, std::string("io: cannot ") + to_string(op) + " " + sub +
                         "/shard-00000-of-00001.safetensors: Input/output error");
    EXPECT_LE(fs.count(FsOp::sync), 1) << "a failed fsync is never retried";
  }
}

TEST(Shard, NamesAreFixed) {
  EXPECT_EQ(worker_state_name(7), "worker-00007.state");
  EXPECT_EQ(step_name(12000), "step-000012000");
  EXPECT_EQ(server_of_shard(shard_name(123, 456)), 123);
  for (const char* other : {"worker-00007.state", "shard-", "shard-x-of-3", "shard--1-of-3", "shard-3"}) {
    EXPECT_EQ(server_of_shard(other), -1) << other;
  }
}

TEST(Shard, IdCanBeReadBackForMessages) {
  TempDir dir;
  PosixFs fs;
  const std::string path = dir / write_shard(fs, dir.path(), 0, 1, 5, {5}, "id-9", {}).file.name;
  EXPECT_EQ(checkpoint_id_of_shard(fs, path), "id-9");
  for (const std::string& bytes :
       {std::string(), std::string("abc"), std::string(8, '\xff'), std::string(8, '\0'),
        std::string("\2\0\0\0\0\0\0\0[]", 10), std::string("\2\0\0\0\0\0\0\0{}", 10)}) {
    testing::spit(path, bytes);
    EXPECT_EQ(checkpoint_id_of_shard(fs, path), "");
  }
}

}  // namespace
}  // namespace varscope
