// Whole tensors as NumPy's .npz, read back by a small reader of zip and npy, and by numpy where it is
// installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <regex>

#include "checkpoint/exchange/npz.h"
#include "common/files/little_endian.h"
#include "tests/support/references/exported.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using testing::contents;
using testing::error_of;
using testing::export_to;
using testing::FoundTensors;
using ::testing::HasSubstr;
using testing::little;
using testing::Saved;
using testing::slurp;
using testing::small_model;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;

const std::map<DType, std::string> kNames = {
    {DType::float32, "<f4"}, {DType::float64, "<f8"}, {DType::int64, "<i8"}, {DType::bfloat16, "<V2"}};

std::uint32_t crc_of(const std::string& bytes) {
  return static_cast<std::uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

// Walks the local headers from the front, as a streaming reader does; the directory must agree with them.
FoundTensors read_by_the_rules(const std::string& bytes) {
  FoundTensors found;
  std::vector<std::uint64_t> offsets;
  std::size_t at = 0;
  static const std::regex dict(
      R"(\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([^)]*)\), \} *\n)");
  while (little(bytes, at, 4) == 0x04034b50) {
    offsets.push_back(at);
    EXPECT_EQ(little(bytes, at + 8, 2), 0U) << "stored";
    const std::size_t n_name = little(bytes, at + 26, 2), extra = at + 30 + n_name;
    const std::string name = bytes.substr(at + 30, n_name);
    EXPECT_EQ(little(bytes, at + 18, 4), 0xffffffffU);
    EXPECT_EQ(little(bytes, extra, 2), 1U) << "zip64";
    const std::uint64_t size = little(bytes, extra + 4, 8);
    EXPECT_EQ(little(bytes, extra + 12, 8), size);
    const std::string npy = bytes.substr(extra + 4 + little(bytes, extra + 2, 2), size);
    EXPECT_EQ(crc_of(npy), little(bytes, at + 14, 4)) << name;
    EXPECT_EQ(npy.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    const std::size_t n_dict = little(npy, 8, 2);
    EXPECT_EQ((10 + n_dict) % 64, 0U);
    std::smatch m;
    const std::string text = npy.substr(10, n_dict);
    EXPECT_TRUE(std::regex_match(text, m, dict)) << text;
    testing::FoundTensor& t = found[name.substr(0, name.size() - 4)];
    t.dtype = m[1];
    t.bytes = npy.substr(10 + n_dict);
    const std::string shape = m[2];
    static const std::regex number("\\d+");
    for (std::sregex_iterator it(shape.begin(), shape.end(), number), end; it != end; ++it)
      t.shape.push_back(std::stoll(it->str()));
    if (t.shape.size() == 1) {
      EXPECT_EQ(shape.back(), ',') << "a tuple of one";
    }
    at = extra + 4 + little(bytes, extra + 2, 2) + size;
  }
  const std::size_t directory = at;
  for (const std::uint64_t offset : offsets) {
    EXPECT_EQ(little(bytes, at, 4), 0x02014b50U);
    const std::size_t n_name = little(bytes, at + 28, 2), n_extra = little(bytes, at + 30, 2);
    EXPECT_EQ(bytes.substr(at + 46, n_name), bytes.substr(offset + 30, n_name));
    EXPECT_EQ(little(bytes, at + 46 + n_name + 20, 8), offset);
    at += 46 + n_name + n_extra;
  }
  EXPECT_EQ(little(bytes, at, 4), 0x06064b50U);
  EXPECT_EQ(little(bytes, at + 32, 8), offsets.size());
  EXPECT_EQ(little(bytes, at + 40, 8), at - directory);
  EXPECT_EQ(little(bytes, at + 48, 8), directory);
  EXPECT_EQ(little(bytes, at + 56 + 8, 8), at);
  EXPECT_EQ(at + 56 + 20 + 22, bytes.size());
  return found;
}

TEST(ExportNpz, WritesWholeTensorsUnderTheirFullNames) {
  const testing::Model model = small_model(3);
  TempDir dir;
  for (const testing::Model& saved_as : {small_model(3), testing::partitioned(small_model(3), {2, 2})}) {
    Saved saved(saved_as, 3);
    export_to(saved.fs, saved.path, dir / "a.npz");
    testing::expect_tensors(read_by_the_rules(slurp(dir / "a.npz")), model, true, kNames);
    ReadNotes notes;
    const auto ours = contents(*open_npz(saved.fs, dir / "a.npz", Widen::no, notes));
    for (const auto& [name, tensor] : read_by_the_rules(slurp(dir / "a.npz")))
      EXPECT_EQ(ours.at(name), tensor.bytes);
    export_to(saved.fs, saved.path, dir / "a.npz", ExportSlots::leave_out);
    testing::expect_tensors(read_by_the_rules(slurp(dir / "a.npz")), model, false, kNames);
  }
}

// The system's Python, to which Debian's packages belong, before any other.
constexpr const char* kPython = "PATH=/usr/bin:$PATH python3";

bool python_has(const char* module) {
  return std::system(fmt::format("{} -c 'import {}' 2>/dev/null", kPython, module).c_str()) == 0;
}

TEST(ExportNpz, IsAZipArchiveToPython) {
  if (!python_has("zipfile")) GTEST_SKIP() << "python3 is not installed";
  Saved saved(small_model(3), 2);
  TempDir dir;
  export_to(saved.fs, saved.path, dir / "a.npz");
  const std::string check = std::string(kPython) + " -c \"import zipfile; z = zipfile.ZipFile('" +
                            (dir / "a.npz") +
                            "'); assert z.testzip() is None; assert len(z.namelist()) == 9\"";
  EXPECT_EQ(std::system(check.c_str()), 0);
}

TEST(ExportNpz, IsReadByNumPy) {
  if (!python_has("numpy")) GTEST_SKIP() << "numpy is not installed";
  Saved saved(small_model(3), 2);
  TempDir dir;
  export_to(saved.fs, saved.path, dir / "a.npz");
  const std::string check =
      std::string(kPython) + " -c \"import numpy; a = numpy.load('" + (dir / "a.npz") +
      "'); assert a['hidden/weights'].shape == (90, 61); assert a['scale'].shape == ()\"";
  EXPECT_EQ(std::system(check.c_str()), 0);
}

class OpenNpz : public ::testing::Test {
 protected:
  // An archive without zip64 fields, as numpy writes for a pipe or an older version did.
  std::string archive(const std::string& name, const std::string& npy, std::uint16_t method = 0) const {
    std::string local, common, central;
    const auto crc = crc_of(npy);
    put_le<std::uint16_t>(common, 20);
    put_le<std::uint16_t>(common, 0);
    put_le(common, method);
    put_le<std::uint32_t>(common, 0);
    put_le(common, crc);
    put_le(common, static_cast<std::uint32_t>(npy.size()));
    put_le(common, static_cast<std::uint32_t>(npy.size()));
    put_le(common, static_cast<std::uint16_t>(name.size()));
    put_le<std::uint16_t>(common, 0);
    local = std::string("PK\3\4") + common + name + npy;
    central = std::string("PK\1\2") + std::string("\x14\0", 2) + common + std::string(14, '\0') + name;
    std::string end = std::string("PK\5\6") + std::string(4, '\0') + std::string("\1\0\1\0", 4);
    put_le(end, static_cast<std::uint32_t>(central.size()));
    put_le(end, static_cast<std::uint32_t>(local.size()));
    return local + central + end + std::string(2, '\0');
  }
  static std::string npy(const std::string& dict, const std::string& data) {
    std::string out("\x93NUMPY\x01\x00", 8);
    put_le(out, static_cast<std::uint16_t>(dict.size()));
    return out + dict + data;
  }
  std::string error(const std::string& bytes) {
    spit(dir / "x.npz", bytes);
    return error_of([&] { open_npz(fs, dir / "x.npz", Widen::no, notes); });
  }
  std::string dict_error(const std::string& dict, std::size_t n = 8) {
    return error(archive("a.npy", npy(dict, std::string(n, '\1'))));
  }
  TempDir dir;
  PosixFs fs;
  ReadNotes notes;
};

TEST_F(OpenNpz, ReadsArchivesWithoutZip64) {
  EXPECT_EQ(dict_error("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"), "no error");
  EXPECT_EQ(contents(*open_npz(fs, dir / "x.npz", Widen::no, notes)).at("a"), std::string(8, '\1'));
  EXPECT_EQ(dict_error("{\"shape\": (), \"descr\": \"<f8\", \"fortran_order\": False}"), "no error");
  EXPECT_EQ(dict_error("{'descr': '|u1', 'fortran_order': True, 'shape': (8,)}"), "no error");
}

TEST_F(OpenNpz, RefusesWhatItCannotRead) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
  EXPECT_THAT(dict_error(good, 7), HasSubstr("needs 8 bytes where there are 7"));
  EXPECT_THAT(dict_error(good, 9), HasSubstr("has 9 bytes for <f4 [2]"));
  EXPECT_THAT(dict_error("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }"),
              HasSubstr("dtype >f4"));
  EXPECT_THAT(dict_error("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"), HasSubstr("dtype |O"));
  EXPECT_THAT(dict_error("{'descr': '<f4', 'fortran_order': True, 'shape': (2,1), }"),
              HasSubstr("Fortran order"));
  EXPECT_THAT(dict_error("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }"),
              HasSubstr("malformed"));
  EXPECT_THAT(dict_error("{'descr': '<f4', 'fortran_order': False}"), HasSubstr("malformed"));
  EXPECT_THAT(dict_error("{'descr': '<f4', 'descr': '<f4', 'shape': (2,), }"), HasSubstr("twice"));
  EXPECT_THAT(dict_error("{'descr': '<f4"), HasSubstr("malformed"));
  EXPECT_THAT(dict_error("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }"),
              HasSubstr("malformed"));
  EXPECT_THAT(error(archive("a.npy", "12345678901234")), HasSubstr("which is no array"));
  EXPECT_THAT(error(archive("a.txt", npy(good, "12345678"))), HasSubstr("which is no array"));
  EXPECT_THAT(error(archive("a.npy", npy(good, "12345678"), 8)), HasSubstr("save it with numpy.savez"));
  std::string bytes = archive("a.npy", npy(good, "12345678"));
  bytes[100] ^= 1;
  EXPECT_THAT(error(bytes), HasSubstr("is damaged: \"a.npy\" has crc32"));
  EXPECT_THAT(error(bytes.substr(0, bytes.size() - 1)), HasSubstr("the end of a zip archive was not found"));
  EXPECT_THAT(error("PK"), HasSubstr("is no .npz file: it has 2 bytes"));
}

// Each type that NumPy has and varscope does not, though one of its own holds it.
TEST_F(OpenNpz, WidensWhenAsked) {
  const auto file = [&](const std::string& descr, const std::string& data, std::size_t n) {
    spit(dir / "x.npz",
         archive("a.npy",
                 npy(fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}", descr, n),
                     data)));
  };
  struct Row {
    const char *descr, *name;
    std::string data;
    std::size_t n;
    std::string wider;
    DType dtype;
  };
  const std::vector<Row> rows = {
      {"<f2", "float16", std::string("\0\x3c\0\xc0", 4), 2, std::string("\0\0\x80\x3f\0\0\0\xc0", 8),
       DType::float32},
      {"|i1", "int8", "\xff\x7f", 2, std::string("\xff\xff\xff\xff\x7f\0\0\0", 8), DType::int32},
      {"<i1", "int8", "\xff", 1, "\xff\xff\xff\xff", DType::int32},
      {"<i2", "int16", std::string("\0\x80", 2), 1, std::string("\0\x80\xff\xff", 4), DType::int32},
      {"<u2", "uint16", "\xff\xff", 1, std::string("\xff\xff\0\0", 4), DType::int32},
      {"<u4", "uint32", "\xff\xff\xff\xff", 1, std::string("\xff\xff\xff\xff\0\0\0\0", 8), DType::int64},
      {"|b1", "bool", std::string("\0\1", 2), 2, std::string("\0\1", 2), DType::uint8}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.descr);
    file(row.descr, row.data, row.n);
    EXPECT_EQ(
        error_of([&] { open_npz(fs, dir / "x.npz", Widen::no, notes); }),
        fmt::format(
            "checkpoint: {}: array \"a\" is of dtype {}, which varscope does not have; read it as {} with "
            "--widen",
            dir / "x.npz", row.descr, to_string(row.dtype)));
    notes = {};
    const auto source = open_npz(fs, dir / "x.npz", Widen::yes, notes);
    EXPECT_EQ(source->tensors()[0].dtype, row.dtype);
    EXPECT_EQ(contents(*source).at("a"), row.wider);
    EXPECT_THAT(notes.widened,
                ::testing::ElementsAre(fmt::format("{} as {}: a", row.name, to_string(row.dtype))));
    file(row.descr, row.data, row.n + 1);
    EXPECT_THAT(error_of([&] { open_npz(fs, dir / "x.npz", Widen::yes, notes); }),
                HasSubstr("bytes where there are"));
  }
  for (const char* never : {"<u8", "<c8", ">f2", "<U3"}) {
    file(never, "12345678", 1);
    EXPECT_THAT(
        error_of([&] { open_npz(fs, dir / "x.npz", Widen::yes, notes); }),
        ::testing::EndsWith(fmt::format(
            "is of dtype {}, which varscope does not have; save it as another one, or leave it out", never)));
  }
}

TEST_F(OpenNpz, SurvivesHostileBytes) {
  Saved saved(tiny_model(1), 1);
  export_to(saved.fs, saved.path, dir / "a.npz");
  EXPECT_GT(testing::fuzz_file(dir / "a.npz", 1000,
                               [&] { contents(*open_npz(fs, dir / "a.npz", Widen::no, notes)); }),
            400);
}

}  // namespace
}  // namespace varscope
