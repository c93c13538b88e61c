#include "launch/observe/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/event_reader.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::records_by_the_rules;
using testing::slurp;
using testing::spit;
using testing::TempDir;

std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir))
    names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

// The record that is written and what went wrong with it.
std::string write_one(const std::string& dir, const std::string& record) {
  EventFile file(dir, "n1");
  file.write(record);
  file.finish();
  return file.take_problem();
}

TEST(EventFile, HoldsWhatWasWrittenInOrder) {
  TempDir dir;
  std::vector<std::string> records;
  {
    EventFile file(dir / "a/b", "n1");
    for (int i = 0; i < 1000; ++i) {
      records.push_back("event " + std::to_string(i));
      file.write(records.back());
    }
    file.finish();
    EXPECT_EQ(file.take_problem(), "");
    file.write("too late");
  }
  const std::vector<std::string> names = names_in(dir / "a/b");
  ASSERT_EQ(names.size(), 1U);
  EXPECT_EQ(records_by_the_rules(slurp(dir / ("a/b/" + names[0]))), records);
  ASSERT_THAT(names[0], ::testing::MatchesRegex("events\\.out\\.tfevents\\.[0-9]+\\.n1"));
  EXPECT_LT(std::abs(std::stol(names[0].substr(20)) - std::time(nullptr)), 100);
}

// Also where two starts fall into one second, and where the clock of another host was ahead.
TEST(EventFile, IsNamedAfterAllThatAreThere) {
  TempDir dir;
  std::filesystem::create_directories(dir / "d");
  spit(dir / "d/events.out.tfevents.9999999990.zebra", "");
  spit(dir / "d/events.out.tfevents.no-number", "");
  spit(dir / "d/other", "");
  EXPECT_EQ(write_one(dir / "d", "x"), "");
  EXPECT_EQ(write_one(dir / "d", "y"), "");
  EXPECT_THAT(names_in(dir / "d"),
              ElementsAre("events.out.tfevents.9999999990.zebra", "events.out.tfevents.9999999991.n1",
                          "events.out.tfevents.9999999992.n1", "events.out.tfevents.no-number", "other"));
}

TEST(EventFile, ThatCannotBeMadeIsOneProblem) {
  TempDir dir;
  spit(dir / "plain", "no directory");
  EventFile file(dir / "plain", "n1");
  for (int i = 0; i < 100; ++i) file.write("x");
  file.finish();
  EXPECT_THAT(
      file.take_problem(),
      ::testing::AllOf(HasSubstr("cannot write " + (dir / "plain") + "/events.out.tfevents."),
                       HasSubstr(": Not a directory; training goes on without TensorBoard's events; make "
                                 "room for them, or set output.tensorboard to false")));
  EXPECT_EQ(file.take_problem(), "");
}

// As ulimit -f has it: the file keeps whole records, and takes more when there is room again.
TEST(EventFile, KeepsWholeRecordsWhereThereIsNoRoom) {
  TempDir dir;
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old = signal(SIGXFSZ, SIG_IGN);
  struct rlimit low = before;
  low.rlim_cur = 100;
  std::string problem;
  {
    EventFile file(dir / "d", "n1");
    file.write("fits");
    ASSERT_TRUE([&] {
      for (int i = 0; i < 1000; ++i) {
        std::error_code error;
        if (std::filesystem::exists(dir / "d", error)) {
          const auto names = names_in(dir / "d");
          if (!names.empty() && std::filesystem::file_size(dir / ("d/" + names[0])) == 20) return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      return false;
    }());
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
    file.write(std::string(500, 'x'));
    for (int i = 0; i < 1000 && problem.empty(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      problem = file.take_problem();
    }
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    file.write("fits again");
    file.finish();
    EXPECT_EQ(file.take_problem(), "") << "told once";
  }
  signal(SIGXFSZ, old);
  EXPECT_THAT(problem,
              HasSubstr(": File too large; training goes on, and TensorBoard's events are lost until there "
                        "is room"));
  EXPECT_THAT(records_by_the_rules(slurp(dir / ("d/" + names_in(dir / "d").at(0)))),
              ElementsAre("fits", "fits again"));
}

TEST(EventFile, GivesUpWhatTheDiskDoesNotTake) {
  TempDir dir;
  std::filesystem::create_directories(dir / "d");
  EventFile file(dir / "d", "n1");
  // The first megabytes are written at once; the thread then pauses, and the rest waits.
  const std::string big(EventFile::kMaxWaitingBytes / 4 + 1, 'x');
  for (int i = 0; i < 40; ++i) file.write(big);
  EXPECT_THAT(
      file.take_problem(),
      HasSubstr((dir / "d") + " is so slow that TensorBoard's events are given up: 64 MiB of them wait"));
  file.finish();
  EXPECT_EQ(file.take_problem(), "");
}

}  // namespace
}  // namespace varscope
