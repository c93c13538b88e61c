// SSP and ASP over threads of one process: gradients that count show what every value holds that is read.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/support/jobs/push_cases.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::asp;
using testing::check_read;
using testing::count_tickets;
using testing::CountedRead;
using testing::counting_table;
using testing::expect_right;
using testing::make_spec;
using testing::proof_rounds;
using testing::PushExchange;
using testing::PushResult;
using testing::ReadFindings;
using testing::run_pushes;
using testing::SlowWorker;
using testing::ssp;
using testing::StepSet;
using testing::with_rows;

struct Ranks {
  int servers, workers, leaves;
};
constexpr Ranks kRanks[] = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}, {2, 4, 4}, {1, 2, 8}, {3, 3, 8}};

void expect_right_everywhere(PushExchange e) {
  for (const Ranks& r : kRanks) {
    for (int round = 0; round < proof_rounds(2); ++round) {
      SCOPED_TRACE(fmt::format("{} servers, {} workers, {} leaves, seed {}", r.servers, r.workers, r.leaves,
                               ++e.seed));
      e.most_pauses = round % 2 == 0 ? 200 : 0;
      e.faults = {.seed = e.seed, .max_delay_polls = round % 2 == 0 ? 0 : 20, .silent_rank = {}};
      expect_right(e, run_pushes(e, r.servers, r.workers, r.leaves));
    }
  }
}

TEST(PushSteps, ReadsAreNeverStalerThanSspSaysAndHoldTheReadersOwnPushes) {
  expect_right_everywhere(ssp(1));
  expect_right_everywhere(ssp(3));
}

TEST(PushSteps, ReadsAreNeverStalerThanSspSaysWhereTicketsGoToWhoeverAsks) {
  expect_right_everywhere(ssp(1, Dealing::to_whoever_asks));
  expect_right_everywhere(ssp(3, Dealing::to_whoever_asks));
}

TEST(PushSteps, AspReadsHoldTheReadersOwnPushes) {
  expect_right_everywhere(asp());
  expect_right_everywhere(asp(Dealing::to_whoever_asks));
}

TEST(PushSteps, RowsAreReadAsWholesNoStalerThanSspSays) {
  for (const Ranks& r : kRanks) {
    for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
      SCOPED_TRACE(fmt::format("{} servers, {} workers, {} leaves", r.servers, r.workers, r.leaves));
      PushExchange e = with_rows(ssp(2, dealing), r.leaves);
      e.last_is_short = true;
      e.most_pauses = 200;
      e.faults = {.seed = 9, .max_delay_polls = 20, .silent_rank = {}};
      const PushResult result = run_pushes(e, r.servers, r.workers, r.leaves);
      expect_right(e, result);
      EXPECT_FALSE(result.reads.row_leads.empty());
      expect_right(e, run_pushes(with_rows(asp(dealing), r.leaves), r.servers, r.workers, r.leaves));
    }
  }
}

TEST(PushSteps, ALastStepInWhichLeavesHaveNoSamplesEnds) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    for (PushExchange e : {ssp(1, dealing), asp(dealing)}) {
      e.steps = 3;
      e.last_is_short = true;
      for (const Ranks& r : kRanks) expect_right(e, run_pushes(e, r.servers, r.workers, r.leaves));
    }
  }
}

// Some have more leaves than others, and where these are dealt as a whole there are workers with one alone.
TEST(PushSteps, RunsOfManyWorkersEnd) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    for (PushExchange e : {ssp(2, dealing), asp(dealing)}) {
      e.steps = 7;
      e.last_is_short = true;
      e.most_pauses = 50;
      for (const Ranks& r : {Ranks{2, 5, 8}, Ranks{1, 6, 6}, Ranks{3, 7, 12}, Ranks{2, 8, 9}})
        expect_right(e, run_pushes(e, r.servers, r.workers, r.leaves));
    }
  }
}

TEST(PushSteps, WorkersComeTogetherWhereTheValuesAreEvaluated) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = with_rows(asp(dealing), 4);
    e.evaluates_every = 5;
    e.most_pauses = 200;
    expect_right(e, run_pushes(e, 2, 3, 4));
  }
}

// A worker that is late to read where all have met reads nothing that others have pushed since.
TEST(PushSteps, WhoIsLateWhereAllMeetReadsWhatTheOthersRead) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = with_rows(asp(dealing), 4);
    e.steps = 12;
    e.evaluates_every = 5;
    e.late_reader_rounds = 3000;
    expect_right(e, run_pushes(e, 2, 3, 4));
  }
}

TEST(PushSteps, TheLeastMemoryIsEnough) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = ssp(2, dealing);
    e.limits.max_bytes = 1;
    e.most_pauses = 200;
    e.faults = {.seed = 4, .max_delay_polls = 20, .silent_rank = {}};
    expect_right(e, run_pushes(e, 2, 3, 4));
  }
}

TEST(PushSteps, AFastWorkerRunsAsFarAheadAsSspAllowsAndWaits) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    for (const int n_servers : {1, 2}) {
      for (const std::int64_t staleness : {1, 3}) {
        PushExchange e = ssp(staleness, dealing);
        SlowWorker slow(staleness);
        slow.join(e);
        const PushResult result = run_pushes(e, n_servers, 2, 2);
        expect_right(e, result);
        EXPECT_EQ(result.reads.most_lead(), staleness);
      }
    }
  }
}

// Its values are those of the start, and its ticket is of a step far behind that. After an evaluation nobody
// gets that far: no ticket is dealt before all have read.
TEST(PushSteps, AWorkerThatComesLateReadsAnew) {
  PushExchange e = with_rows(ssp(1, Dealing::to_whoever_asks), 2);
  e.evaluates_every = 8;
  std::atomic<std::int64_t> furthest = 0;
  e.on_read = [&](WorkerId w, Clock step) {
    if (w == WorkerId(0)) furthest = step.value;
  };
  e.may_ask = [&](WorkerId w, Clock values) {
    return w == WorkerId(0) || values > Clock(0) || furthest >= 5;
  };
  for (const int n_servers : {1, 2}) {
    furthest = 0;
    expect_right(e, run_pushes(e, n_servers, 2, 2));
  }
}

TEST(PushSteps, NobodyWaitsInAsp) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = asp(dealing);
    SlowWorker slow(e.steps - 1);
    slow.join(e);
    const PushResult result = run_pushes(e, 2, 2, 2);
    expect_right(e, result);
    EXPECT_EQ(result.reads.most_lead(), e.steps - 1);
  }
}

// The proofs above would be worth nothing if they could not fail.
TEST(PushSteps, ReadsThatAreAStepTooStaleAreFound) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = ssp(3, dealing);
    e.staleness = 2;
    SlowWorker slow(3);
    slow.join(e);
    const PushResult result = run_pushes(e, 1, 2, 2);
    EXPECT_EQ(result.error, "");
    EXPECT_GT(result.reads.n_wrong, 0);
    EXPECT_NE(result.reads.text().find("its lead is 3, at most 2"), std::string::npos) << result.reads.text();
  }
}

TEST(PushSteps, RowsThatAreAStepTooStaleAreFound) {
  for (const Dealing dealing : {Dealing::in_place, Dealing::to_whoever_asks}) {
    PushExchange e = ssp(3, dealing);
    e.variables = VariableTable({counting_table("user/table", 2, 8), counting_table("item/table", 2, 1)});
    e.staleness = 2;
    SlowWorker slow(3);
    slow.join(e);
    const PushResult result = run_pushes(e, 1, 2, 2);
    EXPECT_EQ(result.error, "");
    EXPECT_NE(result.reads.text().find("row 0 of "), std::string::npos) << result.reads.text();
    EXPECT_NE(result.reads.text().find("its lead is 3, at most 2"), std::string::npos) << result.reads.text();
  }
}

TEST(PushSteps, AWorkerRefusesValuesThatAreStalerThanItsRule) {
  PushExchange e = ssp(2);
  e.rule_of_servers = {Consistency::ssp, 3, Dealing::in_place};
  SlowWorker slow(3);
  slow.join(e);
  const PushResult result = run_pushes(e, 1, 2, 2);
  EXPECT_TRUE(result.error.starts_with("protocol: server 0 sent a value of step 0 (")) << result.error;
  EXPECT_TRUE(result.error.ends_with("where step 1 was due")) << result.error;
}

// Chunks that end in the middle of a slice.
PushResult run_with_chunks(ChunkRule chunks, std::uint64_t seed) {
  PushExchange e = asp();
  e.variables = VariableTable({make_spec("large/weights", DType::float64, Shape{140'000})});
  e.chunks = chunks;
  e.steps = 12;
  e.seed = seed;
  e.most_pauses = 100;
  e.faults = {.seed = seed, .max_delay_polls = 30, .silent_rank = {}};
  return run_pushes(e, 1, 3, 4);
}

TEST(PushSteps, SlicesThatAreTornAreFoundAndWholeSlicesAreNot) {
  ReadFindings torn;
  for (int round = 0; round < proof_rounds(4); ++round) {
    const auto seed = static_cast<std::uint64_t>(round);
    const PushResult whole = run_with_chunks(ChunkRule::whole_slices, seed);
    EXPECT_EQ(whole.error, "");
    EXPECT_EQ(whole.reads.n_wrong, 0) << whole.reads.text();
    torn.add(run_with_chunks(ChunkRule::bytes, seed).reads);
  }
  EXPECT_GT(torn.n_wrong, 0);
  EXPECT_NE(torn.text().find("torn: element"), std::string::npos) << torn.text();
}

// Worker 2 takes nothing of what its pushes are answered with until the others have read for five steps more.
// A server has memory for one answer of each worker at a time.
TEST(PushSteps, AWorkerThatTakesNothingTearsNothingAndHoldsNobodyUp) {
  for (int round = 0; round < proof_rounds(6); ++round) {
    PushExchange e = round % 2 == 0 ? asp() : with_rows(asp(), 4);
    e.steps = 24;
    e.seed = static_cast<std::uint64_t>(round);
    e.limits = {.max_bytes = 1, .max_window = 1};
    std::atomic<std::int64_t> newest = 0;
    e.on_read = [&](WorkerId w, Clock step) {
      if (w == WorkerId(2)) return;
      std::int64_t seen = newest.load();
      while (seen < step.value && !newest.compare_exchange_weak(seen, step.value)) continue;
    };
    e.is_deaf = [&](WorkerId w, Clock step) {
      return w == WorkerId(2) && step.value % 3 == 1 && newest.load() < std::min(step.value + 5, e.steps);
    };
    const PushResult result = run_pushes(e, 2, 3, 4);
    expect_right(e, result);
    EXPECT_GT(result.reads.n_reads, 24 * 3 * 10);
  }
}

TEST(CountedTickets, WhatIsWrongIsFound) {
  const std::vector<double> values = {5, 2, 5, 2, 5};
  std::string why;
  const auto holds = count_tickets(values, 6, 2, why);
  ASSERT_TRUE(holds);
  EXPECT_EQ((*holds)[0], std::optional<StepSet>(5));
  EXPECT_EQ((*holds)[1], std::optional<StepSet>(2));
  EXPECT_FALSE(count_tickets(std::vector<double>{5, 2, 5, 3}, 0, 2, why));
  EXPECT_EQ(why, "torn: element 3 holds 3 of leaf 1, an earlier one 2");
  EXPECT_FALSE(count_tickets(std::vector<double>{0.5}, 0, 2, why));
  EXPECT_EQ(why, "element 0 is 0.5, which is no sum of pushes");
  EXPECT_FALSE(count_tickets(std::vector<double>{-1}, 0, 2, why));
  ReadFindings findings;
  const CountedRead read{"it", 4, 1, {{0b111, 0b100, 0b111}, {0b111, 0, 0b011}}};
  EXPECT_EQ(check_read(read, {0b111, 0b011}, findings), 1);
  EXPECT_EQ(findings.n_wrong, 0) << findings.text();
  EXPECT_EQ(check_read(read, {0b011, 0b011}, findings), 1);
  EXPECT_EQ(check_read(read, {0b111, 0b101}, findings), 2);
  ASSERT_EQ(findings.first.size(), 3U) << findings.text();
  EXPECT_EQ(findings.first[0], "it of step 4: own pushes of leaf 0 are missing: 0x3 of 0x4");
  EXPECT_EQ(findings.first[1], "it of step 4: holds steps of leaf 1 that nobody pushed: 0x5 of 0x3");
  EXPECT_EQ(findings.first[2], "it of step 4: its lead is 2, at most 1");
}

}  // namespace
}  // namespace varscope
