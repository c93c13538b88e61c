#include "ps/stream/stream_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <limits>

#include "ps/coordinator_state.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;

class Files final : public StreamFeed {
 public:
  std::optional<File> take() override {
    if (files.empty()) return std::nullopt;
    File file = std::move(files.front());
    files.pop_front();
    return file;
  }
  bool has_ended() const override { return ended && files.empty(); }
  Backlog backlog() const override { return {static_cast<std::int64_t>(files.size()), 0, 0}; }
  std::string name() const override { return "files"; }
  void add(const std::string& name, std::int64_t records, std::int64_t begin = 0) {
    files.push_back(
        {name, 10 * records, digest_of(name), records, begin, 1, 100.0 + static_cast<double>(records)});
  }
  std::deque<File> files;
  bool ended = false;
};

BatchSums sums(double loss, std::int64_t samples) { return {loss, 1, samples, 0}; }

TEST(StreamControl, AStepHasRecordsOfOneFileAndItsEndEndsAStep) {
  Files files;
  files.add("a", 5);
  files.add("b", 4);
  StreamControl control({files, 2, 100}, {}, Clock(10));
  EXPECT_FALSE(control.has(Clock(11)));
  const FedFile a = control.poll().value(), b = control.poll().value();
  EXPECT_FALSE(control.poll());
  EXPECT_EQ(a.first, 11);
  EXPECT_EQ(a.last(), 13);
  EXPECT_EQ(b.first, 14);
  EXPECT_EQ(b.last(), 15);
  EXPECT_EQ(a.begin_of(Clock(13)), 4);
  EXPECT_EQ(a.end_of(Clock(13)), 5);
  EXPECT_TRUE(control.has(Clock(15)));
  EXPECT_FALSE(control.has(Clock(16)));
  std::vector<std::int64_t> records;
  for (const std::int64_t step : {11, 12, 13, 14, 15}) {
    EXPECT_EQ(control.records_after(Clock(step)), control.records() + (step == 13 ? 1 : 2));
    control.complete(Clock(step), sums(1, 2));
    records.push_back(control.records());
  }
  EXPECT_THAT(records, ElementsAre(2, 4, 5, 7, 9));
}

TEST(StreamControl, ThePlaceIsThatOfTheStepThatHasEnded) {
  Files files;
  files.add("a", 5);
  files.add("b", 4);
  StreamControl control({files, 2, 100}, {}, Clock(0));
  while (control.poll()) {
  }
  EXPECT_EQ(control.cut().file, "");
  control.complete(Clock(1), sums(1, 2));
  StreamPosition p = control.cut();
  EXPECT_EQ(p.file, "a");
  EXPECT_EQ(p.learnt, 2);
  EXPECT_EQ(p.file_records, 5);
  EXPECT_EQ(p.n_bytes, 50);
  EXPECT_EQ(p.digest, digest_of("a"));
  EXPECT_EQ(p.event_time, 0) << "of files that are learnt whole";
  EXPECT_TRUE(p.is_within_file());
  control.complete(Clock(2), sums(1, 2));
  control.complete(Clock(3), sums(1, 1));
  p = control.cut();
  EXPECT_FALSE(p.is_within_file());
  EXPECT_EQ(p.files, 1);
  EXPECT_EQ(p.left_out, 1);
  EXPECT_EQ(p.event_time, 105);
}

TEST(StreamControl, GoesOnWithinAFileAndCountsItOnce) {
  Files first, second;
  first.add("a", 5);
  StreamControl before({first, 2, 100}, {}, Clock(0));
  before.poll();
  before.complete(Clock(1), sums(1, 2));
  second.add("a", 5, 2);
  StreamControl after({second, 2, 100}, before.cut(), Clock(1));
  const FedFile fed = after.poll().value();
  EXPECT_EQ(fed.first, 2);
  EXPECT_EQ(fed.begin, 2);
  EXPECT_EQ(fed.last(), 3);
  after.complete(Clock(2), sums(1, 2));
  after.complete(Clock(3), sums(1, 1));
  const StreamPosition p = after.cut();
  EXPECT_EQ(p.files, 1);
  EXPECT_EQ(p.left_out, 1);
  EXPECT_EQ(p.records, 5);
}

TEST(StreamControl, FilesWithoutRecordsArePassedInTheirTurn) {
  Files files;
  files.add("a", 0);
  files.add("b", 2);
  files.add("c", 0);
  files.add("d", 0);
  files.ended = true;
  StreamControl control({files, 2, 100}, {}, Clock(0));
  EXPECT_EQ(control.poll().value().name, "b");
  EXPECT_EQ(control.cut().file, "a");
  EXPECT_FALSE(control.poll());
  EXPECT_FALSE(control.has_ended());
  EXPECT_EQ(control.cut().file, "a") << "b comes first";
  control.complete(Clock(1), sums(1, 2));
  EXPECT_EQ(control.cut().file, "d");
  EXPECT_EQ(control.cut().files, 4);
  EXPECT_TRUE(control.has_ended());
}

TEST(StreamControl, TellsWorkersOfAFewFilesAhead) {
  Files files;
  for (int i = 0; i < 100; ++i) files.add(std::to_string(i), 2);
  StreamControl control({files, 2, 100}, {}, Clock(0));
  int told = 0;
  while (control.poll()) ++told;
  EXPECT_GE(told, 2);
  EXPECT_LE(told, 8);
  control.complete(Clock(1), sums(1, 2));
  EXPECT_TRUE(control.poll());
  EXPECT_FALSE(control.poll());
}

// Silence may follow: the last that is told is of all that came, however soon after what was told before.
TEST(StreamControl, TheLastStepOfWhatHasComeIsTold) {
  Files files;
  files.add("a", 4);
  StreamControl control({files, 1, 100, 0}, {}, Clock(0));
  control.poll();
  std::vector<bool> told;
  for (const std::int64_t step : {1, 2, 3, 4}) {
    if (step == 4) files.add("b", 1);  // but there is more
    control.complete(Clock(step), sums(1, 1));
    told.push_back(control.due_summary(Clock(step)).has_value());
  }
  EXPECT_TRUE(told.front());
  EXPECT_FALSE(told.back());
  control.poll();
  control.complete(Clock(5), sums(1, 1));
  const auto last = control.due_summary(Clock(5));
  ASSERT_TRUE(last);
  EXPECT_EQ(last->records, 5);
  EXPECT_EQ(last->files_waiting, 0);
}

TEST(StreamControl, AStepOfNoFileIsAnError) {
  Files files;
  files.add("a", 2);
  StreamControl control({files, 2, 100}, {}, Clock(0));
  control.poll();
  EXPECT_THAT_THROWN(control.complete(Clock(2), sums(1, 2)), ErrorKind::protocol,
                     {"step 2 has ended, which is of no file"});
}

// A reference that keeps every step.
struct Reference {
  std::vector<BatchSums> steps;
  BatchSums window(std::int64_t n) const {
    std::size_t begin = steps.size();
    std::int64_t have = 0;
    while (begin > 0 && have < n) have += steps[--begin].samples;
    BatchSums all;
    for (; begin < steps.size(); ++begin) all += steps[begin];
    return all;
  }
};

TEST(ProgressiveLoss, IsThatOfAReferenceToTheBitOverSavesToo) {
  for (const std::int64_t window : {1, 7, 100}) {
    ProgressiveLoss loss;
    Reference reference;
    BatchSums total, since;
    for (int i = 0; i < 60; ++i) {
      const BatchSums step = sums(std::sin(i) + 1.1, i % 5 + 1);
      loss.add(step, window);
      reference.steps.push_back(step);
      total += step;
      since += step;
      EXPECT_EQ(loss.total.loss, total.loss);
      EXPECT_EQ(loss.since_save.loss, since.loss);
      EXPECT_EQ(loss.window().loss, reference.window(window).loss) << i;
      EXPECT_EQ(loss.window().samples, reference.window(window).samples) << i;
      if (i % 11 != 0) continue;
      StreamPosition saved;
      saved.file = "a";
      saved.progressive = loss;
      loss = stream_position_from_json(to_json_line(saved)).progressive;
      loss.since_save = since = {};
    }
  }
}

TEST(StreamPosition, IsALineOfTheCoordinatorsStateBesideEarlyStopping) {
  CoordinatorState state;
  state.dataset_size = 3;
  state.run = "22 what was compared\n";
  state.stop = StopState{};
  StreamPosition position;
  position.file = "caf\xc3\xa9 \"1\"\n.csv";
  position.learnt = 3;
  position.file_records = 4;
  position.n_bytes = 12;
  position.digest = digest_of("x");
  position.event_time = 1700000000.25;
  position.progressive.total = {std::nan(""), std::numeric_limits<double>::infinity(), 3, 0.1};
  state.stream = position;
  const CoordinatorState read = from_manifest_text(to_manifest_text(state));
  EXPECT_EQ(read.run, state.run);
  EXPECT_TRUE(read.stop);
  ASSERT_TRUE(read.stream);
  EXPECT_EQ(read.stream->file, position.file);
  EXPECT_EQ(read.stream->digest, position.digest);
  EXPECT_EQ(read.stream->event_time, position.event_time);
  EXPECT_TRUE(std::isnan(read.stream->progressive.total.loss));
  EXPECT_EQ(read.stream->progressive.total.weight, 0.1);
}

// train.on_nan: warn goes on with such a sum, and so does who resumes.
TEST(CoordinatorState, ASumThatIsNotFiniteIsReadBack) {
  using Limits = std::numeric_limits<double>;
  for (const double loss : {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::infinity(),
                            -Limits::infinity(), Limits::denorm_min(), -0.1, Limits::max()}) {
    CoordinatorState state{{loss, 2, 3}, 4, 5, 6, "what is known of the run\n"};
    state.stream = StreamPosition{};
    state.stop = StopState{};
    state.stop->best = loss;
    const CoordinatorState read = from_manifest_text(to_manifest_text(state));
    for (const double now : {read.epoch.loss, read.stop->best})
      EXPECT_TRUE(std::isnan(loss) ? std::isnan(now) : now == loss) << loss << " " << now;
    EXPECT_EQ(read.epoch.samples, 3);
    EXPECT_EQ(read.seed, 6);
    EXPECT_EQ(read.run, state.run);
    EXPECT_TRUE(read.stream);
  }
}

TEST(StreamPosition, WhatIsNoPlaceIsToldSo) {
  for (const char* text : {"#stream \n", "#stream {}\n", "#stream {\"file\": 3}\n",
                           "#stream {\"file\":\"a\",\"bytes\":1,"
                           "\"xxh3\":\"00\"}\n"}) {
    std::string line = text;
    EXPECT_THAT_THROWN(take_stream_line(line), ErrorKind::data,
                       {"the place in the stream in the checkpoint cannot be read"});
  }
  std::string other = "22 serialization\nweight: 1\n";
  EXPECT_FALSE(take_stream_line(other));
  EXPECT_EQ(other, "22 serialization\nweight: 1\n");
  std::string none;
  EXPECT_FALSE(take_stream_line(none));
}

}  // namespace
}  // namespace varscope
