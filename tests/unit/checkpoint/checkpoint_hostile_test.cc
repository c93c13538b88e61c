// Files whose checksums are right and whose contents are not: the manifest's decoder, the reader behind it
// and the safetensors header. Each ends in an Error(checkpoint) or in something that can be read; nothing
// crashes (this runs under the sanitizers as well), and nothing allocates what the file merely says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/exchange/safetensors.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/archive.h"
#include "common/base/serialize.h"
#include "tests/support/failure_matrix.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/chain_fixture.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace {
std::atomic<std::size_t> largest_request = 0;

void* counted(std::size_t n) {
  std::size_t seen = largest_request;
  while (n > seen && !largest_request.compare_exchange_weak(seen, n)) {
  }
  if (n > std::size_t{1} << 32) throw std::bad_alloc();
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
}  // namespace

// Inlined one without the other, GCC takes them for a pair that does not match.
[[gnu::noinline]] void* operator new(std::size_t n) { return counted(n); }
[[gnu::noinline]] void* operator new[](std::size_t n) { return counted(n); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

namespace varscope {
namespace {

using testing::FailureMatrix;
using testing::MemoryFs;
using testing::small_model;

FailureMatrix& matrix = FailureMatrix::install("files: hostile", VARSCOPE_SOURCE_DIR "/docs/failures.md");

// The files have some 60 KiB; no mutation of theirs makes anything ask for more than this at once.
constexpr std::size_t kMostAtOnce = 4 << 20;

const std::vector<std::string> kExtremes = {"0",
                                            "-1",
                                            "1",
                                            "255",
                                            "65535",
                                            "2147483647",
                                            "2147483648",
                                            "4294967295",
                                            "4294967296",
                                            "4611686018427387904",
                                            "9223372036854775807",
                                            "9223372036854775808",
                                            "18446744073709551615",
                                            "18446744073709551616",
                                            "1e308",
                                            "nan"};

using Random = std::mt19937;

// The mutations reach what comes after the first check, and most of them are found.
void expect_some(int accepted, int rounds) {
  std::printf("%d of %d accepted\n", accepted, rounds);
  EXPECT_GT(accepted, 10);
  EXPECT_LT(accepted, rounds / 2);
}

// One to four changes of a text: bytes, digits, numbers, cuts, repeated pieces.
std::string mutated(const std::string& good, Random& random) {
  std::string text = good;
  const std::string digits = "0123456789- .,:[]{}\"";
  for (unsigned n = 1 + random() % 4; n > 0 && !text.empty(); --n) {
    const std::size_t at = random() % text.size();
    const std::size_t number = text.find_first_of("0123456789", at);
    switch (random() % 8) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text[at] = digits[random() % digits.size()];
        break;
      case 2:
        text.insert(at, "999999999999999999");
        break;
      case 3:
        text.erase(at, 1 + random() % 20);
        break;
      case 4:
        text.resize(at);
        break;
      case 5:
        text.insert(at, good.substr(random() % good.size(), 40));
        break;
      default:  // a whole number
        if (number == std::string::npos) break;
        text.replace(number, text.find_first_not_of("0123456789", number) - number,
                     kExtremes[random() % kExtremes.size()]);
    }
  }
  return text;
}

// A directory with one checkpoint.
class CheckpointHostile : public ::testing::Test {
 protected:
  void SetUp() override {
    fs.make_dir("/c");
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    path = save(fs, directory, small_model(3), 5, 2, "id-5");
    good = fs.bytes(path + "/MANIFEST");
    manifest = decode_manifest(good, "M");
  }

  // Puts the manifest in place and does all that a job would do with it. Whether it was accepted.
  bool try_manifest(const std::string& bytes) {
    fs.bytes(path + "/MANIFEST") = bytes;
    largest_request = 0;
    const bool whole = verify_checkpoint(fs, path).empty();
    const std::string words = testing::error_of([&] { newest_checkpoint(fs, "/c"); });
    EXPECT_EQ(words == "no error", whole) << words;
    bool accepted = false;
    try {
      decode_manifest(bytes, "MANIFEST");
      accepted = true;
      CheckpointReader reader = CheckpointReader::open(fs, path);
      for (const VariableSpec& v : reader.manifest().variables.variables()) read_all(reader, v);
    } catch (const Error& e) {
      EXPECT_TRUE(e.kind() == ErrorKind::checkpoint || e.kind() == ErrorKind::io) << e.what();
    }
    EXPECT_LE(largest_request, kMostAtOnce);
    return accepted;
  }
  static void read_all(CheckpointReader& reader, const VariableSpec& v) {
    if (v.full_shape().n_elements() == 0 || !reader.has(v.name, "")) return;
    const DType dtype = reader.dtype(v.name, "");
    const Tensor out(dtype, v.full_shape());
    reader.read(v.full_name(), "", testing::whole(v.full_shape()), out.view());
  }

  MemoryFs fs;
  std::string path, good;
  Manifest manifest;
};

TEST_F(CheckpointHostile, ManifestTextsWithTheRightChecksum) {
  Random random(20240117);
  const std::string payload(open_envelope(kManifestMagic, good, "M"));
  int accepted = 0;
  const int rounds = 8000;
  for (int round = 0; round < rounds; ++round)
    accepted += try_manifest(seal(kManifestMagic, mutated(payload, random))) ? 1 : 0;
  expect_some(accepted, rounds);  // a changed time, say
  matrix.add({"mutations of the text, checksum computed anew", "MANIFEST", std::to_string(rounds),
              "rejected by name, or read as what it then says"});
}

// The fields themselves, with the hash of the values computed anew too: these get past all checksums.
TEST_F(CheckpointHostile, ManifestFieldsWithAllHashesRight) {
  Random random(77);
  const auto any_size = [&](std::uint64_t was) {
    const std::vector<std::uint64_t> values = {0,       1,         ~std::uint64_t{0},      was + 1, was - 1,
                                               was * 2, INT64_MAX, std::uint64_t{1} << 63, 1 << 20};
    return values[random() % values.size()];
  };
  const auto any = [&](std::int64_t was) {
    return static_cast<std::int64_t>(any_size(static_cast<std::uint64_t>(was)));
  };
  int accepted = 0;
  const int rounds = 8000;
  for (int round = 0; round < rounds; ++round) {
    Manifest m = manifest;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      TensorRecord& t = m.tensors[random() % m.tensors.size()];
      const TensorRecord& other = m.tensors[random() % m.tensors.size()];
      FileRecord& f = m.files[random() % m.files.size()];
      switch (random() % 14) {
        case 0:
          t.begin = any_size(t.begin);
          break;
        case 1:
          t.end = any_size(t.end);
          break;
        case 2:
          t.file = static_cast<std::uint32_t>(any(t.file));
          break;
        case 3:
          t.slice = any(t.slice);
          break;
        case 4:
          t.box = mutated(t.box.empty() ? "1 0,1" : t.box, random);
          break;
        case 5:
          t.box = other.box;
          break;
        case 6:
          t.dtype = other.dtype;
          break;
        case 7:
          std::swap(t.variable, m.tensors[random() % m.tensors.size()].variable);
          break;
        case 8:
          t.slot = other.slot;
          break;
        case 9:
          f.size = any_size(f.size);
          break;
        case 10:
          f.crc_block_bytes = static_cast<std::uint32_t>(any(f.crc_block_bytes));
          break;
        case 11:
          f.crc32c.resize(random() % 5);
          break;
        case 12:
          f.name = mutated(f.name, random);
          break;
        default:
          m.tensors.erase(m.tensors.begin() + static_cast<std::ptrdiff_t>(random() % m.tensors.size()));
      }
    }
    m.values_hash = values_hash_1_of(m);
    accepted += try_manifest(encode_manifest(m)) ? 1 : 0;
  }
  expect_some(accepted, rounds);
  matrix.add({"mutations of its fields, all hashes computed anew", "MANIFEST", std::to_string(rounds),
              "rejected by name, or read as what it then says"});
}

TEST_F(CheckpointHostile, SafetensorsHeaders) {
  Random random(5);
  const std::string shard = path + "/" + shard_name(0, 2);
  const std::string file = fs.bytes(shard);
  std::size_t n = 0;
  for (std::size_t i = 8; i-- > 0;) n = n << 8 | static_cast<unsigned char>(file[i]);
  const std::string header = file.substr(8, file.find_last_not_of(' ', 7 + n) - 7), data = file.substr(8 + n);
  int accepted = 0;
  const int rounds = 8000;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = mutated(header, random);
    std::size_t length = round % 16 == 0 ? random() * std::size_t{random()} : text.size();
    if (round % 32 == 0) length = text.size() + data.size() + random() % 3;
    std::string bytes;
    for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i));
    fs.bytes(shard) = bytes + text + data;
    largest_request = 0;
    checkpoint_id_of_shard(fs, shard);
    try {
      ReadNotes notes;
      const auto source = open_safetensors(fs, shard, Widen::no, notes);
      ++accepted;
      for (std::size_t i = 0; i < source->tensors().size(); ++i) stream_tensor(*source, i, [](auto) {});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::checkpoint) << e.what();
      EXPECT_TRUE(std::string(e.what()).starts_with(shard)) << e.what();
    }
    EXPECT_LE(largest_request, kMostAtOnce);
  }
  expect_some(accepted, rounds);
  matrix.add({"mutations of the header and of its length", "safetensors files", std::to_string(rounds),
              "rejected by name, or read as what it then says"});
}

// The same with sparse tables, whose rows are read as well.
class TablesHostile : public ::testing::Test {
 protected:
  void SetUp() override {
    fs.make_dir("/c");
    CheckpointDirectory directory(fs, "/c");
    directory.lock("run");
    testing::ChainSaver saver(fs, directory, 2);
    testing::ChangingTables tables(testing::living_tables(3, 60), 3);
    for (int step = 3; step <= 5; ++step) {
      if (step > 3) tables.change(step);
      path = saver.save(tables.model, step);
    }
    manifest = decode_manifest(fs.bytes(path + "/MANIFEST"), "M");
  }

  // Does with it all that a job and the tools would do. Whether it was accepted.
  bool try_manifest(const std::string& bytes) {
    fs.bytes(path + "/MANIFEST") = bytes;
    largest_request = 0;
    verify_checkpoint(fs, path);
    bool accepted = false;
    try {
      const Manifest m = decode_manifest(bytes, "MANIFEST");
      accepted = true;
      to_json(m);
      not_finite_text(m);
      CheckpointReader reader = CheckpointReader::open(fs, path);
      PartRows rows;
      for (const TableRecord& t : reader.tables()) {
        for (int part = 0; part < std::min(t.spec.parts, 64); ++part)
          reader.read_part(t.variable, part, rows);
      }
    } catch (const Error& e) {
      EXPECT_TRUE(e.kind() == ErrorKind::checkpoint || e.kind() == ErrorKind::io) << e.what();
    }
    EXPECT_LE(largest_request, kMostAtOnce);
    return accepted;
  }

  MemoryFs fs;
  std::string path;
  Manifest manifest;
};

TEST_F(TablesHostile, ManifestTextsWithTheRightChecksum) {
  Random random(11);
  const std::string payload = to_disk_text(manifest);
  const std::size_t tables = payload.find(" 2 0 15 user/embeddings");  // their number, then the first
  ASSERT_NE(tables, std::string::npos);
  int accepted = 0;
  const int rounds = 8000;
  for (int round = 0; round < rounds; ++round) {
    // Half of them change nothing but what is new.
    const std::size_t from = round % 2 == 0 ? 0 : tables;
    const std::string text = payload.substr(0, from) + mutated(payload.substr(from), random);
    accepted += try_manifest(seal(kManifestMagic, text, kTablesFormat)) ? 1 : 0;
  }
  expect_some(accepted, rounds);
  matrix.add({"mutations of the text, checksum computed anew", "MANIFEST with tables", std::to_string(rounds),
              "rejected by name, or read as what it then says"});
}

TEST_F(TablesHostile, ManifestFieldsWithAllHashesRight) {
  Random random(78);
  const auto any = [&](std::uint64_t was) {
    const std::vector<std::uint64_t> values = {0,       1,         ~std::uint64_t{0},      was + 1, was - 1,
                                               was * 2, INT64_MAX, std::uint64_t{1} << 63, 1 << 20, 48};
    return values[random() % values.size()];
  };
  int accepted = 0;
  const int rounds = 8000;
  for (int round = 0; round < rounds; ++round) {
    Manifest m = manifest;
    for (unsigned n = 1 + random() % 3; n > 0; --n) {
      RowPartRecord& r = m.row_parts[random() % m.row_parts.size()];
      RowPiece& p = r.pieces[random() % r.pieces.size()];
      const RowPartRecord& other = m.row_parts[random() % m.row_parts.size()];
      TableRecord& t = m.tables[random() % m.tables.size()];
      switch (random() % 18) {
        case 0:
          p.begin = any(p.begin);
          break;
        case 1:
          p.end = any(p.end);
          break;
        case 2:
          p.file = static_cast<std::uint32_t>(any(p.file));
          break;
        case 3:
          r.part = static_cast<int>(any(static_cast<std::uint64_t>(r.part)));
          break;
        case 4:
          r.n_rows = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(r.n_rows)));
          break;
        case 5:
          r.hash_sum = other.hash_sum;
          break;
        case 6:
          r = other;
          break;
        case 7:
          r.variable = m.row_parts.back().variable;
          break;
        case 8:
          t.spec.parts = static_cast<int>(any(static_cast<std::uint64_t>(t.spec.parts)));
          break;
        case 9:
          t.spec.ids = static_cast<IdType>(random());
          break;
        case 10:
          if (!t.slots.empty())
            t.slots[0].n_elements =
                static_cast<std::int64_t>(any(static_cast<std::uint64_t>(t.slots[0].n_elements)));
          break;
        case 11:
          p.since = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(p.since)));
          break;
        case 12:
          p.step = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(p.step)));
          break;
        case 13:
          p.n_rows = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(p.n_rows)));
          break;
        case 14:
          p.n_waiting = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(p.n_waiting)));
          break;
        case 15:
          p.n_removed = static_cast<std::int64_t>(any(static_cast<std::uint64_t>(p.n_removed)));
          break;
        case 16:
          p = other.pieces[random() % other.pieces.size()];
          break;
        default:
          m.row_parts.erase(m.row_parts.begin() + static_cast<std::ptrdiff_t>(random() % m.row_parts.size()));
      }
    }
    m.variables.set_tables(
        {{m.tables[0].variable, m.tables[0].spec}, {m.tables[1].variable, m.tables[1].spec}});
    m.values_hash = values_hash_1_of(m);
    accepted += try_manifest(encode_manifest(m)) ? 1 : 0;
  }
  expect_some(accepted, rounds);
  matrix.add({"mutations of its fields, all hashes computed anew", "MANIFEST with tables",
              std::to_string(rounds), "rejected by name, or read as what it then says"});
}

TEST_F(CheckpointHostile, TheLargestRequestIsNoticed) {
  largest_request = 0;
  const std::string text(kMostAtOnce + 1, 'x');
  EXPECT_GT(largest_request, kMostAtOnce) << text.size();
}

}  // namespace
}  // namespace varscope
