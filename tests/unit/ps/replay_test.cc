// Runs of SSP and ASP are recorded, and done again under other delays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "checkpoint/format/manifest.h"
#include "common/base/record_file.h"
#include "common/files/little_endian.h"
#include "tests/support/jobs/push_cases.h"
#include "tests/support/jobs/recorded_exchange.h"
#include "tests/support/temp_dir.h"

namespace varscope {
namespace {

using testing::RecordedExchange;
using testing::RecordedResult;
using testing::run_exchange;
using testing::TempDir;

struct Mode {
  const char* name;
  StepRule rule;
};
const Mode kModes[] = {{"AspDynamic", {Consistency::asp, 0, Dealing::to_whoever_asks}},
                       {"AspStatic", {Consistency::asp, 0, Dealing::in_place}},
                       {"SspDynamic", {Consistency::ssp, 1, Dealing::to_whoever_asks}},
                       {"SspStatic", {Consistency::ssp, 2, Dealing::in_place}}};

class Replay : public ::testing::TestWithParam<Mode> {
 protected:
  RecordedExchange exchange(const TempDir& dir) const {
    return {
        .rule = GetParam().rule, .evaluates_every = 6, .run_dir = dir.path(), .saves_every = 4, .replay = {}};
  }
  static RecordedResult replayed(RecordedExchange e, std::int64_t from, std::uint64_t seed) {
    PosixFs fs;
    e.replay = recorded_run(fs, e.run_dir, Clock(from));
    e.first = from;
    e.seed = seed;
    return run_exchange(e);
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, Replay, ::testing::ValuesIn(kModes),
                         [](const auto& info) { return std::string(info.param.name); });

std::uint64_t rounds(int n) { return static_cast<std::uint64_t>(testing::proof_rounds(n)); }

TEST_P(Replay, ReadsWhatTheRunHasReadWhateverTheDelays) {
  for (std::uint64_t seed = 1; seed <= rounds(2); ++seed) {
    SCOPED_TRACE(seed);
    const TempDir dir;
    RecordedExchange e = exchange(dir);
    e.seed = seed;
    const RecordedResult run = run_exchange(e);
    ASSERT_EQ(run.error, "");
    ASSERT_FALSE(run.saved.empty());
    for (std::uint64_t other = 10; other < 12; ++other) {
      e.most_delay = other == 10 ? 60 : 2;
      const RecordedResult again = replayed(e, 0, seed * 100 + other);
      ASSERT_EQ(again.error, "");
      EXPECT_EQ(again.reads, run.reads);
      EXPECT_EQ(again.hash, run.hash);
      EXPECT_TRUE(again.saved.empty());
    }
  }
}

// Also where one is late, and the others could be at the next step.
TEST_P(Replay, AllReadTheSameAtAnEvaluation) {
  for (std::uint64_t seed = 1; seed <= rounds(6); ++seed) {
    const TempDir dir;
    RecordedExchange e = exchange(dir);
    e.saves_every = 0;
    e.evaluates_every = 3;
    e.seed = seed;
    const RecordedResult run = run_exchange(e);
    ASSERT_EQ(run.error, "");
    ASSERT_EQ(run.evaluated.size(), 4U);
    for (const auto& [step, digests] : run.evaluated)
      EXPECT_EQ(digests.size(), 1U) << "seed " << seed << ", step " << step;
  }
}

// Two runs are not the same by themselves: else the test above would say nothing.
TEST_P(Replay, OfNothingARunIsAnother) {
  const TempDir a, b;
  RecordedExchange e = exchange(a);
  const RecordedResult one = run_exchange(e);
  e.run_dir = b.path();
  e.seed = 77;
  EXPECT_NE(run_exchange(e).hash, one.hash);
}

TEST_P(Replay, BeginsAtAnyCheckpointOfTheRun) {
  const TempDir dir;
  const RecordedExchange e = exchange(dir);
  const RecordedResult run = run_exchange(e);
  ASSERT_EQ(run.error, "");
  PosixFs fs;
  std::vector<Clock> steps{Clock(0)};
  for (const std::int64_t s : run.saved) {
    if (s < e.steps) steps.emplace_back(s);
  }
  ASSERT_EQ(replayable_steps(fs, dir.path()), steps);
  for (const std::int64_t from : run.saved) {
    SCOPED_TRACE(from);
    const RecordedResult again = replayed(e, from, 5 + static_cast<std::uint64_t>(from));
    ASSERT_EQ(again.error, "");
    EXPECT_EQ(again.hash, run.hash);
    ASSERT_LE(again.reads.size(), run.reads.size());
    EXPECT_TRUE(std::equal(again.reads.rbegin(), again.reads.rend(), run.reads.rbegin()));
  }
}

TEST_P(Replay, GoesOnWithTheRecordOfAResumedRun) {
  const TempDir dir;
  RecordedExchange e = exchange(dir);
  const RecordedResult run = run_exchange(e);
  ASSERT_EQ(run.error, "");
  const std::int64_t middle = run.saved.front();
  for (const std::int64_t s : run.saved) {
    if (s > middle) std::filesystem::remove_all(dir / ("checkpoints/" + step_name(s)));
  }
  e.first = middle;
  e.seed = 9;
  const RecordedResult resumed = run_exchange(e);
  ASSERT_EQ(resumed.error, "");
  EXPECT_NE(resumed.hash, run.hash);
  EXPECT_EQ(replayed(e, middle, 31).hash, resumed.hash);
  // From the start it is the first run, as far as it led to what was resumed.
  PosixFs fs;
  EXPECT_EQ(recorded_run(fs, dir.path(), Clock(0)).last, Clock(middle));
  EXPECT_EQ(replayed(e, 0, 32).error, "");
}

std::vector<std::string> records_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  RecordReader reader(
      [&](std::span<std::byte> memory) {
        in.read(reinterpret_cast<char*>(memory.data()), static_cast<std::streamsize>(memory.size()));
        return static_cast<std::size_t>(in.gcount());
      },
      path);
  std::vector<std::string> records;
  for (std::string record; reader.next(record);) records.push_back(record);
  return records;
}

// The first two pushes in a row that a unit had from two workers, in the other order. True where there were
// such.
bool exchange_two(std::string& record) {
  if (!record.starts_with('E')) return false;
  for (std::size_t at = 1; at + 8 <= record.size();) {
    const auto n = get_le<std::uint32_t>(record, at + 4);
    at += 8;
    for (std::uint32_t i = 0; i + 1 < n; ++i) {
      const auto a = get_le<std::uint16_t>(record, at + 2 * i),
                 b = get_le<std::uint16_t>(record, at + 2 * i + 2);
      const RecordEvent first = RecordEvent::decoded(a), second = RecordEvent::decoded(b);
      if (first.what != RecordEvent::What::applied || second.what != RecordEvent::What::applied ||
          first.worker == second.worker)
        continue;
      std::string swapped;
      put_le(swapped, b);
      put_le(swapped, a);
      record.replace(at + 2 * i, 4, swapped);
      return true;
    }
    at += 2 * n;
  }
  return false;
}

TEST(ReplayOfAnotherRecord, IsFoundOutAtTheNextCut) {
  const TempDir dir;
  RecordedExchange e{.rule = kModes[0].rule,
                     .n_servers = 1,
                     .n_workers = 4,
                     .run_dir = dir.path(),
                     .saves_every = 6,
                     .replay = {}};
  ASSERT_EQ(run_exchange(e).error, "");
  PosixFs fs;
  const std::string path = segment_path(events_dir(dir.path(), ServerId(0)), Clock(0));
  std::vector<std::string> records = records_of(path);
  ASSERT_TRUE(std::ranges::any_of(records, exchange_two)) << "no two pushes in a row: choose another seed";
  std::string bytes;
  for (const std::string& record : records) append_record(bytes, record);
  std::ofstream(path, std::ios::binary) << bytes;
  e.replay = recorded_run(fs, dir.path(), Clock(0));
  ASSERT_TRUE(e.replay->compared.contains(6));
  EXPECT_THAT(run_exchange(e).error,
              ::testing::ContainsRegex(
                  "server 0, (bucket [0-9]+ \\(.*\\), chunk [0-9]+|table \"rows/table\"), event "
                  "[0-9]+: the values differ from the recorded run's after step 6; the program"));
}

// As kills leave it: each file ends somewhere, most often in the middle of a record.
TEST(TornRecord, IsReplayedAsFarAsItGoesAndThenToAnEnd) {
  std::mt19937_64 random(4);
  for (int round = 0; round < static_cast<int>(rounds(8)); ++round) {
    SCOPED_TRACE(round);
    const TempDir dir;
    RecordedExchange e{.rule = kModes[round % 4].rule, .run_dir = dir.path(), .saves_every = 5, .replay = {}};
    const RecordedResult run = run_exchange(e);
    ASSERT_EQ(run.error, "");
    PosixFs fs;
    for (ServerId s : IdRange<ServerId>(e.n_servers)) {
      const std::string events = events_dir(dir.path(), s);
      const Clock newest = list_segments(fs, events).back();
      const std::string path = segment_path(events, newest);
      const auto size = std::filesystem::file_size(path);
      std::filesystem::resize_file(path, size - random() % (size / 2));
    }
    e.replay = recorded_run(fs, dir.path(), Clock(0));
    e.seed = 40 + static_cast<std::uint64_t>(round);
    const RecordedResult again = run_exchange(e);
    ASSERT_EQ(again.error, "");
    ASSERT_EQ(again.reads.size(), run.reads.size());
    const auto per_step = static_cast<std::ptrdiff_t>(e.rule.is_dynamic() ? e.n_leaves : e.n_workers);
    const std::ptrdiff_t n_same = *e.replay->compared.rbegin() * per_step;
    EXPECT_TRUE(std::equal(run.reads.begin(), run.reads.begin() + n_same, again.reads.begin()));
  }
}

}  // namespace
}  // namespace varscope
