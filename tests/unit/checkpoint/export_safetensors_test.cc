// Whole tensors as a safetensors file, read back by the rules of the format written out here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cmath>

#include <nlohmann/json.hpp>

#include "checkpoint/exchange/safetensors.h"
#include "common/files/little_endian.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/exported.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using testing::contents;
using testing::error_of;
using testing::export_to;
using testing::FaultFs;
using testing::FoundTensors;
using testing::FsOp;
using ::testing::HasSubstr;
using testing::little;
using testing::Model;
using testing::partitioned;
using testing::Saved;
using testing::slurp;
using testing::small_model;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;

const std::map<DType, std::string> kNames = {
    {DType::float32, "F32"}, {DType::float64, "F64"}, {DType::int64, "I64"}, {DType::bfloat16, "BF16"}};

FoundTensors read_by_the_rules(const std::string& bytes) {
  const std::uint64_t n = little(bytes, 0, 8);
  EXPECT_EQ(bytes.at(8), '{');
  EXPECT_EQ((8 + n) % 8, 0U);
  FoundTensors found;
  std::uint64_t covered = 0;
  const nlohmann::json header = nlohmann::json::parse(bytes.substr(8, n));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::uint64_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    found[name] = {entry.at("dtype"), entry.at("shape"), bytes.substr(8 + n + begin, end - begin)};
    covered += end - begin;
  }
  EXPECT_EQ(8 + n + covered, bytes.size()) << "no holes";
  return found;
}

TEST(ExportSafetensors, WritesWholeTensorsUnderTheirFullNames) {
  const Model model = small_model(3);
  TempDir dir;
  for (const Model& saved_as : {small_model(3), partitioned(small_model(3), {3, 2})}) {
    Saved saved(saved_as, 2);
    EXPECT_THAT(export_to(saved.fs, saved.path, dir / "a.safetensors"), HasSubstr("9 tensors of step 5"));
    testing::expect_tensors(read_by_the_rules(slurp(dir / "a.safetensors")), model, true, kNames);
    export_to(saved.fs, saved.path, dir / "a.safetensors", ExportSlots::leave_out);
    testing::expect_tensors(read_by_the_rules(slurp(dir / "a.safetensors")), model, false, kNames);
    ReadNotes notes;
    const auto ours = contents(*open_safetensors(saved.fs, dir / "a.safetensors", Widen::no, notes));
    for (const auto& [name, tensor] : read_by_the_rules(slurp(dir / "a.safetensors")))
      EXPECT_EQ(ours.at(name), tensor.bytes) << name;
  }
}

TEST(ExportSafetensors, IsWholeOrNotThere) {
  Saved saved(tiny_model(1), 1);
  for (const FsOp op : {FsOp::create, FsOp::write, FsOp::sync, FsOp::close, FsOp::replace}) {
    SCOPED_TRACE(testing::to_string(op));
    TempDir dir;
    FaultFs faulty(saved.fs);
    faulty.fail_nth(op, 1, ENOSPC);
    EXPECT_THAT(error_of([&] { export_to(faulty, saved.path, dir / "a.safetensors"); }),
                HasSubstr("No space left"));
    EXPECT_TRUE(saved.fs.list(dir.path()).empty());
  }
  TempDir dir;
  testing::flip_bit(saved.shard(0, 1), 4096);
  EXPECT_THAT(error_of([&] { export_to(saved.fs, saved.path, dir / "a.safetensors"); }),
              HasSubstr("is damaged"));
  EXPECT_TRUE(saved.fs.list(dir.path()).empty());
}

TEST(ExportSafetensors, RefusesASlotNamedAsAVariable) {
  const Model model(VariableTable({testing::make_variable("w", DType::float32, {2}),
                                   testing::make_variable("w/m", DType::float32, {2}, false)}),
                    {"m"}, 1);
  Saved saved(model, 1);
  TempDir dir;
  EXPECT_THAT(error_of([&] { export_to(saved.fs, saved.path, dir / "a.safetensors"); }),
              HasSubstr("would be named \"w/m\"; leave out --slots"));
}

TEST(ExportFormat, IsGuessedFromTheNameOrAsked) {
  EXPECT_EQ(exchange_format("a.npz", ""), ExchangeFormat::npz);
  EXPECT_EQ(exchange_format("a.index", ""), ExchangeFormat::tf);
  EXPECT_EQ(exchange_format("a.npz", "tf"), ExchangeFormat::tf);
  EXPECT_THAT(error_of([] { exchange_format("a.pt", ""); }),
              HasSubstr("add --format safetensors, npz or tf"));
  EXPECT_THAT(error_of([] { exchange_format("a.npz", "hdf5"); }), HasSubstr("\"hdf5\" is not a format"));
}

class OpenSafetensors : public ::testing::Test {
 protected:
  std::string error(const std::string& header, std::size_t n_data) {
    std::string bytes;
    put_le<std::uint64_t>(bytes, header.size());
    spit(dir / "x", bytes + header + std::string(n_data, '\1'));
    return error_of([&] { open_safetensors(fs, dir / "x", Widen::no, notes); });
  }
  TempDir dir;
  PosixFs fs;
  ReadNotes notes;
};

TEST_F(OpenSafetensors, RefusesWhatIsNotOne) {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  EXPECT_EQ(error(entry("F32", "[2]", "[0,8]"), 8), "no error");
  EXPECT_EQ(error("{}", 0), "no error");
  EXPECT_THAT(error(entry("F32", "[2]", "[0,8]"), 7), HasSubstr("needs 8 bytes where there are 7"));
  EXPECT_THAT(error(entry("F32", "[1]", "[4,8]"), 7), HasSubstr("that are no range of the 7 bytes of data"));
  EXPECT_THAT(error(entry("F32", "[2]", "[0,8]"), 9), HasSubstr("1 bytes of data that belong to no tensor"));
  EXPECT_THAT(error(entry("F32", "[2]", "[4,12]"), 12),
              HasSubstr("has a hole of 4 bytes at byte 0 of its data, before tensor \"a\""));
  EXPECT_THAT(error(entry("F32", "[3]", "[0,8]"), 8), HasSubstr("needs 12 bytes where there are 8"));
  EXPECT_THAT(error(entry("F32", "[1]", "[0,8]"), 8), HasSubstr("has 8 bytes for F32 [1]"));
  EXPECT_THAT(error(entry("F16", "[4]", "[0,8]"), 8),
              HasSubstr("dtype F16, which varscope does not have; read it as float32 with --widen"));
  EXPECT_THAT(error(entry("U64", "[1]", "[0,8]"), 8),
              ::testing::EndsWith(
                  "dtype U64, which varscope does not have; save it as another one, or leave it out"));
  EXPECT_THAT(error(entry("F32", "[-2]", "[0,8]"), 8), HasSubstr("not made of sizes"));
  EXPECT_THAT(error(entry("F32", "[2]", "[8,0]"), 8), HasSubstr("no range"));
  EXPECT_THAT(error(entry("F32", "[4611686018427387904,4]", "[0,8]"), 8),
              HasSubstr("more elements than there can be"));
  EXPECT_THAT(error("[1]", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(error("{\"a\":7}", 0), HasSubstr("has no \"dtype\""));
  EXPECT_THAT(error(std::string(100000, '['), 0), HasSubstr("not a JSON object"));
  spit(dir / "x", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  EXPECT_THAT(error_of([&] { open_safetensors(fs, dir / "x", Widen::no, notes); }),
              HasSubstr("its header would have"));
  spit(dir / "x", "1234567");
  EXPECT_THAT(error_of([&] { open_safetensors(fs, dir / "x", Widen::no, notes); }),
              HasSubstr("cut off: it has 7 bytes"));
}

// A JSON parser keeps one of them, and what it drops would look like a hole.
TEST_F(OpenSafetensors, NamesWhatIsThereTwice) {
  const std::string a = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})",
                    b = R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})";
  EXPECT_THAT(error("{\"w\":" + a + ",\"w\":" + b + "}", 8), HasSubstr("names the tensor \"w\" twice"));
  EXPECT_THAT(error("{\"w\":" + a + ",\"w\":" + a + "}", 4), HasSubstr("names the tensor \"w\" twice"));
  EXPECT_THAT(error(R"({"w":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("names the key \"dtype\" of \"w\" twice"));
  EXPECT_THAT(error(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("\"__metadata__\" twice"));
  EXPECT_EQ(error("{\"v\":" + a + ",\"w\":" + b + "}", 8), "no error") << "the same keys in two tensors";
  EXPECT_THAT(error("{\"v\":" + a + ",\"w\":" + a + "}", 4),
              HasSubstr("has tensors \"v\" and \"w\" that share bytes, from byte 0 of its data on"));
}

TEST_F(OpenSafetensors, WidensWhenAsked) {
  const std::string header =
      R"({"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"t":{"dtype":"BOOL","shape":[],"data_offsets":[4,5]}})";
  EXPECT_THAT(error(header, 5), HasSubstr("tensor \"h\" is of dtype F16"));
  const auto source = open_safetensors(fs, dir / "x", Widen::yes, notes);
  EXPECT_EQ(source->tensors()[0].dtype, DType::float32);
  const float h = 0x101p-24F;  // 0x0101, subnormal
  EXPECT_EQ(contents(*source).at("h"), std::string(reinterpret_cast<const char*>(&h), 4) +
                                           std::string(reinterpret_cast<const char*>(&h), 4));
  EXPECT_EQ(contents(*source).at("t"), "\1");
  EXPECT_THAT(notes.widened, ::testing::ElementsAre("float16 as float32: h", "bool as uint8: t"));
}

// All of them, against arithmetic.
TEST(Widen, EveryFloat16IsExact) {
  const ForeignType& half = *foreign_type_of_safetensors("F16");
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto stored = static_cast<std::uint16_t>(bits);
    float wide = 0;
    widen(half, std::as_bytes(std::span(&stored, 1)), std::as_writable_bytes(std::span(&wide, 1)));
    const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
    ASSERT_EQ(std::signbit(wide), bits >= 0x8000) << bits;
    if (exponent == 31) {
      ASSERT_EQ(std::isnan(wide), fraction != 0) << bits;
      ASSERT_EQ(std::isinf(wide), fraction == 0) << bits;
      continue;
    }
    const double expected = exponent == 0 ? fraction * std::pow(2.0, -24)
                                          : (1 + fraction / 1024.0) * std::pow(2.0, exponent - 15);
    ASSERT_EQ(std::fabs(wide), expected) << bits;
  }
}

TEST_F(OpenSafetensors, SurvivesHostileBytes) {
  Saved saved(tiny_model(1), 1);
  export_to(saved.fs, saved.path, dir / "a.safetensors");
  EXPECT_GT(
      testing::fuzz_file(dir / "a.safetensors", 1000,
                         [&] { contents(*open_safetensors(fs, dir / "a.safetensors", Widen::no, notes)); }),
      400);
}

}  // namespace
}  // namespace varscope
