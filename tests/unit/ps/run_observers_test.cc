#include "ps/observe/run_observers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::thrown;

// Writes down what it hears.
class Scribe final : public RunObserver {
 public:
  Scribe(std::string name, std::vector<std::string>& heard) : name_(std::move(name)), heard_(heard) {}
  void on_step(const StepSummary& step) override { note(fmt::format("step {}", step.clock.value)); }
  void on_epoch(const EpochSummary& epoch) override { note(fmt::format("epoch {}", epoch.epoch)); }
  void on_eval(const EvalSummary& eval) override { note(fmt::format("eval {}", eval.clock.value)); }
  void on_checkpoint(const CheckpointSummary& made) override { note("checkpoint " + made.path); }
  void on_checkpoint_failed(Clock clock, const std::string& why) override {
    note(fmt::format("failed {} {}", clock.value, why));
  }
  void on_warning(const std::string& what) override { note("warning " + what); }
  void on_request(const std::string& what) override { note("request " + what); }
  void on_consistency(const ConsistencySummary& summary) override {
    note(fmt::format("consistency {}", summary.clock.value));
  }
  void on_note(const std::string& what) override { note("note " + what); }
  void on_finish(const FinishSummary& finish) override { note(fmt::format("finish {}", finish.clock.value)); }

 private:
  void note(const std::string& what) { heard_.push_back(name_ + " " + what); }
  std::string name_;
  std::vector<std::string>& heard_;
};

class FullDisk final : public RunObserver {
  void on_step(const StepSummary&) override { fail(ErrorKind::io, "no space left"); }
};

TEST(RunObservers, EachHearsEverythingInTheOrderOfTheirAdding) {
  std::vector<std::string> heard;
  Scribe terminal("terminal", heard), file("file", heard);
  RunObservers all;
  all.add(terminal);
  all.add(file);
  RunObserver& observer = all;
  observer.on_step({Clock(1), 1, {}, {}});
  observer.on_epoch({Clock(1), 7, {}});
  observer.on_eval({Clock(2), 1, {}});
  observer.on_checkpoint({Clock(3), "dir"});
  observer.on_checkpoint_failed(Clock(4), "late");
  observer.on_warning("old");
  observer.on_request("stop");
  observer.on_consistency({.clock = Clock(6), .rule = {}, .all = {}, .servers = {}, .workers = {}});
  observer.on_note("late");
  observer.on_finish({Clock(5), {}, {}});
  EXPECT_THAT(
      heard,
      ElementsAre("terminal step 1", "file step 1", "terminal epoch 7", "file epoch 7", "terminal eval 2",
                  "file eval 2", "terminal checkpoint dir", "file checkpoint dir", "terminal failed 4 late",
                  "file failed 4 late", "terminal warning old", "file warning old", "terminal request stop",
                  "file request stop", "terminal consistency 6", "file consistency 6", "terminal note late",
                  "file note late", "terminal finish 5", "file finish 5"));
}

TEST(RunObservers, NobodyNeedListen) {
  RunObservers none;
  none.on_step({Clock(1), 1, {}, {}});
  none.on_finish({Clock(1), {}, {}});
}

TEST(RunObservers, WhatOneThrowsReachesTheCoordinator) {
  std::vector<std::string> heard;
  Scribe before("before", heard), after("after", heard);
  FullDisk full;
  RunObservers all;
  all.add(before);
  all.add(full);
  all.add(after);
  EXPECT_EQ(thrown([&] { all.on_step({Clock(1), 1, {}, {}}); }), "io: no space left");
  EXPECT_THAT(heard, ElementsAre("before step 1"));
}

}  // namespace
}  // namespace varscope
