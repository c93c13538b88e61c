// What the coordinator makes of tickets, reports and time in SSP and ASP. Times are made up.
#include "ps/consistency_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::thrown;

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr WorkerId kFirst(0), kSecondWorker(1), kThird(2);

class ConsistencyLedgerTest : public ::testing::Test {
 protected:
  ConsistencyLedger make(Consistency consistency, int n_workers, std::int64_t staleness = 0) {
    cluster =
        assign_roles(std::vector<std::string>(static_cast<std::size_t>(2 + n_workers), "a"), 2, n_workers);
    return ConsistencyLedger({.cluster = cluster,
                              .rule = {consistency, staleness, Dealing::in_place},
                              .first = Clock(0),
                              .reporters = {ServerId(0), ServerId(1)}});
  }
  // A ticket from its beginning to its report.
  static void compute(ConsistencyLedger& ledger, WorkerId worker, std::int64_t step, std::int64_t begin_ns,
                      std::int64_t compute_ns, const WorkerTimes& more = {}) {
    WorkerTimes times = more;
    times.compute_ns += compute_ns;
    ledger.on_dealt(worker, Clock(step), worker.value, begin_ns);
    ledger.on_report(worker, Clock(step), worker.value, times, begin_ns + compute_ns);
  }
  static StalenessReport reads(std::int64_t lead, int n) {
    StalenessReport r;
    for (int i = 0; i < n; ++i) r.leads.add(lead);
    r.n_answers = n;
    r.service_ns = 2000 * n;
    return r;
  }
  ClusterMap cluster;
};

TEST_F(ConsistencyLedgerTest, SlowestIsWhoComputesLongestPerTicketByTheMedian) {
  ConsistencyLedger ledger = make(Consistency::asp, 3);
  for (int i = 1; i <= 10; ++i) compute(ledger, kFirst, i, i * kSecond, 100);
  for (int i = 1; i <= 4; ++i) compute(ledger, kThird, i, i * kSecond, 120);
  EXPECT_FALSE(ledger.total(20 * kSecond).slowest) << "worker 1 has done nothing";
  compute(ledger, kSecondWorker, 1, kSecond, 600);
  const ConsistencySummary all = ledger.total(20 * kSecond);
  ASSERT_TRUE(all.slowest);
  EXPECT_EQ(all.slowest->worker, 1);
  EXPECT_EQ(all.slowest->ratio, 5);
  EXPECT_EQ(all.workers[0].tickets, 10);
  EXPECT_EQ(all.workers[0].lag, 0);
  EXPECT_EQ(all.workers[1].lag, 9);
  EXPECT_EQ(all.workers[2].clock, Clock(4));
  EXPECT_DOUBLE_EQ(all.workers[2].ticket_compute_s, 120e-9);
}

TEST_F(ConsistencyLedgerTest, ASummaryCoversWhatCameSinceTheOneBefore) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  ledger.on_staleness(ServerId(0), Clock(10), reads(1, 5));
  EXPECT_FALSE(ledger.take_due(0)) << "server 1 has not reported";
  ledger.on_staleness(ServerId(1), Clock(10), reads(3, 1));
  EXPECT_FALSE(ledger.take_due(0)) << "workers have not reported the step";
  compute(ledger, kFirst, 10, 0, 100, {.wait_ns = 50, .gate_ns = 20});
  ledger.on_complete(Clock(10), 200);
  const auto first = ledger.take_due(300);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->clock, Clock(10));
  EXPECT_THAT(first->all.leads.cells, ElementsAre(0, 5, 1));
  EXPECT_EQ(first->servers[1].leads.sum, 3);
  EXPECT_DOUBLE_EQ(mean_service_s(first->servers[0]), 2e-6);
  EXPECT_DOUBLE_EQ(first->workers[0].gate_wait_s, 20e-9);
  EXPECT_DOUBLE_EQ(first->workers[0].wait_s, 50e-9);
  EXPECT_FALSE(ledger.take_due(300)) << "it has been taken";

  ledger.on_staleness(ServerId(0), Clock(30), reads(1, 7));
  ledger.on_staleness(ServerId(1), Clock(20), reads(3, 4));
  compute(ledger, kFirst, 20, 300, 300, {.wait_ns = 5});
  ledger.on_complete(Clock(20), 700);
  const auto second = ledger.take_due(700);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->clock, Clock(20));
  EXPECT_THAT(second->all.leads.cells, ElementsAre(0, 2, 3));
  EXPECT_EQ(second->workers[0].tickets, 1);
  EXPECT_DOUBLE_EQ(second->workers[0].ticket_compute_s, 300e-9);
  EXPECT_DOUBLE_EQ(second->workers[0].wait_s, 5e-9);

  ledger.on_last(ServerId(0), reads(1, 9));
  ledger.on_last(ServerId(1), reads(3, 4));
  const ConsistencySummary total = ledger.total(700);
  EXPECT_THAT(total.all.leads.cells, ElementsAre(0, 9, 4));
  EXPECT_EQ(total.workers[0].tickets, 2);
}

TEST_F(ConsistencyLedgerTest, DrainsCountFromTheLastReportOfATicketToTheirEnd) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  ledger.on_dealt(kFirst, Clock(1), 0, 0);
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  ledger.on_drain_told(kFirst, 10);  // while it computes
  ledger.on_report(kFirst, Clock(1), 0, {.compute_ns = 30}, 30);
  ledger.on_report(kSecondWorker, Clock(1), 1, {.compute_ns = 90}, 90);
  ledger.on_drain_told(kSecondWorker, 95);
  ledger.on_drained(100);
  const ConsistencySummary all = ledger.total(200);
  EXPECT_DOUBLE_EQ(all.workers[0].drain_wait_s, 70e-9);
  EXPECT_DOUBLE_EQ(all.workers[1].drain_wait_s, 5e-9);
  EXPECT_DOUBLE_EQ(all.workers[0].wait_s, 70e-9);
  EXPECT_DOUBLE_EQ(all.workers[0].total_s, 100e-9);
}

TEST_F(ConsistencyLedgerTest, AWorkerThatIsLateIsNamedOnceAndAgainWhenItGoesOn) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  EXPECT_THAT(ledger.take_notes(30 * kSecond), IsEmpty()) << "nobody knows how long a ticket takes";
  for (int step = 1; step <= 8; ++step) compute(ledger, kFirst, step, (30 + step) * kSecond, kSecond / 10);
  EXPECT_THAT(
      ledger.take_notes(40 * kSecond),
      ElementsAre("worker 1 has had its ticket of step 1 for 40 s, and the newest ticket is of step 8: it is "
                  "stopped or very slow; the others go on"));
  EXPECT_THAT(ledger.take_notes(41 * kSecond), IsEmpty());
  ledger.on_report(kSecondWorker, Clock(1), 1, {}, 45 * kSecond);
  EXPECT_THAT(ledger.take_notes(46 * kSecond),
              ElementsAre("worker 1 goes on: its ticket of step 1 took 45 s"));
  EXPECT_THAT(ledger.take_notes(47 * kSecond), IsEmpty());
}

TEST_F(ConsistencyLedgerTest, WhoWaitsAtTheGateIsNotLateBeforeItOpens) {
  ConsistencyLedger ledger = make(Consistency::ssp, 2, 2);
  for (int step = 1; step <= 3; ++step) compute(ledger, kFirst, step, 0, kSecond);
  ledger.on_dealt(kFirst, Clock(4), 0, 3 * kSecond);  // needs step 1 of all
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  EXPECT_THAT(
      ledger.take_notes(21 * kSecond),
      ElementsAre("worker 1 has had its ticket of step 1 for 21 s, and the newest ticket is of step 4: it is "
                  "stopped or very slow; the others go on for 2 steps after it, and then wait for it "
                  "(cluster.staleness)"));
  ledger.on_report(kSecondWorker, Clock(1), 1, {}, 30 * kSecond);
  ledger.on_dealt(kSecondWorker, Clock(2), 1, 30 * kSecond);
  ledger.on_complete(Clock(1), 30 * kSecond);
  EXPECT_THAT(ledger.take_notes(45 * kSecond),
              ElementsAre("worker 1 goes on: its ticket of step 1 took 30 s"));
  ledger.on_report(kSecondWorker, Clock(2), 1, {}, 46 * kSecond);
  EXPECT_EQ(ledger.total(50 * kSecond).workers[0].open_s, 20) << "since the gate opened";
}

TEST_F(ConsistencyLedgerTest, WhosePushesAreHeldForACutIsNotLate) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  compute(ledger, kFirst, 1, 0, kSecond);
  ledger.on_cut(Clock(1));
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  ledger.on_dealt(kFirst, Clock(2), 0, kSecond);
  const std::vector<std::string> notes = ledger.take_notes(100 * kSecond);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_THAT(notes[0], ::testing::StartsWith("worker 1 has had its ticket of step 1"));
}

TEST_F(ConsistencyLedgerTest, WhereAllAreLateNoWorkerIsToBlame) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  for (const WorkerId w : {kFirst, kSecondWorker}) {
    compute(ledger, w, 1, 0, kSecond / 10);
    ledger.on_dealt(w, Clock(2), w.value, kSecond);
  }
  EXPECT_THAT(ledger.take_notes(100 * kSecond), IsEmpty());
}

TEST_F(ConsistencyLedgerTest, NobodyIsLateBeforeTheLimit) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  compute(ledger, kFirst, 1, 0, kSecond / 10);
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  EXPECT_THAT(ledger.take_notes(10 * kSecond), IsEmpty());
  EXPECT_THAT(ledger.take_notes(10 * kSecond + 1), IsEmpty()) << "it looks ten times a second";
  EXPECT_EQ(ledger.take_notes(10 * kSecond + kSecond / 10).size(), 1U);
}

// 20 times the median, where that is more.
TEST_F(ConsistencyLedgerTest, LongTicketsMayTakeLong) {
  ConsistencyLedger ledger = make(Consistency::asp, 2);
  compute(ledger, kFirst, 1, 0, 2 * kSecond);
  ledger.on_dealt(kSecondWorker, Clock(1), 1, 0);
  EXPECT_THAT(ledger.take_notes(39 * kSecond), IsEmpty());
  EXPECT_EQ(ledger.take_notes(41 * kSecond).size(), 1U);
}

TEST_F(ConsistencyLedgerTest, CountsThatCannotBeAreRefused) {
  ConsistencyLedger ledger = make(Consistency::asp, 1);
  StalenessReport bad;
  bad.delays.cells.assign(80, 1);
  EXPECT_EQ(thrown([&] { ledger.on_staleness(ServerId(1), Clock(1), bad); }),
            "protocol: server 1 reports how stale reads were with counts that cannot be");
  EXPECT_EQ(thrown([&] { ledger.on_last(ServerId(7), {}); }),
            "protocol: server 7 reports how stale reads were with counts that cannot be");
}

ConsistencySummary told(Consistency consistency) {
  ConsistencySummary s{.clock = Clock(8),
                       .rule = {consistency, 3, Dealing::in_place},
                       .all = {},
                       .servers = {},
                       .workers = {}};
  for (const int lead : {0, 1, 3, 2}) s.all.leads.add(lead);
  for (const int delay : {4, 7}) s.all.delays.add(delay);
  s.workers.resize(2);
  s.workers[0] = {.tickets = 1200, .gate_wait_s = 2, .drain_wait_s = 1, .wait_s = 4, .total_s = 5};
  s.workers[1] = {.tickets = 300, .total_s = 5};
  s.slowest = ConsistencySummary::Slowest{1, 4};
  return s;
}

TEST(ConsistencySummary, SaysInThreeLinesHowStaleWhoWasSlowAndWhatWasWaitedFor) {
  EXPECT_THAT(
      lines_of(told(Consistency::ssp)),
      ElementsAre(
          std::pair("staleness",
                    "reads were 1.5 steps behind on average, 3 at most; 5.5 other pushes came between "
                    "a read and its push, 7 at most"),
          std::pair("slowest",
                    "worker 1 computed 4.0 times as long per ticket as the median worker, and did 300 "
                    "of 1,500 tickets"),
          std::pair("waited for",
                    "slower workers 20 %, servers' answers 10 %, evaluations and the end 10 % of the "
                    "workers' time")));
}

TEST(ConsistencySummary, NamesNobodyWhereAllAreAboutAsFastAndNoGateWhereThereIsNone) {
  ConsistencySummary s = told(Consistency::asp);
  s.workers[0].gate_wait_s = 0;
  s.slowest->ratio = 1.2;
  const auto lines = lines_of(s);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1].second, "servers' answers 30 %, evaluations and the end 10 % of the workers' time");
  s.all.leads = {};
  EXPECT_THAT(lines_of(s), IsEmpty()) << "nothing was trained";
}

// What is held for a checkpoint waits for slower workers, and for no server.
TEST(ConsistencySummary, SaysThatPushesWereHeldForCheckpoints) {
  ConsistencySummary s = told(Consistency::asp);
  s.all.n_holds = 2;
  s.all.held_ns = 1'250'000'000;
  EXPECT_EQ(lines_of(s).back().second,
            "slower workers 20 %, servers' answers 10 %, evaluations and the end 10 % of the workers' time; "
            "pushes were held 1.25 s for checkpoints");
}

}  // namespace
}  // namespace varscope
