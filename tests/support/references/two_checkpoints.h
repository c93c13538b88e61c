#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

// A directory in memory with two checkpoints, for tests that damage the newer one.
namespace varscope::testing {

inline constexpr const char* kTwoDir = "/c";

// Both shards of one size, so that nothing but their bytes tells them apart.
inline Model two_shards(unsigned seed) {
  return {
      VariableTable({make_variable("w", DType::float32, {4, 3}), make_variable("v", DType::float32, {4, 3})}),
      {"m"},
      seed};
}
// Each shard has more than one CRC block.
inline Model two_chunks(unsigned seed) {
  return {VariableTable({make_variable("w", DType::float32, {700, 1024})}), {}, seed};
}

// A directory with checkpoints of steps 4 and 5, of two servers and two workers.
class TwoCheckpoints : public ::testing::Test {
 protected:
  void fill(Model (*model)(unsigned)) {
    fs.make_dir(kTwoDir);
    CheckpointDirectory directory(fs, kTwoDir);
    directory.lock("run");
    older = save(fs, directory, model(1), 4, 2, "id-4");
    newer = save(fs, directory, model(2), 5, 2, "id-5");
  }
  void SetUp() override { fill(two_shards); }

  std::string& bytes(const std::string& name) { return fs.bytes(newer + "/" + name); }
  std::vector<std::string> files() const {
    return {"MANIFEST", shard_name(0, 2), shard_name(1, 2), worker_state_name(0)};
  }

  void expect_older(const std::string& words) {
    const FoundCheckpoint found = newest_checkpoint(fs, kTwoDir);
    EXPECT_EQ(found.path, older);
    ASSERT_FALSE(found.warnings.empty());
    EXPECT_THAT(found.warnings.back(),
                ::testing::AllOf(::testing::HasSubstr("checkpoint step-000000005 cannot be used: "),
                                 ::testing::HasSubstr(words),
                                 ::testing::HasSubstr("; falling back to step-000000004")));
  }
  void expect_newer() {
    const FoundCheckpoint found = newest_checkpoint(fs, kTwoDir);
    EXPECT_EQ(found.path, newer);
    EXPECT_THAT(found.warnings, ::testing::IsEmpty());
  }

  // Puts `changed` in place of the file's bytes, expects the older checkpoint, and puts them back.
  void expect_rejected(const std::string& name, std::string changed, const std::string& words) {
    std::swap(bytes(name), changed);
    expect_older(words);
    std::swap(bytes(name), changed);
  }

  MemoryFs fs;
  std::string older, newer;
};

// One bit of one byte is another one.
inline std::string flipped(std::string bytes, std::size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
  return bytes;
}

inline void make_directory_of(MemoryFs& fs, const std::string& file) {
  fs.remove_all(file);
  fs.make_dir(file);
}

}  // namespace varscope::testing
