// Whole tensors as a TensorFlow V2 bundle, checked byte by byte by the layout of LevelDB's tables and of
// protocol buffers, and by TensorFlow where it is installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "checkpoint/exchange/tf_bundle.h"
#include "checkpoint/exchange/tf_table.h"
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
using ::testing::IsEmpty;
using testing::little;
using testing::Saved;
using testing::slurp;
using testing::small_model;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;

const std::map<DType, std::string> kNumbers = {
    {DType::float32, "1"}, {DType::float64, "2"}, {DType::int64, "9"}, {DType::bfloat16, "14"}};

// CRC-32C bit by bit, then TensorFlow's mask.
std::uint32_t masked_crc(const std::string& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0U);
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

std::uint64_t varint(const std::string& bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    value |= static_cast<std::uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
}

using Entries = std::vector<std::pair<std::string, std::string>>;
Entries entries_of_block(const std::string& file, std::size_t offset, std::size_t size) {
  const std::string block = file.substr(offset, size);
  EXPECT_EQ(little(file, offset + size + 1, 4), masked_crc(file.substr(offset, size + 1)));
  EXPECT_EQ(file.at(offset + size), 0) << "not compressed";
  const std::size_t end = size - 4 - 4 * little(block, size - 4, 4);
  Entries entries;
  std::string key;
  for (std::size_t at = 0; at < end;) {
    const std::size_t shared = varint(block, at), unshared = varint(block, at), length = varint(block, at);
    key = key.substr(0, shared) + block.substr(at, unshared);
    entries.emplace_back(key, block.substr(at + unshared, length));
    at += unshared + length;
  }
  return entries;
}

// A protocol buffer's fields: number -> values (varints and fixed32 as numbers, messages as bytes).
struct Fields {
  std::map<int, std::uint64_t> numbers;
  std::map<int, std::vector<std::string>> messages;
  explicit Fields(const std::string& bytes) {
    for (std::size_t at = 0; at < bytes.size();) {
      const std::uint64_t tag = varint(bytes, at);
      const int field = static_cast<int>(tag >> 3);
      if ((tag & 7) == 0) numbers[field] = varint(bytes, at);
      if ((tag & 7) == 5) {
        numbers[field] = little(bytes, at, 4);
        at += 4;
      }
      if ((tag & 7) == 2) {
        const std::size_t n = varint(bytes, at);
        messages[field].push_back(bytes.substr(at, n));
        at += n;
      }
      EXPECT_TRUE((tag & 7) == 0 || (tag & 7) == 5 || (tag & 7) == 2);
    }
  }
};

FoundTensors read_by_the_rules(const std::string& prefix) {
  const std::string index = slurp(prefix + ".index"), data = slurp(prefix + ".data-00000-of-00001");
  EXPECT_EQ(little(index, index.size() - 8, 8), 0xdb4775248b80fb57U);
  std::size_t at = index.size() - 48;
  varint(index, at);
  varint(index, at);
  const std::size_t offset = varint(index, at), size = varint(index, at);
  FoundTensors found;
  std::string last;
  std::size_t n = 0, end_of_data = 0;
  for (const auto& [separator, handle] : entries_of_block(index, offset, size)) {
    std::size_t h = 0;
    const std::size_t block = varint(handle, h), block_size = varint(handle, h);
    for (const auto& [key, value] : entries_of_block(index, block, block_size)) {
      if (n++ == 0) {
        EXPECT_EQ(key, "");
        EXPECT_EQ(value, std::string("\x08\x01\x1a\x02\x08\x01", 6))
            << "one shard, little-endian, producer 1";
        continue;
      }
      EXPECT_LT(last, key) << "bytewise order";
      last = key;
      Fields f(value);
      EXPECT_EQ(f.messages[2].size(), 1U) << "the shape is always there";
      EXPECT_EQ(f.numbers.count(3), 0U) << "shard 0 is the default";
      EXPECT_EQ(f.numbers[4], end_of_data) << "back to back";
      testing::FoundTensor& t = found[key];
      t.dtype = std::to_string(f.numbers[1]);
      Fields shape(f.messages[2].at(0));
      for (const std::string& dim : shape.messages[2])
        t.shape.push_back(static_cast<std::int64_t>(Fields(dim).numbers[1]));
      t.bytes = data.substr(f.numbers[4], f.numbers[5]);
      EXPECT_EQ(f.numbers[6], masked_crc(t.bytes)) << key;
      end_of_data += t.bytes.size();
    }
  }
  EXPECT_EQ(end_of_data, data.size());
  return found;
}

TEST(ExportTf, WritesABundleOfWholeTensors) {
  const testing::Model model = small_model(3);
  TempDir dir;
  PosixFs fs;
  for (const testing::Model& saved_as : {small_model(3), testing::partitioned(small_model(3), {2, 2})}) {
    Saved saved(saved_as, 3);
    export_to(saved.fs, saved.path, dir / "a.ckpt");
    testing::expect_tensors(read_by_the_rules(dir / "a.ckpt"), model, true, kNumbers);
    for (const char* name : {"a.ckpt", "a.ckpt.index"}) {
      ReadNotes notes;
      const auto ours = contents(*open_tf_bundle(fs, dir / name, Widen::no, notes));
      EXPECT_THAT(notes.skipped, IsEmpty());
      for (const auto& [tensor, found] : read_by_the_rules(dir / "a.ckpt"))
        EXPECT_EQ(ours.at(tensor), found.bytes);
    }
    export_to(saved.fs, saved.path, dir / "a.ckpt.index", ExportSlots::leave_out);
    testing::expect_tensors(read_by_the_rules(dir / "a.ckpt"), model, false, kNumbers);
  }
  EXPECT_THAT(fs.list(dir.path()), ::testing::ElementsAre("a.ckpt.data-00000-of-00001", "a.ckpt.index"));
}

TEST(ExportTf, IsReadByTensorFlow) {
  if (std::system("python3 -c 'import tensorflow' 2>/dev/null") != 0)
    GTEST_SKIP() << "tensorflow is not installed";
  Saved saved(small_model(3), 2);
  TempDir dir;
  export_to(saved.fs, saved.path, dir / "a.ckpt");
  const std::string load = "python3 -c \"import tensorflow as tf; r = tf.train.load_checkpoint('" +
                           (dir / "a.ckpt") + "'); assert r.get_tensor('hidden/weights').shape == (90, 61)\"";
  EXPECT_EQ(std::system(load.c_str()), 0);
}

class Table : public ::testing::Test {
 protected:
  TempDir dir;
  PosixFs fs;
};

TEST_F(Table, HoldsManyBlocks) {
  TableEntries entries = {{"", "header"}};
  for (int i = 0; i < 3000; ++i)
    entries.emplace_back(fmt::format("layer{:05d}/weights", i),
                         std::string(static_cast<std::size_t>(i % 700), 'x'));
  write_table(fs, dir / "t", entries);
  EXPECT_GT(slurp(dir / "t").size(), 3U * 262144U);
  EXPECT_EQ(read_table(fs, dir / "t"), entries);
  write_table(fs, dir / "empty", {});
  EXPECT_THAT(read_table(fs, dir / "empty"), IsEmpty());
}

TEST_F(Table, NamesDamage) {
  write_table(fs, dir / "t", {{"", "header"}, {"a", "1"}});
  testing::flip_bit(dir / "t", 4);
  EXPECT_THAT(error_of([&] { read_table(fs, dir / "t"); }),
              HasSubstr("t is damaged: the checksum of the block at byte 0 does not match"));
  spit(dir / "t", std::string(47, '\0'));
  EXPECT_THAT(error_of([&] { read_table(fs, dir / "t"); }),
              HasSubstr("is not the index of a TensorFlow bundle"));
}

class OpenTfBundle : public ::testing::Test {
 protected:
  void SetUp() override {
    Saved saved(tiny_model(1), 1);
    export_to(saved.fs, saved.path, prefix());
  }
  std::string prefix() const { return dir / "a.ckpt"; }
  std::string data() const { return prefix() + ".data-00000-of-00001"; }
  void read() {
    notes = {};
    contents(*open_tf_bundle(fs, prefix(), how, notes));
  }
  std::string error_with(const std::string& entry) {
    write_table(fs, prefix() + ".index", {{"", std::string("\x08\x01", 2)}, {"x", entry}});
    return error_of([&] { read(); });
  }
  TempDir dir;
  PosixFs fs;
  Widen how = Widen::no;
  ReadNotes notes;
};

TEST_F(OpenTfBundle, NamesDamageInTheData) {
  testing::flip_bit(data(), 5);
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("00000-of-00001 is damaged: tensor \"w\" has crc32c"));
  fs.remove_all(data());
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("00000-of-00001 is missing"));
}

TEST_F(OpenTfBundle, RefusesEntriesThatMakeNoSense) {
  using std::string;
  const string f32 = "\x08\x01", dim2 = string("\x12\x04\x12\x02\x08\x02", 6);  // dtype float, shape [2]
  EXPECT_THAT(error_with(f32 + dim2 + "\x28\x08"), HasSubstr("is damaged")) << "no checksum";
  EXPECT_THAT(error_with(f32 + dim2 + "\x28\x07"), HasSubstr("needs 8 bytes where there are 7"));
  EXPECT_THAT(error_with(f32 + dim2 + string("\x20\x7f\x28\x08", 4)),
              HasSubstr("8 bytes from byte 127 of a shard of 96"));
  EXPECT_THAT(error_with(f32 + dim2 + string("\x18\x05\x28\x08", 4)), HasSubstr("in shard 5 of 1"));
  EXPECT_THAT(error_with(f32 + dim2 + string("\x28\x08\x3a\x00", 4)), HasSubstr("saved in 1 slices"));
  EXPECT_THAT(error_with("\xff\xff"), HasSubstr("malformed entry"));
  EXPECT_EQ(error_with("\x08\x07"), "no error");
  EXPECT_THAT(notes.skipped, ::testing::ElementsAre("x")) << "texts are left out";
  write_table(fs, prefix() + ".index", {{"", string("\x08\x01\x10\x01", 4)}});
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("big-endian"));
  write_table(fs, prefix() + ".index", {{"", string("\x08\xff\xff\xff\xff\x07", 6)}});
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("has 2147483647 shards"));
  const string all = string("\x08\x01\x12\x04\x12\x02\x08\x18\x28\x60\x35", 11);  // 24 floats, 96 bytes
  string crc;
  put_le(crc, masked_crc(slurp(data())));
  write_table(fs, prefix() + ".index", {{"", string("\x08\x01", 2)}, {"x", all + crc}});
  EXPECT_EQ(error_of([&] { read(); }), "no error");
  write_table(fs, prefix() + ".index", {{"", string("\x08\x01", 2)}, {"x", all + crc}, {"y", all + crc}});
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("its tensors overlap"));
  write_table(fs, prefix() + ".index", {{"a", "b"}});
  EXPECT_THAT(error_of([&] { read(); }), HasSubstr("has no header"));
}

// The entry of 2 bytes at the start of the data, of TensorFlow's dtype `number`.
TEST_F(OpenTfBundle, NamesOrWidensDtypesThatVarscopeDoesNotHave) {
  const auto entry = [&](int number, char n_bytes, char n_elements) {
    std::string e = {8, static_cast<char>(number), 0x12, 4, 0x12, 2, 8, n_elements, 0x28, n_bytes, 0x35};
    put_le(e, masked_crc(slurp(data()).substr(0, static_cast<std::size_t>(n_bytes))));
    return e;
  };
  struct Row {
    int number;
    const char* name;
    char size;
    const char* wider;
  };
  const Row rows[] = {{19, "float16", 2, "float32"}, {6, "int8", 1, "int32"},    {5, "int16", 2, "int32"},
                      {17, "uint16", 2, "int32"},    {22, "uint32", 4, "int64"}, {10, "bool", 1, "uint8"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    how = Widen::no;
    EXPECT_THAT(
        error_with(entry(row.number, row.size, 1)),
        HasSubstr(fmt::format("tensor \"x\" is of dtype {}, which varscope does not have; read it as {} with "
                              "--widen",
                              row.name, row.wider)));
    how = Widen::yes;
    EXPECT_EQ(error_with(entry(row.number, row.size, 1)), "no error");
    EXPECT_THAT(notes.widened, ::testing::ElementsAre(fmt::format("{} as {}: x", row.name, row.wider)));
    EXPECT_THAT(error_with(entry(row.number, static_cast<char>(3 * row.size), 2)), HasSubstr(row.name));
  }
  for (const auto& [number, name] : {std::pair{8, "complex64"},
                                     {23, "uint64"},
                                     {18, "complex128"},
                                     {11, "qint8"},
                                     {99, "99 of TensorFlow's numbers"}})
    EXPECT_THAT(
        error_with(entry(number, 8, 1)),
        ::testing::EndsWith(fmt::format(
            "tensor \"x\" is of dtype {}, which varscope does not have; save it as another one, or leave it out",
            name)));
}

TEST_F(OpenTfBundle, SurvivesHostileBytes) {
  EXPECT_GT(testing::fuzz_file(prefix() + ".index", 1000, [&] { read(); }), 400);
  EXPECT_GT(testing::fuzz_file(data(), 300, [&] { read(); }), 100);
  // Behind valid checksums: the entries themselves.
  const TableEntries good = read_table(fs, prefix() + ".index");
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    TableEntries entries = good;
    std::string& value = entries[random() % entries.size()].second;
    value[random() % value.size()] = static_cast<char>(random());
    write_table(fs, prefix() + ".index", entries);
    error_of([&] { read(); });
  }
}

}  // namespace
}  // namespace varscope
