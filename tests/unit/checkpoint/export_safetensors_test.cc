// Whole tensors as a safetensors file, read back by the rules of the format written out here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include <nlohmann/json.hpp>

#include "checkpoint/exchange/safetensors.h"
#include "checkpoint/storage/little_endian.h"
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
    const auto ours = contents(*open_safetensors(saved.fs, dir / "a.safetensors"));
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
    return error_of([&] { open_safetensors(fs, dir / "x"); });
  }
  TempDir dir;
  PosixFs fs;
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
  EXPECT_THAT(error(entry("F32", "[2]", "[4,12]"), 12), HasSubstr("hole or an overlap at byte 0"));
  EXPECT_THAT(error(entry("F32", "[3]", "[0,8]"), 8), HasSubstr("needs 12 bytes where there are 8"));
  EXPECT_THAT(error(entry("F32", "[1]", "[0,8]"), 8), HasSubstr("has 8 bytes for F32 [1]"));
  EXPECT_THAT(error(entry("F16", "[4]", "[0,8]"), 8), HasSubstr("dtype F16, which varscope does not have"));
  EXPECT_THAT(error(entry("F32", "[-2]", "[0,8]"), 8), HasSubstr("not made of sizes"));
  EXPECT_THAT(error(entry("F32", "[2]", "[8,0]"), 8), HasSubstr("no range"));
  EXPECT_THAT(error(entry("F32", "[4611686018427387904,4]", "[0,8]"), 8),
              HasSubstr("more elements than there can be"));
  EXPECT_THAT(error("[1]", 0), HasSubstr("not a JSON object"));
  EXPECT_THAT(error("{\"a\":7}", 0), HasSubstr("has no \"dtype\""));
  EXPECT_THAT(error(std::string(100000, '['), 0), HasSubstr("not a JSON object"));
  spit(dir / "x", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10));
  EXPECT_THAT(error_of([&] { open_safetensors(fs, dir / "x"); }), HasSubstr("its header would have"));
  spit(dir / "x", "1234567");
  EXPECT_THAT(error_of([&] { open_safetensors(fs, dir / "x"); }), HasSubstr("cut off: it has 7 bytes"));
}

TEST_F(OpenSafetensors, SurvivesHostileBytes) {
  Saved saved(tiny_model(1), 1);
  export_to(saved.fs, saved.path, dir / "a.safetensors");
  EXPECT_GT(testing::fuzz_file(dir / "a.safetensors", 1000,
                               [&] { contents(*open_safetensors(fs, dir / "a.safetensors")); }),
            400);
}

}  // namespace
}  // namespace varscope
