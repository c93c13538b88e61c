// Tickets: who computes which part of which step, what is in, and what may be read.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "common/config/step_rule.h"
#include "common/transport/push_details.h"
#include "ps/ticket_count.h"
#include "ps/ticket_dealer.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

ClusterMap cluster_of(int n_workers, int n_leaves) {
  return assign_roles(std::vector<std::string>(static_cast<std::size_t>(1 + n_workers), "a"), 1, n_leaves);
}
constexpr StepRule kInPlace{Consistency::ssp, 1, Dealing::in_place};
constexpr StepRule kToWhoeverAsks{Consistency::asp, 0, Dealing::to_whoever_asks};

TEST(TicketCount, TheLowestStepIsThatBeforeTheFirstHole) {
  TicketCount count(Clock(0), 3);
  EXPECT_EQ(count.low(), Clock(0));
  EXPECT_TRUE(count.add(0));
  EXPECT_TRUE(count.add(1));
  EXPECT_EQ(count.low(), Clock(0));
  EXPECT_TRUE(count.add(2));
  EXPECT_EQ(count.low(), Clock(1));
}

TEST(TicketCount, TicketsOfLaterStepsCountOnceTheHoleIsClosed) {
  TicketCount count(Clock(0), 2);
  for (const int number : {3, 5, 1, 4, 2}) {
    EXPECT_TRUE(count.add(number));
    EXPECT_EQ(count.low(), Clock(0)) << number;
  }
  EXPECT_TRUE(count.add(0));
  EXPECT_EQ(count.low(), Clock(3));
}

TEST(TicketCount, ATicketIsCountedOnce) {
  TicketCount count(Clock(0), 2);
  EXPECT_TRUE(count.add(0));
  EXPECT_FALSE(count.add(0)) << "below the hole, nothing behind it";
  EXPECT_TRUE(count.add(2));
  EXPECT_FALSE(count.add(2)) << "behind the hole";
  EXPECT_FALSE(count.add(0)) << "below the hole, something behind it";
  EXPECT_TRUE(count.add(1));
  EXPECT_FALSE(count.add(2)) << "no longer behind it";
  EXPECT_EQ(count.low(), Clock(1));
}

TEST(TicketCount, ARunThatGoesOnHasTheStepsBeforeBehindIt) {
  TicketCount count(Clock(7), 4);
  EXPECT_EQ(count.low(), Clock(7));
  EXPECT_FALSE(count.add(27));
  EXPECT_TRUE(count.add(28));
  for (const int number : {31, 29, 30}) EXPECT_TRUE(count.add(number));
  EXPECT_EQ(count.low(), Clock(8));
}

TEST(TicketCount, AnyOrderEndsAtTheSameStep) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    const int per_step = 1 + static_cast<int>(random() % 5);
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(per_step) * 12);
    std::iota(numbers.begin(), numbers.end(), 0);
    std::ranges::shuffle(numbers, random);
    TicketCount count(Clock(0), per_step);
    std::vector<bool> is_in(numbers.size(), false);
    for (const std::int64_t number : numbers) {
      EXPECT_TRUE(count.add(number));
      is_in[static_cast<std::size_t>(number)] = true;
      const auto hole = std::ranges::find(is_in, false) - is_in.begin();
      ASSERT_EQ(count.low().value, hole / per_step);
    }
  }
}

TEST(TicketDealer, InPlaceEachWorkerGoesThroughItsOwnLeaves) {
  const ClusterMap cluster = cluster_of(2, 5);
  TicketDealer dealer(kInPlace, cluster, Clock(0));
  EXPECT_EQ(dealer.per_step(), 2);
  EXPECT_FALSE(dealer.take(WorkerId(0))) << "nothing is open";
  dealer.open(Clock(1));
  dealer.open(Clock(2));
  const LeafRange second = cluster.leaves_of(WorkerId(1));
  for (const int step : {1, 2}) {
    const auto ticket = dealer.take(WorkerId(1));
    ASSERT_TRUE(ticket);
    EXPECT_EQ(ticket->step, Clock(step));
    EXPECT_EQ(ticket->leaf_begin, second.begin);
    EXPECT_EQ(ticket->index, 1);
  }
  EXPECT_FALSE(dealer.take(WorkerId(1)));
  EXPECT_EQ(dealer.take(WorkerId(0))->step, Clock(1)) << "the other one is where it was";
  EXPECT_EQ(dealer.n_leaves(0) + dealer.n_leaves(1), 5);
  EXPECT_EQ(dealer.n_leaves(1), second.size());
}

TEST(TicketDealer, WhoeverAsksGetsTheLowestLeafThatIsLeft) {
  const ClusterMap cluster = cluster_of(2, 3);
  TicketDealer dealer(kToWhoeverAsks, cluster, Clock(0));
  EXPECT_EQ(dealer.per_step(), 3);
  dealer.open(Clock(1));
  std::string dealt;
  for (const int worker : {1, 0, 0}) {
    const auto ticket = dealer.take(WorkerId(worker));
    ASSERT_TRUE(ticket);
    EXPECT_EQ(ticket->index, ticket->leaf_begin);
    dealt += fmt::format("{}.{} ", ticket->step.value, ticket->leaf_begin);
  }
  EXPECT_EQ(dealt, "1.0 1.1 1.2 ");
  EXPECT_FALSE(dealer.take(WorkerId(1))) << "step 2 is not open";
  dealer.open(Clock(2));
  EXPECT_EQ(dealer.opened(), Clock(2));
  EXPECT_EQ(dealer.take(WorkerId(1))->step, Clock(2));
  EXPECT_EQ(dealer.n_leaves(2), 1);
}

TEST(TicketDealer, GoesOnBehindTheStepThatARunStartsFrom) {
  const ClusterMap cluster = cluster_of(2, 4);
  for (const StepRule& rule : {kInPlace, kToWhoeverAsks}) {
    TicketDealer dealer(rule, cluster, Clock(41));
    EXPECT_FALSE(dealer.take(WorkerId(1)));
    dealer.open(Clock(42));
    EXPECT_EQ(dealer.take(WorkerId(1))->step, Clock(42));
  }
}

TEST(TicketDealer, KnowsWhichTicketAReportIsOf) {
  const ClusterMap cluster = cluster_of(2, 4);
  const TicketDealer in_place(kInPlace, cluster, Clock(0));
  EXPECT_EQ(in_place.index_of(WorkerId(1), 2), std::optional(1));
  EXPECT_EQ(in_place.index_of(WorkerId(1), 0), std::nullopt) << "another worker's leaves";
  EXPECT_EQ(in_place.index_of(WorkerId(1), 3), std::nullopt) << "the middle of its own";
  const TicketDealer dynamic(kToWhoeverAsks, cluster, Clock(0));
  EXPECT_EQ(dynamic.index_of(WorkerId(1), 0), std::optional(0));
  EXPECT_EQ(dynamic.index_of(WorkerId(1), 3), std::optional(3));
  EXPECT_EQ(dynamic.index_of(WorkerId(1), 4), std::nullopt);
  EXPECT_EQ(dynamic.index_of(WorkerId(1), -1), std::nullopt);
}

TEST(StepRule, SaysWhatAStepMayBeComputedWith) {
  const StepRule ssp{Consistency::ssp, 3, Dealing::in_place};
  EXPECT_EQ(ssp.least_read(Clock(10), Clock(0)), Clock(6)) << "3 steps are out, the tenth is being made";
  EXPECT_EQ(ssp.least_read(Clock(4), Clock(0)), Clock(0));
  EXPECT_EQ(ssp.least_read(Clock(5), Clock(0)), Clock(1));
  EXPECT_EQ(ssp.least_read(Clock(2), Clock(0)), Clock(0)) << "nothing is before the start";
  EXPECT_EQ(ssp.least_read(Clock(43), Clock(41)), Clock(41));
  EXPECT_EQ(ssp.least_read(Clock(46), Clock(41)), Clock(42));
  const StepRule bsp;
  EXPECT_EQ(bsp.least_read(Clock(10), Clock(0)), Clock(9));
  const StepRule asp{Consistency::asp, 0, Dealing::in_place};
  EXPECT_EQ(asp.least_read(Clock(1000), Clock(41)), Clock(41));
}

TEST(PushDetails, ComeBackAsTheyWere) {
  const PushDetails sent{.next_step = 9, .held_after = 4, .share = 0.375, .n_leaves = 3};
  const PushDetails got = push_details(bytes_of(sent), Rank(1));
  EXPECT_EQ(got.next_step, 9);
  EXPECT_EQ(got.held_after, 4);
  EXPECT_EQ(got.share, 0.375);
  EXPECT_EQ(got.n_leaves, 3);
  const std::string longer = std::string(bytes_of(sent)) + "rows";
  EXPECT_EQ(push_details(longer, Rank(1)).n_leaves, 3) << "what follows is somebody else's";
}

TEST(PushDetails, RefuseWhatCannotBe) {
  const auto refusal = [](const PushDetails& details) {
    return thrown([&] { push_details(bytes_of(details), Rank(5)); });
  };
  EXPECT_EQ(thrown([] { push_details("short", Rank(5)); }),
            "protocol: rank 5 sent a push with 5 bytes of details instead of 32");
  EXPECT_EQ(thrown([] { push_details("", Rank(5)); }),
            "protocol: rank 5 sent a push with 0 bytes of details instead of 32");
  EXPECT_EQ(refusal({.share = 1.5, .n_leaves = 2}),
            "protocol: rank 5 sent a push of 2 leaves with share 1.5");
  EXPECT_EQ(refusal({.share = -0.5, .n_leaves = 2}),
            "protocol: rank 5 sent a push of 2 leaves with share -0.5");
  EXPECT_EQ(refusal({.share = std::nan(""), .n_leaves = 2}),
            "protocol: rank 5 sent a push of 2 leaves with share nan");
  EXPECT_EQ(refusal({.share = 1, .n_leaves = 0}), "protocol: rank 5 sent a push of 0 leaves with share 1");
  EXPECT_EQ(refusal({.next_step = -2, .n_leaves = 1}),
            "protocol: rank 5 sent a push before step -2 that waits for a cut of step 0");
  EXPECT_EQ(refusal({.held_after = -2, .n_leaves = 1}),
            "protocol: rank 5 sent a push before step 0 that waits for a cut of step -2");
  EXPECT_EQ(refusal({.share = 0, .n_leaves = 1}), "no error");
  EXPECT_EQ(refusal({.share = 1, .n_leaves = 1}), "no error");
}

}  // namespace
}  // namespace varscope
