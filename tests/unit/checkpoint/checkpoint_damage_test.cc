// Damage of every file of a checkpoint: what is rejected, in which words, and that the older one is used.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "tests/support/case_stride.h"
#include "tests/support/failure_matrix.h"
#include "tests/support/references/two_checkpoints.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using testing::Disk;
using testing::error_of;
using testing::FailureMatrix;
using testing::flipped;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kCaseStride;
using testing::kTwoDir;
using testing::make_directory_of;
using testing::MemoryFs;

FailureMatrix& matrix = FailureMatrix::install("files: damage", VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr const char* kOlderUsed = "rejected, file and CRC block named; the older checkpoint is used";

using DamagedCheckpoint = testing::TwoCheckpoints;

// The words for changed bytes at `at` in a file of unchanged size.
std::string damaged(const std::string& name, std::size_t at) {
  if (name == "MANIFEST") return "MANIFEST is damaged";  // its magic, length or checksum
  const std::size_t block = at / kCrcBlockBytes;
  return fmt::format("{} is damaged: CRC block {} (from byte {}) has crc32c ", name, block,
                     block * kCrcBlockBytes);
}

std::string resized(const std::string& name, std::size_t now, std::size_t was) {
  if (name != "MANIFEST") return fmt::format("{} has {} bytes instead of {}", name, now, was);
  return now < kEnvelopeBytes ? fmt::format("MANIFEST is cut off: {} bytes", now)
                              : "MANIFEST is damaged: it should have ";
}

TEST_F(DamagedCheckpoint, AFlippedBitOfAnyByteIsFound) {
  for (const std::string& name : files()) {
    const std::string good = bytes(name);
    for (std::size_t at = 0; at < good.size(); at += kCaseStride) {
      SCOPED_TRACE(fmt::format("byte {} of {}", at, name));
      expect_rejected(name, flipped(good, at), damaged(name, at));
    }
  }
  expect_newer();
  matrix.add({"bit flip", "every byte of MANIFEST, of small shards and of a worker's state", "all of them",
              kOlderUsed});
}

TEST_F(DamagedCheckpoint, AnyOtherSizeIsFound) {
  for (const std::string& name : files()) {
    const std::string good = bytes(name);
    std::vector<std::size_t> sizes = {good.size() - 1, good.size() + 1, good.size() + 4096};
    for (std::size_t n = 0; n < good.size(); n += 512) sizes.push_back(n);  // those of 4096 are among them
    for (const std::size_t n : sizes) {
      SCOPED_TRACE(fmt::format("{} bytes of {}", n, name));
      std::string changed = good;
      changed.resize(n);
      expect_rejected(name, changed, resized(name, n, good.size()));
    }
  }
  expect_newer();
  matrix.add({"truncation, extension",
              "each file, to 0, to every multiple of 512 and 4096, by 1 less, 1 more, 4096 more",
              "all of them", "rejected, both sizes named; the older checkpoint is used"});
}

class CheckpointDamageOfLargeShards : public DamagedCheckpoint {
 protected:
  void SetUp() override { fill(testing::two_chunks); }
};

TEST_F(CheckpointDamageOfLargeShards, AFlippedBitOfAnyRegionIsFound) {
  int n_cases = 0;
  for (int server : {0, 1}) {
    const std::string name = shard_name(server, 2), good = bytes(name);
    ASSERT_GT(good.size(), kCrcBlockBytes + 4096);
    const std::size_t last = good.size() - 1;
    // Length, start of the header, header, its padding, start of the data; each end and middle of each CRC
    // block.
    for (const std::size_t at :
         std::vector<std::size_t>{0, 1, 7, 8, 9, 2000, 4095, 4096, kCrcBlockBytes / 2, kCrcBlockBytes - 1,
                                  kCrcBlockBytes, (kCrcBlockBytes + last) / 2, last}) {
      SCOPED_TRACE(fmt::format("byte {} of {}", at, name));
      expect_rejected(name, flipped(good, at), damaged(name, at));
      ++n_cases;
    }
  }
  matrix.add({"bit flip",
              "shards of two CRC blocks: each region of the header, ends and middle of each block",
              std::to_string(n_cases), kOlderUsed});
}

TEST_F(CheckpointDamageOfLargeShards, AnyZeroedPageIsFound) {
  int n_cases = 0;
  for (int server : {0, 1}) {
    const std::string name = shard_name(server, 2);
    std::string& shard = bytes(name);
    for (std::size_t at = 0; at < shard.size(); at += 4096 * kCaseStride) {
      SCOPED_TRACE(fmt::format("page at {} of {}", at, name));
      const std::string page = shard.substr(at, 4096);
      shard.replace(at, page.size(), std::string(page.size(), '\0'));
      expect_older(damaged(name, at));
      shard.replace(at, page.size(), page);
      ++n_cases;
    }
  }
  expect_newer();
  EXPECT_GT(n_cases, 512 / static_cast<int>(kCaseStride));
  matrix.add(
      {"page of 4096 bytes zeroed", "every page of shards of two CRC blocks", "more than 512", kOlderUsed});
}

// --- one damage at a time, of the newer one and of both ---

struct Damage {
  std::string injected, where;
  std::string words;  // of the message, about the damaged one
  std::function<void(MemoryFs&, const std::string& path, const std::string& other)> apply;
};

void copy_file(MemoryFs& fs, const std::string& from, const std::string& to) {
  const std::string bytes = fs.bytes(from);
  fs.remove_all(to);
  write_whole_file(fs, to, bytes);
}

void copy_checkpoint(MemoryFs& fs, const std::string& from, const std::string& to) {
  for (const std::string& name : fs.list(from)) copy_file(fs, join_path(from, name), join_path(to, name));
}

std::vector<Damage> damages() {
  std::vector<Damage> all;
  const std::string any = "a shard or a worker's state";
  for (const std::string& name :
       {shard_name(0, 2), shard_name(1, 2), worker_state_name(0), worker_state_name(1)}) {
    all.push_back({"file deleted", any, name + " is missing",
                   [=](MemoryFs& fs, const std::string& p, auto&) { fs.remove_all(p + "/" + name); }});
    all.push_back(
        {"file replaced by a directory", any, "/" + name + ": Is a directory",
         [=](MemoryFs& fs, const std::string& p, auto&) { make_directory_of(fs, p + "/" + name); }});
  }
  all.push_back({"file deleted", "MANIFEST", "is not a checkpoint: it has no MANIFEST",
                 [](MemoryFs& fs, const std::string& p, auto&) { fs.remove_all(p + "/MANIFEST"); }});
  all.push_back({"file replaced by a directory", "MANIFEST", "/MANIFEST: Is a directory",
                 [](MemoryFs& fs, const std::string& p, auto&) { make_directory_of(fs, p + "/MANIFEST"); }});
  all.push_back({"directory emptied", "the checkpoint", "is not a checkpoint: it has no MANIFEST",
                 [](MemoryFs& fs, const std::string& p, auto&) { make_directory_of(fs, p); }});
  all.push_back({"directory replaced by a file", "the checkpoint", "is not a checkpoint: it has no MANIFEST",
                 [](MemoryFs& fs, const std::string& p, auto&) {
                   fs.remove_all(p);
                   write_whole_file(fs, p, "a file");
                 }});
  all.push_back({"shards 0 and 1 swapped", "shards of one size",
                 "shard-00000-of-00002.safetensors is damaged: CRC block 0",
                 [](MemoryFs& fs, const std::string& p, auto&) {
                   std::swap(fs.bytes(p + "/" + shard_name(0, 2)), fs.bytes(p + "/" + shard_name(1, 2)));
                 }});
  all.push_back({"valid shard of the right size from another step", "shard 1",
                 "shard-00001-of-00002.safetensors belongs to checkpoint id-",
                 [](MemoryFs& fs, const std::string& p, const std::string& other) {
                   copy_file(fs, other + "/" + shard_name(1, 2), p + "/" + shard_name(1, 2));
                 }});
  all.push_back({"MANIFEST of another step", "MANIFEST", "so the directory has been renamed",
                 [](MemoryFs& fs, const std::string& p, const std::string& other) {
                   copy_file(fs, other + "/MANIFEST", p + "/MANIFEST");
                 }});
  all.push_back(
      {"whole valid checkpoint under another step's name", "the checkpoint",
       "so the directory has been renamed",
       [](MemoryFs& fs, const std::string& p, const std::string& other) { copy_checkpoint(fs, other, p); }});
  all.push_back({"newer major format", "MANIFEST", "MANIFEST has format 4 and needs varscope >= 3.1.4",
                 [](MemoryFs& fs, const std::string& p, auto&) {
                   fs.bytes(p + "/MANIFEST") =
                       seal(kManifestMagic, "", {.major = 4, .minor = 0, .min_reader = "3.1.4"});
                 }});
  all.push_back({"envelope of a worker's state", "MANIFEST",
                 "MANIFEST is damaged or not a VSCPMANF file: wrong magic",
                 [](MemoryFs& fs, const std::string& p, auto&) {
                   fs.bytes(p + "/MANIFEST") = seal(kWorkerStateMagic, "state");
                 }});
  return all;
}

TEST_F(DamagedCheckpoint, FallsBackToTheOlderOneAndSaysWhy) {
  const Disk good = fs.disk();
  std::map<std::pair<std::string, std::string>, int> n_cases;
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.injected + " " + damage.where);
    fs.disk() = good;
    damage.apply(fs, newer, older);
    expect_older(damage.words);
    EXPECT_THAT(verify_checkpoint(fs, newer), Contains(HasSubstr(damage.words)));
    EXPECT_THAT(verify_checkpoint(fs, older), IsEmpty());
    ++n_cases[{damage.injected, damage.where}];
  }
  for (const Damage& damage : damages()) {
    const auto n = n_cases.extract({damage.injected, damage.where});
    if (n.empty()) continue;  // the row is there
    std::string words = damage.words;
    if (n.mapped() > 1) words.replace(words.find("shard-00000-of-00002.safetensors"), 32, "FILE");
    matrix.add({damage.injected, damage.where, std::to_string(n.mapped()),
                fmt::format("\"... {} ...\"; the older checkpoint is used", words)});
  }
}

TEST_F(DamagedCheckpoint, WhenAllAreBadTheErrorListsEach) {
  const Disk good = fs.disk();
  int n_cases = 0;
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.injected + " " + damage.where);
    fs.disk() = good;
    for (const std::string& donor : {newer, older}) {  // undamaged, under names that nothing looks at
      fs.make_dir(donor + "-whole");
      copy_checkpoint(fs, donor, donor + "-whole");
    }
    damage.apply(fs, newer, older + "-whole");
    damage.apply(fs, older, newer + "-whole");
    const std::string words = error_of([&] { newest_checkpoint(fs, kTwoDir); });
    const std::size_t of_older = words.find("\n  checkpoint step-000000004 cannot be used: ");
    ASSERT_NE(of_older, std::string::npos) << words;
    EXPECT_THAT(words.substr(0, of_older),
                AllOf(HasSubstr("checkpoint: no checkpoint in /c can be used:"),
                      HasSubstr("\n  checkpoint step-000000005 cannot be used: "), HasSubstr(damage.words)));
    EXPECT_THAT(words.substr(of_older), HasSubstr(damage.words));
    ++n_cases;
  }
  matrix.add({"each one from \"file deleted\" to here", "both checkpoints", std::to_string(n_cases),
              "stops; lists what is wrong with each"});
}

}  // namespace
}  // namespace varscope
