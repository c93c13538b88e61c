// Checkpoints of SSP and ASP: one of step T holds the tickets of steps up to T, each once, and no other,
// however far apart the workers are.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "tests/support/jobs/push_cases.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"

namespace varscope {
namespace {

using testing::asp;
using testing::check_cut;
using testing::counting_table;
using testing::expect_right;
using testing::Holding;
using testing::proof_rounds;
using testing::PushExchange;
using testing::PushResult;
using testing::run_pushes;
using testing::SlowWorker;
using testing::ssp;
using testing::TempDir;
using testing::with_rows;

PushExchange with_saves(PushExchange e, const TempDir& dir, std::int64_t every_steps) {
  std::vector<VariableSpec> all;
  for (const VariableSpec& v : e.variables.variables()) {
    if (v.scope != "large") all.push_back(v);
  }
  all.push_back(testing::make_spec("medium/weights", DType::float64, Shape{9000}));
  e.variables = VariableTable(std::move(all));
  e.checkpoint_dir = dir.path();
  e.checkpoint.every_steps = every_steps;
  e.checkpoint.keep = 100;
  e.checkpoint.when_busy = WhenBusy::queue;
  return e;
}

std::string text_of(const std::vector<std::string>& lines) {
  return lines.empty() ? "" : fmt::format("{} wrong, first: {}", lines.size(), lines.front());
}

// Returns how many cuts there were.
int expect_exact_cuts(const PushExchange& e, int n_servers, int n_workers, int n_leaves) {
  const PushResult result = run_pushes(e, n_servers, n_workers, n_leaves);
  expect_right(e, result);
  EXPECT_EQ(result.failed_saves, std::vector<std::string>{});
  EXPECT_FALSE(result.cuts.empty());
  for (const std::int64_t step : result.cuts)
    EXPECT_EQ(text_of(check_cut(e, step, n_leaves)), "") << "step " << step;
  return static_cast<int>(result.cuts.size());
}

// Before the step of the next cut is opened the last save is through: else that cut would be put off.
class EachCut {
 public:
  void join(PushExchange& e) {
    const std::int64_t every = e.checkpoint.every_steps;
    e.on_saved = [this](std::int64_t step) { saved_ = step; };
    e.may_push = [this, every](WorkerId, Clock step) {
      const std::int64_t next = step.value + 1;
      return next % every != 0 || next == every || saved_ >= next - every;
    };
  }

 private:
  std::atomic<std::int64_t> saved_ = 0;
};

TEST(PushCuts, HoldExactlyTheStepsUpToTheirOwn) {
  int n_cuts = 0;
  std::uint64_t seed = 0;
  for (int round = 0; round < proof_rounds(5); ++round) {
    for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
      for (const auto& base : {ssp(2, dealing), asp(dealing)}) {
        const TempDir dir;
        PushExchange e = with_saves(with_rows(base, 4), dir, 4);
        e.steps = testing::kMostCountedSteps;
        e.seed = ++seed;
        e.most_pauses = 300;
        if (round % 2 == 1) e.faults = {.seed = seed, .max_delay_polls = 20, .silent_rank = {}};
        EachCut each;
        each.join(e);
        SCOPED_TRACE(fmt::format("seed {}", seed));
        n_cuts += expect_exact_cuts(e, 1 + round % 3, 2 + round % 2, 4);
      }
    }
  }
  EXPECT_GE(n_cuts, proof_rounds(200));
}

// Worker 0 has pushed a step behind the cut, which waits for worker 1.
TEST(PushCuts, PushesOfLaterStepsWaitForTheCut) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    for (const int n_servers : {1, 2}) {
      const TempDir dir;
      PushExchange e = with_saves(asp(dealing), dir, 3);
      SlowWorker slow(3);
      slow.join(e);
      expect_exact_cuts(e, n_servers, 2, 2);
    }
  }
}

TEST(PushCuts, RowsOfLaterStepsWaitForTheCutWhereThereAreTablesAlone) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    const TempDir dir;
    PushExchange e = with_saves(asp(dealing), dir, 3);
    e.variables = VariableTable({counting_table("user/table", 2, 8), counting_table("item/table", 2, 1)});
    SlowWorker slow(3);
    slow.join(e);
    expect_exact_cuts(e, 2, 2, 2);
  }
}

TEST(PushCuts, AServerThatDoesNotHoldPushesBackIsFound) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    const TempDir dir;
    PushExchange e = with_saves(asp(dealing), dir, 3);
    e.holding = Holding::never;
    SlowWorker slow(9);  // it gets as far only because nothing is held
    slow.join(e);
    const PushResult result = run_pushes(e, 1, 2, 2);
    EXPECT_EQ(result.error, "");
    ASSERT_FALSE(result.cuts.empty());
    EXPECT_EQ(result.cuts[0], 3);
    EXPECT_NE(text_of(check_cut(e, 3, 2)), "");
  }
}

TEST(PushCuts, AServerThatHoldsPushesOfTheCutItselfIsFound) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    const TempDir dir;
    PushExchange e = with_saves(ssp(1, dealing), dir, 3);
    e.holding = Holding::and_of_cut;
    e.steps = 5;
    e.checkpoint.timeout_s = 0.3;
    e.checkpoint.at_end = false;
    const PushResult result = run_pushes(e, 2, 2, 2);
    EXPECT_EQ(result.error, "");
    EXPECT_EQ(result.cuts, std::vector<std::int64_t>{});
    ASSERT_EQ(result.failed_saves.size(), 1U);
    // Whether a worker has reported that step by then depends on when it heard of the next.
    EXPECT_TRUE(result.failed_saves[0].starts_with("3: no report from server 0, server 1"))
        << result.failed_saves[0];
    EXPECT_TRUE(result.failed_saves[0].ends_with(" within 0.3 s (checkpoint.timeout_s)"))
        << result.failed_saves[0];
  }
}

// A worker is too slow for a cut: nobody else waits for it for longer than that.
TEST(PushCuts, ACutThatIsGivenUpLetsGoOfWhatItHolds) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    const TempDir dir;
    PushExchange e = with_saves(asp(dealing), dir, 3);
    e.checkpoint.timeout_s = 0.5;
    e.checkpoint.max_failures = 100;
    SlowWorker slow(9);
    slow.join(e);
    const PushResult result = run_pushes(e, 2, 2, 2);
    expect_right(e, result);
    EXPECT_GE(result.reads.most_lead(), 9);
    ASSERT_FALSE(result.failed_saves.empty());
    EXPECT_EQ(result.failed_saves[0],
              "3: no report from server 0, server 1 and no step report from worker 1 within 0.5 s "
              "(checkpoint.timeout_s)");
    EXPECT_EQ(std::ranges::count(result.cuts, 3), 0);
    for (const std::int64_t step : result.cuts)
      EXPECT_EQ(text_of(check_cut(e, step, 2)), "") << "step " << step;
  }
}

// Variables of which server 0 has those that are pushed, and server 1 the others.
VariableTable apart() {
  for (int i = 0;; ++i) {
    VariableTable all({testing::make_spec(fmt::format("pushed{}/weights", i), DType::float64, Shape{500}),
                       testing::make_spec(fmt::format("kept{}/table", i), DType::float64, Shape{13},
                                          Initializer::constant(7), false)});
    const BucketPlan plan = BucketPlan::make(all, 2, ChunkRule::whole_slices);
    const auto has_one = [&](int server, bool is_pushed) {
      const std::vector<BucketId> own = plan.of_server(ServerId(server));
      return own.size() == 1 && plan[own.front()].is_pushed() == is_pushed;
    };
    if (has_one(0, true) && has_one(1, false)) return all;
  }
}

// Server 1 writes at once: its disk is full while server 0 still waits for the slow worker. Nothing is saved
// then, so nobody waits.
TEST(PushCuts, ACutThatOneServerCannotWriteLetsGoOfWhatOthersHold) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    const TempDir dir;
    PushExchange e = with_saves(asp(dealing), dir, 12);
    e.variables = apart();
    e.full_disk = ServerId(1);
    SlowWorker slow(15);
    slow.join(e);
    const PushResult result = run_pushes(e, 2, 2, 2);
    expect_right(e, result);
    EXPECT_GE(result.reads.most_lead(), 15);
    ASSERT_EQ(result.failed_saves.size(), 1U);
    EXPECT_TRUE(result.failed_saves[0].starts_with("12: ")) << result.failed_saves[0];
    EXPECT_TRUE(
        result.failed_saves[0].ends_with("No space left on device; free some space or choose another "
                                         "directory"))
        << result.failed_saves[0];
    EXPECT_EQ(result.cuts, std::vector<std::int64_t>{24}) << "nobody waits for checkpoint.timeout_s";
    EXPECT_EQ(text_of(check_cut(e, 24, 2)), "");
  }
}

TEST(PushCuts, ARunGoesOnFromOneInAnyModeOnAnyRanks) {
  struct Part {
    PushExchange mode;
    int servers, workers;
  };
  const std::vector<Part> parts{{asp(Dealing::to_whoever_asks), 2, 3},
                                {ssp(1), 1, 2},
                                {ssp(3, Dealing::to_whoever_asks), 3, 1},
                                {asp(), 2, 4}};
  const TempDir dir;
  std::int64_t last = 0;
  for (const Part& part : parts) {
    PushExchange e = with_saves(with_rows(part.mode, 4), dir, 4);
    e.first = last;
    e.steps = last + 10;
    e.most_pauses = 200;
    e.last_is_short = false;
    SCOPED_TRACE(fmt::format("from step {}", last));
    expect_exact_cuts(e, part.servers, part.workers, 4);
    last += 10;
  }
}

}  // namespace
}  // namespace varscope
