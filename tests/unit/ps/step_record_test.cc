// What is recorded of a run, and how it is read.
#include "ps/record/step_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "checkpoint/format/manifest.h"
#include "ps/record/recorded_order.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::thrown;
using What = RecordEvent::What;

class StepRecordTest : public ::testing::Test {
 protected:
  SegmentWriter::Parts parts(int server, const std::string& start = "start") {
    RecordHeader header{.program_version = "1",
                        .start_id = start,
                        .server = server,
                        .servers = 1,
                        .workers = 3,
                        .logical_workers = 4,
                        .rule = {Consistency::asp, 0, Dealing::to_whoever_asks},
                        .n_units = server < 0 ? 0 : 2};
    return {fs, server < 0 ? tickets_dir(dir.path()) : events_dir(dir.path(), ServerId(server)),
            dir / "checkpoints", header, [this](const std::string& what) { told += what; }};
  }
  // What is recorded of a unit, as far as it goes: "applied 1", "cut".
  std::vector<std::string> events(RecordedOrder& order, int unit) {
    std::vector<std::string> all;
    while (const auto event = order.next(unit)) {
      constexpr const char* kNames[] = {"applied", "answered", "drained", "redrained", "flushed", "cut"};
      const std::string name = kNames[static_cast<int>(event->what)];
      if (event->what == What::cut) {
        all.push_back(fmt::format("cut {}", order.pass_cut(unit, 7, "unit").step.value));
      } else {
        all.push_back(fmt::format("{} {}", name, event->worker.value));
        order.advance(unit);
      }
    }
    return all;
  }
  std::string segment(std::int64_t from) const {
    return segment_path(events_dir(dir.path(), ServerId(0)), Clock(from));
  }
  std::vector<Clock> segments() { return list_segments(fs, events_dir(dir.path(), ServerId(0))); }

  TempDir dir;
  PosixFs fs;
  std::string told;
};

TEST_F(StepRecordTest, EachUnitHasItsEventsInTheirOrder) {
  {
    StepRecord record(parts(0), Clock(0));
    record.drained(0, WorkerId(2));
    record.applied(1, WorkerId(0));
    record.applied(0, WorkerId(1));
    record.write();
    record.answered(0, WorkerId(1));
  }
  RecordedOrder order(fs, dir.path(), {Clock(0)});
  EXPECT_THAT(events(order, 0), ElementsAre("drained 2", "applied 1", "answered 1"));
  EXPECT_THAT(events(order, 1), ElementsAre("applied 0"));
  EXPECT_EQ(order.why_ended(), "");
  EXPECT_EQ(order.header().workers, 3);
}

TEST_F(StepRecordTest, IsWrittenAfterAFewMilliseconds) {
  StepRecord record(parts(0), Clock(0));
  const auto empty = std::filesystem::file_size(segment(0));
  record.applied(0, WorkerId(1));
  while (std::filesystem::file_size(segment(0)) == empty) record.tick();  // or the test's time is over
  RecordedOrder order(fs, dir.path(), {Clock(0)});
  EXPECT_THAT(events(order, 0), ElementsAre("applied 1"));
}

TEST_F(StepRecordTest, ACutBeginsASegmentAndWhatWasReadAtItIsInBoth) {
  {
    StepRecord record(parts(0), Clock(0));
    record.applied(0, WorkerId(1));
    record.answered(0, WorkerId(1));
    record.drained(0, WorkerId(2));
    record.cut(Clock(3), std::vector<std::uint64_t>{7, 8});
    record.cut(Clock(3), std::vector<std::uint64_t>{9, 9});  // tried again: nothing has happened since
    record.applied(0, WorkerId(0));
  }
  EXPECT_EQ(segments(), (std::vector{Clock(0), Clock(3)}));
  RecordedOrder all(fs, dir.path(), {Clock(0)});
  EXPECT_THAT(events(all, 0), ElementsAre("applied 1", "answered 1", "drained 2", "cut 3", "applied 0"));
  RecordedOrder second(fs, dir.path(), {Clock(3)});
  EXPECT_THAT(events(second, 0), ElementsAre("drained 2", "applied 0"));
}

TEST_F(StepRecordTest, HashesAreComparedWhereAllServersHaveTheCut) {
  {
    StepRecord record(parts(0), Clock(0));
    record.applied(1, WorkerId(1));
    record.cut(Clock(3), std::vector<std::uint64_t>{7, 8});
  }
  RecordedOrder compared(fs, dir.path(), {.from = Clock(0), .compared = {3}});
  EXPECT_EQ(compared.next(0)->what, What::cut);
  EXPECT_EQ(compared.pass_cut(0, 7, "bucket 0").difference, "");
  ASSERT_EQ(compared.next(1)->what, What::applied);
  compared.advance(1);
  ASSERT_EQ(compared.next(1)->what, What::cut);
  EXPECT_EQ(
      compared.pass_cut(1, 7, "bucket 1 (hidden), chunk 0").difference,
      "server 0, bucket 1 (hidden), chunk 0, event 2: the values differ from the recorded run's after step 3");
  RecordedOrder other(fs, dir.path(), {.from = Clock(0)});
  ASSERT_EQ(other.next(0)->what, What::cut);
  EXPECT_EQ(other.pass_cut(0, 1, "bucket 0").difference, "");
}

// A push does not always know what follows it: then what it is answered may be too old, or for nobody.
TEST_F(StepRecordTest, OfSeveralAnswersTheLastBeforeAPushIsUsed) {
  {
    StepRecord record(parts(0), Clock(0));
    const WorkerId w(1);
    record.drained(0, w);
    record.applied(0, w);
    record.answered(0, w);
    record.applied(0, WorkerId(2));
    record.answered(0, w);
    record.applied(0, w);
    record.answered(0, w);
    record.drained(0, w);
    record.applied(0, w);
    record.answered(0, w);
  }
  RecordedOrder order(fs, dir.path(), {Clock(0)});
  std::vector<bool> used, drains;
  while (const auto event = order.next(0)) {
    if (event->what == What::answered) used.push_back(order.is_used(0));
    order.advance(0);
    if (event->what == What::applied && event->worker == WorkerId(1))
      drains.push_back(order.ends_with_drain(0, WorkerId(1)));
  }
  EXPECT_THAT(used, ElementsAre(false, true, false, true));
  EXPECT_THAT(drains, ElementsAre(false, true, false));
}

TEST_F(StepRecordTest, ATornTailIsCutOffAndSaid) {
  {
    StepRecord record(parts(0), Clock(0));
    record.applied(0, WorkerId(1));
    record.write();
    record.applied(0, WorkerId(2));
  }
  const auto size = std::filesystem::file_size(segment(0));
  for (const std::uintmax_t n : {1U, 5U, 20U}) {
    std::filesystem::resize_file(segment(0), size - n);
    RecordedOrder order(fs, dir.path(), {Clock(0)});
    EXPECT_THAT(events(order, 0), ElementsAre("applied 1"));
    EXPECT_THAT(order.why_ended(), HasSubstr("from-000000000.events: record 2 at byte "));
    EXPECT_THAT(order.why_ended(), HasSubstr("is cut off"));
  }
}

TEST_F(StepRecordTest, WhatMakesNoSenseEndsTheRecord) {
  for (const std::string& senseless :
       {std::string("E\x09\0\0\0\x01\0\0\0\0\0", 11), std::string("E\0\0\0\0\xff\xff\xff\xff", 9),
        std::string("E\0\0\0\0\x01\0\0\0\x07\0", 11), std::string("E\0", 2), std::string("C123"),
        std::string("x"), std::string()}) {
    {
      SegmentWriter writer(parts(0), Clock(0));
      std::string good = "E";
      good += std::string("\0\0\0\0\x01\0\0\0\x01\0", 10);
      writer.append(good);
      writer.append(senseless);
      writer.append(good);
    }
    RecordedOrder order(fs, dir.path(), {Clock(0)});
    EXPECT_THAT(events(order, 0), ElementsAre("applied 1"));
    EXPECT_THAT(order.why_ended(), HasSubstr("makes no sense"));
  }
}

TEST_F(StepRecordTest, AHeaderWhoseNumbersMakeNoSenseIsRefusedByItsName) {
  for (int RecordHeader::*number :
       {&RecordHeader::servers, &RecordHeader::workers, &RecordHeader::logical_workers}) {
    for (const int wrong : {-1, 1 << 30}) {
      SegmentWriter::Parts bad = parts(-1);
      bad.header.*number = wrong;
      { SegmentWriter writer(bad, Clock(0)); }
      EXPECT_THAT(thrown([&] { RecordedTickets(fs, dir.path(), Clock(0)); }),
                  AllOf(HasSubstr("the header of "), HasSubstr("tickets/from-000000000.events has numbers "),
                        HasSubstr("that make no sense: step 0, ")));
    }
  }
}

TEST_F(StepRecordTest, ASegmentOfOtherRanksThanTheOneBeforeEndsTheRecord) {
  for (int RecordHeader::*number : {&RecordHeader::workers, &RecordHeader::servers}) {
    SegmentWriter::Parts of_other = parts(0);
    of_other.header.*number += 5;
    {
      StepRecord record(parts(0), Clock(0));
      record.applied(0, WorkerId(1));
      record.cut(Clock(3), std::vector<std::uint64_t>{7, 8});
    }
    { StepRecord record(of_other, Clock(3)); }
    RecordedOrder order(fs, dir.path(), {Clock(0)});
    EXPECT_THAT(events(order, 0), ElementsAre("applied 1", "cut 3"));
    EXPECT_THAT(order.why_ended(),
                AllOf(HasSubstr(
                    "from-000000003.events has other numbers of ranks or units than the segment before")));
  }
}

// Whole by their checksums, and anything else inside.
TEST_F(StepRecordTest, AnyBytesAreReadToAnEnd) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    for (const int server : {0, -1}) {
      SegmentWriter writer(parts(server), Clock(0));
      for (int i = 0; i < 4; ++i) {
        std::string record(1, "EECDO?"[random() % 6]);
        for (std::size_t n = random() % 30; n > 0; --n)
          record += static_cast<char>(random() % 3 == 0 ? random() % 256 : random() % 3);
        writer.append(record);
      }
      writer.write();
    }
    RecordedOrder order(fs, dir.path(), {Clock(0)});
    for (int unit = 0; unit < 2; ++unit) {
      for (const std::string& event : events(order, unit)) EXPECT_FALSE(event.empty());
    }
    const RecordedTickets tickets(fs, dir.path(), Clock(0));
    EXPECT_LE(tickets.n_dealt(), 4);
    EXPECT_GE(tickets.last(), Clock(0));
  }
}

TEST_F(StepRecordTest, AStartReplacesWhatFollowsIt) {
  {
    StepRecord record(parts(0, "first"), Clock(0));
    record.applied(0, WorkerId(1));
    for (const int step : {3, 6}) record.cut(Clock(step), std::vector<std::uint64_t>{7, 8});
  }
  {
    StepRecord record(parts(0, "second"), Clock(3));
    record.applied(0, WorkerId(2));
  }
  EXPECT_EQ(segments(), (std::vector{Clock(0), Clock(3)}));
  // What led to the start is of another one: it does not go on with this.
  RecordedOrder order(fs, dir.path(), {Clock(0)});
  EXPECT_THAT(events(order, 0), ElementsAre("applied 1", "cut 3"));
}

TEST_F(StepRecordTest, SegmentsThatAreOlderThanEveryCheckpointGo) {
  StepRecord record(parts(0), Clock(0));
  const std::vector<std::uint64_t> hashes{7, 8};
  record.cut(Clock(3), hashes);
  EXPECT_EQ(segments(), (std::vector{Clock(0), Clock(3)}));  // its checkpoint is still being written
  fs.make_dirs(dir / ("checkpoints/" + step_name(3)));
  record.cut(Clock(6), hashes);
  EXPECT_EQ(segments(), (std::vector{Clock(0), Clock(3), Clock(6)}));  // the start needs no checkpoint
  fs.make_dirs(dir / ("checkpoints/" + step_name(6)));
  fs.remove_all(dir / ("checkpoints/" + step_name(3)));
  record.cut(Clock(9), hashes);
  EXPECT_EQ(segments(), (std::vector{Clock(6), Clock(9)}));
}

// Only some ranks have begun a segment at step 3, whose save was given up: all keep the start as long.
TEST_F(StepRecordTest, TheStartIsKeptUntilTheFirstCheckpointThatThereWasGoes) {
  StepRecord record(parts(0), Clock(0));
  const std::vector<std::uint64_t> hashes{7, 8};
  record.cut(Clock(3), hashes);
  fs.make_dirs(dir / ("checkpoints/" + step_name(6)));
  record.cut(Clock(6), hashes);
  record.cut(Clock(9), hashes);
  EXPECT_EQ(segments(), (std::vector{Clock(0), Clock(3), Clock(6), Clock(9)}));
  RecordedOrder order(fs, dir.path(), {Clock(0)});
  EXPECT_THAT(events(order, 0), ElementsAre("cut 3", "cut 6", "cut 9"));
  fs.make_dirs(dir / ("checkpoints/" + step_name(9)));
  fs.remove_all(dir / ("checkpoints/" + step_name(6)));
  record.cut(Clock(12), hashes);
  EXPECT_EQ(segments(), (std::vector{Clock(9), Clock(12)}));
}

TEST_F(StepRecordTest, WithoutRoomTheRunGoesOnAndIsToldSo) {
  StepRecord record(parts(0), Clock(0));
  fs.remove_all(events_dir(dir.path(), ServerId(0)));
  record.applied(0, WorkerId(1));
  record.cut(Clock(3), std::vector<std::uint64_t>{7, 8});
  EXPECT_THAT(told,
              HasSubstr("the record of this run (cluster.record) ends here, and the run goes on without it: "
                        "cannot create "));
  told.clear();
  record.applied(0, WorkerId(1));
  record.cut(Clock(6), std::vector<std::uint64_t>{7, 8});
  EXPECT_EQ(told, "");
}

TEST_F(StepRecordTest, TicketsAreThoseOfTheWorkersInTheirOrder) {
  {
    TicketRecord record(parts(-1), Clock(0));
    record.opened(Clock(1), TicketRecord::Drained::no);
    for (int ticket = 0; ticket < 4; ++ticket) record.dealt(ticket, WorkerId(ticket % 2));
    record.opened(Clock(2), TicketRecord::Drained::yes);
    record.dealt(4, WorkerId(2));
    record.begin(Clock(2), "save-2");
    record.opened(Clock(3), TicketRecord::Drained::no);
  }
  const RecordedTickets tickets(fs, dir.path(), Clock(0));
  EXPECT_EQ(tickets.last(), Clock(3));
  EXPECT_EQ(tickets.n_dealt(), 5);
  EXPECT_EQ(tickets.of_workers().at(0), (std::deque<std::int64_t>{0, 2}));
  EXPECT_EQ(tickets.of_workers().at(2), (std::deque<std::int64_t>{4}));
  EXPECT_FALSE(tickets.is_drained(Clock(1)));
  EXPECT_TRUE(tickets.is_drained(Clock(2)));
  const auto id_of = [&](std::int64_t from) {
    return read_header(fs, segment_path(tickets_dir(dir.path()), Clock(from))).checkpoint_id;
  };
  EXPECT_EQ(id_of(0), "");
  EXPECT_EQ(id_of(2), "save-2");
}

TEST_F(StepRecordTest, ARunWithoutARecordIsNamed) {
  EXPECT_EQ(thrown([&] { replayable_steps(fs, dir.path()); }),
            "checkpoint: " + dir.path() +
                " holds no record of a run to replay: only runs with cluster.record: true have one");
}

}  // namespace
}  // namespace varscope
