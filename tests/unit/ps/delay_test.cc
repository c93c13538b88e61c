// BSP with a fixed delay: real servers, coordinator and clients over threads of one process, against a loop
// over versions.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <set>
#include <thread>

#include "checkpoint/format/manifest.h"
#include "common/base/philox.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "ps/coordinator.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::default_exchange;
using testing::Exchange;
using testing::ExchangeResult;
using testing::ExchangeServer;
using testing::ExchangeWorker;
using testing::reference_hash;
using testing::run_over_loopback;
using testing::thrown;

Exchange delayed(std::int64_t delay, int steps, std::int64_t drain_every = 4) {
  Exchange e = default_exchange();
  e.steps = steps;
  e.flush = {.every = drain_every, .last = Clock(steps), .delay = delay};
  return e;
}

// Beside dense variables: rows of odd sizes, fewer parts than servers, one not trained, one whose rows come
// late and go.
Exchange delayed_rows(std::int64_t delay, int steps, std::int64_t drain_every) {
  const auto table = [](const std::string& name, DType dtype, std::int64_t units, int parts) {
    VariableSpec spec = testing::make_spec(name, dtype, Shape{0, units}, Initializer::normal(0, 1));
    spec.table = TableSpec{IdType::uint64, parts};
    return spec;
  };
  Exchange e = delayed(delay, steps, drain_every);
  std::vector<VariableSpec> all = {
      table("user/table", DType::float32, 16, 64), e.variables[2], table("item/table", DType::float64, 3, 2),
      table("brief/table", DType::float32, 4, 8), table("fixed/table", DType::float32, 4, 8)};
  all[3].table->entry = 2;
  all[3].table->expire_steps = 3;
  all[4].trainable = false;
  e.variables = VariableTable(std::move(all));
  e.optimizer.type = OptimizerType::adagrad;
  return e;
}

ExchangeResult expect_reference(const Exchange& e, int n_servers, int n_workers, int n_leaves,
                                LoopbackFaults faults = {}) {
  SCOPED_TRACE(::testing::Message() << "delay " << e.flush.delay << ", " << n_servers << " servers, "
                                    << n_workers << " workers");
  ExchangeResult result = run_over_loopback(e, n_servers, n_workers, n_leaves, faults);
  EXPECT_EQ(result.error, "");
  const Digest expected = reference_hash(e, n_leaves);
  EXPECT_EQ(result.hash.value_or(Digest{}).hex(), expected.hex());
  const bool has_tables = std::ranges::any_of(e.variables.variables(), &VariableSpec::is_table);
  for (const Digest& d : result.worker_hash)  // of dense variables alone
    EXPECT_TRUE(has_tables || d.hex() == expected.hex()) << "a worker has other values";
  EXPECT_EQ(result.steps.size(), static_cast<std::size_t>(e.steps));
  for (std::size_t i = 0; i < result.steps.size(); ++i) {
    EXPECT_EQ(result.steps[i].clock, Clock(static_cast<std::int64_t>(i) + 1));
    EXPECT_EQ(result.steps[i].sums.samples, 2 * n_leaves);
  }
  return result;
}

TEST(Delay, EqualsTheLoopOverVersionsForAnyServersAndWorkers) {
  for (const std::int64_t delay : {1, 2}) {
    const Exchange e = delayed(delay, 7);
    for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {2, 2}, {3, 4}})
      expect_reference(e, n_servers, n_workers, 4);
  }
}

TEST(Delay, IsAnotherRunThanBspAndThanAnotherDelay) {
  std::set<std::string> hashes;
  for (const std::int64_t delay : {0, 1, 2}) hashes.insert(reference_hash(delayed(delay, 9), 3).hex());
  hashes.insert(reference_hash(delayed(1, 9, 100), 3).hex());
  EXPECT_EQ(hashes.size(), 4U);
}

TEST(Delay, SlowMessagesAndSlowWorkersChangeNothing) {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    Exchange e = delayed(1 + static_cast<std::int64_t>(seed % 2), 6, 5);
    const RandomStream random(seed, RandomPurpose::test, 0);
    e.before_step = [&random](WorkerId w, Clock clock) {
      const auto at = static_cast<std::uint64_t>(w.value * 1000 + clock.value);
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(at, 4) == 0 ? 10 : 0));
    };
    expect_reference(e, 2, 3, 5,
                     {.seed = seed, .max_delay_polls = seed % 2 == 0 ? 3 : 30, .silent_rank = {}});
  }
}

// Who has read goes on, and its push meets the reads of others at the server.
TEST(Delay, ReadsBesideThePushesOfOthersHoldNobodyUp) {
  for (const std::int64_t delay : {0, 1, 2}) {
    for (std::uint64_t seed = 0; seed < 2; ++seed) {
      Exchange e = delayed(delay, 7, 2);
      e.pulls_at_flushes = true;
      expect_reference(e, 2, 3, 3, {.seed = seed, .max_delay_polls = 20, .silent_rank = {}});
    }
  }
}

TEST(Delay, MovingAveragesAreOfOlderValuesToo) {
  Exchange e = delayed(2, 7);
  std::vector<VariableSpec> all = e.variables.variables();
  all.push_back(
      testing::make_spec("large/mean", DType::float32, Shape{140'000}, Initializer::normal(0, 1), false));
  all.back().average_decay = 0.9;
  e.variables = VariableTable(std::move(all));
  expect_reference(e, 2, 3, 4);
}

TEST(Delay, CompressedGradientsAndWhatTheyLoseStayInTheirOrder) {
  for (const Compression& compression :
       {Compression{.type = CodecType::onebit, .values = ValueForm::bf16, .start_step = 2},
        Compression{.type = CodecType::topk, .ratio = 0.07, .start_step = 0},
        Compression{.type = CodecType::bf16, .start_step = 0}}) {
    Exchange e = delayed(1, 7, 5);
    std::vector<VariableSpec> all = e.variables.variables();
    for (VariableSpec& v : all) {
      if (v.dtype == DType::float32 && v.shape.rank() == 2) v.compression = compression;
    }
    e.variables = VariableTable(std::move(all));
    e.optimizer.type = OptimizerType::momentum;
    e.flush.has_residuals = compression.has_residual();
    for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {2, 4}})
      expect_reference(e, n_servers, n_workers, 4, {.seed = 5, .max_delay_polls = 8, .silent_rank = {}});
  }
}

TEST(Delay, CheckpointsAreCutAtDrainsAndGoOnWithTheSameBits) {
  const testing::TempDir dir;
  Exchange e = delayed(2, 11);
  e.checkpoint_dir = dir.path();
  e.every_steps = 2;  // half of them are no drains
  const std::string whole = reference_hash(e, 4).hex();
  EXPECT_EQ(run_over_loopback(e, 2, 2, 4).hash.value_or(Digest{}).hex(), whole);
  PosixFs fs;
  for (const int step : {2, 6, 10}) EXPECT_FALSE(fs.exists(dir / step_name(step))) << step;
  ASSERT_TRUE(fs.exists(dir / step_name(4)));
  e.first = 4;
  const ExchangeResult resumed = run_over_loopback(e, 3, 4, 4);
  EXPECT_EQ(resumed.error, "");
  EXPECT_EQ(resumed.hash.value_or(Digest{}).hex(), whole);
}

TEST(Delay, WhatIsNotFiniteIsToldOfItsStepWhoeverIsSlow) {
  for (const int slow : {0, 1}) {
    Exchange e = delayed(2, 20, 100);
    e.loss = [](Clock clock) { return clock.value == 7 ? std::nan("") : 0.5; };
    e.before_step = [slow](WorkerId w, Clock) {
      std::this_thread::sleep_for(std::chrono::milliseconds(w.value == slow ? 3 : 0));
    };
    const ExchangeResult result = run_over_loopback(e, 1, 2, 2);
    EXPECT_EQ(result.error, "not finite: step 7: the loss is nan, though all values are finite after it");
  }
}

// A server and one worker by hand, whose steps are as the test says.
class DelayByHand {
 public:
  explicit DelayByHand(const Exchange& e)
      : exchange_(e),
        server_(*servers_, cluster_, exchange_, ServerId(0)),
        worker_(*mine_, cluster_, exchange_, WorkerId(0)),
        error_(std::async(std::launch::async, [this] { return thrown([this] { server_.run(); }); })) {
    client().pull_all(Clock(0));
    client().wait_all();
  }
  PsClient& client() { return worker_.client(); }
  // What the server ends with.
  std::string error() {
    while (error_.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) client().progress();
    return error_.get();
  }

 private:
  Exchange exchange_;
  ClusterMap cluster_ = assign_roles({"a", "a"}, 1, 1);
  LoopbackHub hub_{2};
  std::unique_ptr<Transport> servers_ = hub_.endpoint(Rank(0)), mine_ = hub_.endpoint(Rank(1));
  ExchangeServer server_;
  ExchangeWorker worker_;
  std::future<std::string> error_;
};

const BucketId kSmall(1);

// One bucket is ahead of the others by as much as it may be, and by more.
TEST(Delay, AStepThatBeginsBeforeTheOneThatItReadsHasEndedIsRefused) {
  DelayByHand by_hand(delayed(1, 9));
  PsClient& client = by_hand.client();
  client.push(kSmall, Clock(1), 0);
  client.push(kSmall, Clock(2), 0);
  EXPECT_NE(thrown([&] { client.push(kSmall, Clock(3), 0); }), "no error") << "its memory is in use";
  client.wait(kSmall);
  client.push(kSmall, Clock(3), 0);
  EXPECT_EQ(by_hand.error(),
            "protocol: worker 0 pushed step 3 of bucket 1 (small) before it had all values of step 1");
}

TEST(Delay, AStepIsNotCutWhereALaterOneHasBeenApplied) {
  Exchange e = delayed(1, 9);
  DelayByHand by_hand(e);
  PsClient& client = by_hand.client();
  client.push(kSmall, Clock(1), kFlagCut);
  client.push(kSmall, Clock(2), 0);
  client.wait(kSmall);
  for (const Bucket& bucket : client.plan().buckets()) {
    if (bucket.is_pushed() && bucket.id != kSmall) client.push(bucket.id, Clock(1), kFlagCut);
  }
  EXPECT_EQ(by_hand.error(), "protocol: step 1 is cut, but server 0 has applied pushes of step 2");
}

TEST(Delay, RowsOfAnotherStepThanTheOneThatIsReadAreRefused) {
  DelayByHand by_hand(delayed_rows(1, 9, 4));
  const std::vector<std::span<const std::uint64_t>> none(1);
  std::byte nothing{};
  by_hand.client().rows().want(TableId(0), Clock(1), none, &nothing);
  EXPECT_EQ(by_hand.error(),
            "protocol: worker 0 asked for rows of table \"user/table\" at step 1, where step 0 was due");
}

TEST(Delay, AClientNeedsAsManySetsOfMemoryAsStepsMayBeUnderWay) {
  const Exchange e = delayed(2, 9);
  const ClusterMap cluster = assign_roles({"a", "a"}, 1, 1);
  const BucketPlan plan = BucketPlan::make(e.variables, 1);
  const RowPlan rows = RowPlan::make(e.variables, 1);
  LoopbackHub hub(2);
  const auto transport = hub.endpoint(Rank(1));
  VariableMemory memory(e.variables, 1, 2);
  EXPECT_EQ(
      thrown([&] { PsClient(*transport, cluster, plan, rows, WorkerId(0), memory, {.rule = {.delay = 2}}); }),
      "argument: 2 sets of memory with a delay of 2");
}

// Server 0's side by hand: one server and two workers, of which only messages are seen.
class DelayedCoordinator : public ::testing::Test, protected RunObserver {
 protected:
  Coordinator make() {
    return Coordinator(
        {.transport = *server,
         .cluster = cluster,
         .plan = plan,
         .variables = variables,
         .train = {.first = Clock(0), .last = Clock(9), .flush = {.every = 4, .last = Clock(9), .delay = 1}},
         .checkpoint = {},
         .checkpoints = nullptr,
         .observer = *this,
         .rule = {.delay = 1}});
  }
  static void report(Coordinator& coordinator, int w, std::int64_t step) {
    StepReport of_step;
    of_step.leaves = {{}};
    coordinator.on_message(
        {Rank(w + 1), make_header(MessageType::step_report, w, Clock(step)), to_binary(of_step)});
  }
  // The steps that have been let go since the last call, or whatever is of this type.
  std::vector<std::int64_t> steps_of(MessageType type, const Transport& to) {
    std::vector<std::int64_t> steps;
    for (Message m; const_cast<Transport&>(to).poll_message(m);) {
      if (type_of(m.header) == type) steps.push_back(m.header.clock);
    }
    return steps;
  }
  std::vector<std::int64_t> gos() { return steps_of(MessageType::go, *worker); }

  ClusterMap cluster = assign_roles({"a", "a", "a"}, 1, 2);
  VariableTable variables = testing::exchange_table();
  BucketPlan plan = BucketPlan::make(variables, 1);
  LoopbackHub hub{3};
  std::unique_ptr<Transport> server = hub.endpoint(Rank(0)), worker = hub.endpoint(Rank(2));
};

using Steps = std::vector<std::int64_t>;

TEST_F(DelayedCoordinator, LetsStepsGoWhoseValuesAreThereButNoneAcrossADrain) {
  Coordinator coordinator = make();
  coordinator.start();
  EXPECT_EQ(gos(), (Steps{1, 2}));
  for (const int w : {1, 0}) report(coordinator, w, 1);
  EXPECT_EQ(gos(), (Steps{3}));
  report(coordinator, 0, 2);
  report(coordinator, 0, 3);
  EXPECT_EQ(gos(), (Steps{})) << "worker 1 has not reported step 2";
  report(coordinator, 1, 2);
  EXPECT_EQ(gos(), (Steps{4}));
  report(coordinator, 1, 3);
  report(coordinator, 0, 4);
  EXPECT_EQ(gos(), (Steps{})) << "step 4 is a drain, and is not over";
  report(coordinator, 1, 4);
  EXPECT_EQ(gos(), (Steps{5, 6})) << "both read the values after step 4";
}

TEST_F(DelayedCoordinator, RefusesReportsThatAreNotInOrder) {
  Coordinator coordinator = make();
  coordinator.start();
  EXPECT_EQ(thrown([&] { report(coordinator, 0, 2); }),
            "protocol: worker 0 reports step 2 while step 1 is under way");
  report(coordinator, 0, 1);
  EXPECT_EQ(thrown([&] { report(coordinator, 0, 1); }),
            "protocol: worker 0 reports step 1 while step 2 is under way");
  report(coordinator, 0, 2);
  EXPECT_EQ(thrown([&] { report(coordinator, 0, 3); }),
            "protocol: worker 0 reports step 3 while step 2 is under way");
}

// A server may be two steps ahead of what all workers have reported. What it has found is asked for when that
// step is over; before, nothing would be known of it, and nobody would ask again.
TEST_F(DelayedCoordinator, AsksForWhatIsNotFiniteWhenItsStepIsOver) {
  Coordinator coordinator = make();
  coordinator.start();
  FiniteReport found;
  found.findings.push_back({NotFiniteFinding::Where::value, 2, "scale", "", 0, "nan"});
  coordinator.on_message({Rank(0), make_header(MessageType::finite_report, 0, Clock(0)), to_binary(found)});
  for (const int w : {0, 1}) report(coordinator, w, 1);
  EXPECT_EQ(steps_of(MessageType::finite_request, *server), (Steps{}));
  for (const int w : {0, 1}) report(coordinator, w, 2);
  EXPECT_EQ(steps_of(MessageType::finite_request, *server), (Steps{2}));
}

TEST(Delay, RowsOfTablesAreThoseOfTheSameStep) {
  for (const std::int64_t delay : {1, 2}) {
    const Exchange e = delayed_rows(delay, 11, 5);
    for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {2, 2}, {3, 4}})
      expect_reference(e, n_servers, n_workers, 4);
  }
  EXPECT_NE(reference_hash(delayed_rows(1, 11, 5), 4).hex(), reference_hash(delayed_rows(0, 11, 5), 4).hex());
}

TEST(Delay, RowsOfTablesAreTheSameWhoeverIsSlow) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    Exchange e = delayed_rows(1 + static_cast<std::int64_t>(seed % 2), 9, 4);
    const RandomStream random(seed, RandomPurpose::test, 0);
    e.before_step = [&random](WorkerId w, Clock clock) {
      const auto at = static_cast<std::uint64_t>(w.value * 1000 + clock.value);
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(at, 4) == 0 ? 6 : 0));
    };
    expect_reference(e, 2, 3, 5, {.seed = seed, .max_delay_polls = seed < 3 ? 4 : 25, .silent_rank = {}});
  }
}

// Norms need all of a step's gradients: rows and buckets of the next one wait for them, and they for nobody.
TEST(Delay, ClippingByNormsIsOfTheStepItself) {
  Exchange e = delayed_rows(2, 9, 4);
  e.optimizer.clip = {ClipType::global_norm, 0.5};
  std::vector<VariableSpec> all = e.variables.variables();
  all.push_back(
      testing::make_spec("large/weights", DType::float32, Shape{600, 401}, Initializer::normal(0, 1)));
  all.back().constraint = Constraint::max_norm(3);
  e.variables = VariableTable(std::move(all));
  const ExchangeResult one = run_over_loopback(e, 1, 1, 4);
  EXPECT_EQ(one.error, "");
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    const ExchangeResult other =
        run_over_loopback(e, 3, 4, 4, {.seed = seed, .max_delay_polls = 15, .silent_rank = {}});
    EXPECT_EQ(other.error, "");
    EXPECT_EQ(other.hash.value_or(Digest{}).hex(), one.hash.value_or(Digest{1, 1}).hex());
  }
  e.optimizer.clip = {};
  EXPECT_NE(run_over_loopback(e, 1, 1, 4).hash.value_or(Digest{}).hex(), one.hash.value_or(Digest{}).hex());
}

TEST(Delay, RowsGoOnFromACheckpoint) {
  const testing::TempDir dir;
  Exchange e = delayed_rows(2, 11, 4);
  e.checkpoint_dir = dir.path();
  e.every_steps = 4;
  const std::string whole = reference_hash(e, 4).hex();
  EXPECT_EQ(run_over_loopback(e, 2, 2, 4).hash.value_or(Digest{}).hex(), whole);
  e.first = 4;
  const ExchangeResult resumed = run_over_loopback(e, 3, 4, 4);
  EXPECT_EQ(resumed.error, "");
  EXPECT_EQ(resumed.hash.value_or(Digest{}).hex(), whole);
}

TEST(Delay, ASmallByteLimitStopsNobody) {
  Exchange e = delayed(2, 7);
  e.limits = {.max_bytes = 1, .max_window = 1};
  expect_reference(e, 2, 3, 5, {.seed = 3, .max_delay_polls = 10, .silent_rank = {}});
}

}  // namespace
}  // namespace varscope
