// What a server counts of pushes and reads that come one by one, in SSP and ASP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/push_details.h"
#include "common/transport/wire.h"
#include "ps/push_steps.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::make_spec;

struct NoListener final : StepListener {
  void on_step_end(Clock, bool) override {}
};

// A server and its workers, each with one leaf, by hand: one thread, no gradients (pushes of no samples), one
// variable in one chunk.
class OneByOne {
 public:
  OneByOne(StepRule rule, int n_workers)
      : cluster_(assign_roles(std::vector<std::string>(static_cast<std::size_t>(1 + n_workers), "a"), 1,
                              n_workers)),
        hub_(1 + n_workers),
        server_(hub_.endpoint(Rank(0))),
        optimizer_(OptimizerConfig{}),
        shard_(variables_, plan_, ServerId(0), optimizer_.slots()),
        watch_(plan_, shard_),
        steps_({.transport = *server_,
                .cluster = cluster_,
                .plan = plan_,
                .optimizer = optimizer_,
                .shard = shard_,
                .watch = watch_,
                .listener = listener_,
                .rule = rule}) {
    for (const Rank rank : cluster_.workers) workers_.push_back(hub_.endpoint(rank));
  }
  // The push of a step, whose worker computes step `step` + 1 next.
  void push(int worker, std::int64_t step, std::int64_t held_after = 0) {
    MessageHeader h = make_header(MessageType::push, worker, Clock(step));
    h.bucket = 0;
    h.leaf_begin = worker;
    h.sequence = ++sequence_[worker];
    const PushDetails details{.next_step = step + 1, .held_after = held_after, .share = 0, .n_leaves = 1};
    steps_.on_push(WorkerId(worker), {cluster_.rank_of(WorkerId(worker)), h, std::string(bytes_of(details))});
  }
  // Answers that have come for a worker since the last call.
  std::vector<MessageHeader> answers(int worker) {
    std::vector<MessageHeader> all;
    for (Message m; workers_[static_cast<std::size_t>(worker)]->poll_message(m);) all.push_back(m.header);
    return all;
  }
  PushSteps& steps() { return steps_; }
  StalenessReport report() const { return steps_.staleness(); }

 private:
  VariableTable variables_{{make_spec("layer/weights", DType::float32, Shape{8, 4})}};
  BucketPlan plan_ = BucketPlan::make(variables_, 1, ChunkRule::whole_slices);
  ClusterMap cluster_;
  LoopbackHub hub_;
  std::unique_ptr<Transport> server_;
  std::vector<std::unique_ptr<Transport>> workers_;
  Optimizer optimizer_;
  ParameterShard shard_;
  FiniteWatch watch_;
  NoListener listener_;
  PushSteps steps_;
  std::map<int, std::int64_t> sequence_;
};

// Until the clock shows another time.
void pass_time() {
  for (const std::int64_t start = now_ns(); now_ns() == start;) {
  }
}

constexpr StepRule kSsp1{.consistency = Consistency::ssp, .staleness = 1, .dealing = Dealing::in_place};
constexpr StepRule kAsp{.consistency = Consistency::asp, .staleness = 0, .dealing = Dealing::in_place};

TEST(Staleness, LeadsAreCountedAtTheReadAndNoneIsBeyondTheBound) {
  OneByOne job(kSsp1, 2);
  job.push(0, 1);
  EXPECT_EQ(job.answers(0).size(), 1U);
  job.push(0, 2);
  EXPECT_TRUE(job.answers(0).empty()) << "step 3 needs step 1 of all";
  pass_time();
  job.push(1, 1);
  const auto fast = job.answers(0), slow = job.answers(1);
  ASSERT_EQ(fast.size(), 1U);
  ASSERT_EQ(slow.size(), 1U);
  const StalenessReport r = job.report();
  EXPECT_FALSE(r.leads.in_powers);
  EXPECT_THAT(r.leads.cells, ElementsAre(1, 2))
      << "worker 1 reads step 1 whole; worker 0 twice one step less";
  EXPECT_EQ(r.leads.sum, 2);
  EXPECT_EQ(r.leads.most, 1);
  EXPECT_EQ(r.n_answers, 3);
  EXPECT_EQ(r.bytes_down, 3 * 8 * 4 * 4);
  EXPECT_EQ(r.bytes_up, 0);
  EXPECT_GT(r.gate_ns, 0);
  EXPECT_EQ(r.gate_ns, static_cast<std::int64_t>(fast[0].gated_ns))
      << "the worker is told what the server counts";
  EXPECT_EQ(slow[0].gated_ns, 0U);
}

TEST(Staleness, DelaysArePushesBetweenAReadAndItsPush) {
  OneByOne job(kAsp, 3);
  for (std::int64_t step = 1; step <= 5; ++step) job.push(0, step);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5));
  job.push(1, 1);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5, 0, 0, 1)) << "5 is among 4-7";
  EXPECT_EQ(job.report().delays.most, 5);
  job.push(2, 1);
  job.push(1, 2);
  EXPECT_THAT(job.report().delays.cells, ElementsAre(5, 1, 0, 2)) << "6, and 1 for that of worker 2";
  EXPECT_EQ(job.report().delays.sum, 12);
}

// Lead 1, 2, ... 6 while worker 1 has pushed nothing, then 0.
TEST(Staleness, LeadsWithoutABoundAreInPowersOfTwo) {
  OneByOne job(kAsp, 2);
  for (std::int64_t step = 1; step <= 6; ++step) job.push(0, step);
  job.push(1, 1);
  const Tally leads = job.report().leads;
  EXPECT_TRUE(leads.in_powers);
  EXPECT_THAT(leads.cells, ElementsAre(1, 1, 2, 3));
  EXPECT_EQ(leads.name(0), "0");
  EXPECT_EQ(leads.name(1), "1");
  EXPECT_EQ(leads.name(2), "2-3");
  EXPECT_EQ(leads.name(3), "4-7");
  EXPECT_EQ(leads.most, 6);
  EXPECT_EQ(leads.mean(), 3);
  EXPECT_EQ(job.report().gate_ns, 0);
}

TEST(Staleness, TimeInWhichACutHoldsPushesIsCountedOnce) {
  OneByOne job(kAsp, 2);
  job.push(0, 1);
  job.push(0, 2, 1);
  pass_time();
  EXPECT_EQ(job.report().n_holds, 1);
  EXPECT_EQ(job.report().held_ns, 0) << "it is not over";
  job.push(1, 1);
  job.push(1, 2, 1);
  EXPECT_EQ(job.report().delays.count(), 2) << "pushes of step 2 are held";
  job.steps().go_on_after(Clock(1));
  const StalenessReport r = job.report();
  EXPECT_EQ(r.n_holds, 1);
  EXPECT_GT(r.held_ns, 0);
  EXPECT_EQ(r.delays.count(), 4);
  job.steps().go_on_after(Clock(2));
  EXPECT_EQ(job.report().held_ns, r.held_ns);
}

TEST(Tally, WhatHasComeSinceIsTheDifferenceAndSumsAddUp) {
  Tally before;
  for (const int n : {0, 9, 2}) before.add(n);
  Tally now = before;
  for (const int n : {1, 3, 5}) now.add(n);
  const Tally since = now.since(before);
  EXPECT_THAT(since.cells, ElementsAre(0, 1, 1, 1));
  EXPECT_EQ(since.sum, 9);
  EXPECT_EQ(since.most, 7) << "9 came before: at most what its cell holds";
  Tally sum = before;
  sum += since;
  EXPECT_EQ(sum.cells, now.cells);
  EXPECT_EQ(sum.sum, now.sum);
  EXPECT_EQ(now.since(now).count(), 0);
  EXPECT_EQ(now.since({}).most, 9);
  EXPECT_TRUE(now.is_sound());
  now.cells[1] = -1;
  EXPECT_FALSE(now.is_sound());
  before.cells.resize(100);
  EXPECT_FALSE(before.is_sound());
}

}  // namespace
}  // namespace varscope
