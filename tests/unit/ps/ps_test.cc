// Servers, coordinator and clients together, over threads of one process.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>

#include "common/base/clock.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/plan_checks.h"
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

void expect_reference(const Exchange& e, int n_servers, int n_workers, int n_leaves,
                      LoopbackFaults faults = {}) {
  SCOPED_TRACE(fmt::format("{} servers, {} workers, {} logical workers", n_servers, n_workers, n_leaves));
  const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, n_leaves, faults);
  ASSERT_EQ(result.error, "");
  const Digest expected = reference_hash(e, n_leaves);
  ASSERT_TRUE(result.hash);
  EXPECT_EQ(result.hash->hex(), expected.hex());
  for (const Digest& d : result.worker_hash)
    EXPECT_EQ(d.hex(), expected.hex()) << "a worker has other values";
  ASSERT_EQ(result.steps.size(), static_cast<std::size_t>(e.steps));
  for (int step = 1; step <= e.steps; ++step) {
    const StepSummary& s = result.steps[static_cast<std::size_t>(step - 1)];
    EXPECT_EQ(s.clock, Clock(step));
    EXPECT_EQ(s.epoch, (step - 1) / 2 + 1);
    EXPECT_EQ(s.sums.samples, 2 * n_leaves);
    EXPECT_EQ(s.sums.correct, n_leaves * (n_leaves - 1) / 2);
    EXPECT_EQ(s.sums.loss, n_leaves * n_leaves / 2.0);
  }
}

TEST(Ps, EqualsTheReferenceForAnyServersAndWorkers) {
  const Exchange e = default_exchange();
  for (const auto& [n_servers, n_workers, n_leaves] :
       {std::tuple{1, 1, 1}, {1, 2, 2}, {2, 1, 1}, {2, 3, 3}, {3, 2, 2}, {1, 3, 3}}) {
    expect_reference(e, n_servers, n_workers, n_leaves);
  }
}

TEST(Ps, BitsDependOnLogicalWorkersOnly) {
  const Exchange e = default_exchange();
  for (const auto& [n_servers, n_workers] : {std::pair{1, 1}, {1, 2}, {2, 3}, {1, 5}, {3, 4}}) {
    expect_reference(e, n_servers, n_workers, 6);
  }
  EXPECT_NE(reference_hash(e, 6), reference_hash(e, 5));
}

TEST(Ps, DelaysChangeNothing) {
  Exchange e = default_exchange();
  e.steps = 3;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    expect_reference(e, 2, 3, 5,
                     {.seed = seed, .max_delay_polls = seed % 2 == 0 ? 3 : 40, .silent_rank = {}});
  }
}

// The receives of a bucket's chunks complete in any order; its values must still be sent in the chunks' own.
TEST(Ps, ChunksThatOvertakeChangeNothing) {
  Exchange e = default_exchange();
  e.steps = 3;
  e.variables = VariableTable(
      {testing::make_spec("a/weights", DType::float32, Shape{1700, 401}, Initializer::normal(0, 1)),
       testing::make_spec("a/biases", DType::float32, Shape{401})});
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    for (const int n_servers : {1, 2})
      expect_reference(e, n_servers, 2, 3, {.seed = seed, .max_delay_polls = 30, .silent_rank = {}});
  }
}

TEST(Ps, ASmallByteLimitChangesNothing) {
  Exchange e = default_exchange();
  e.limits = {.max_bytes = 1, .max_window = 1};
  expect_reference(e, 2, 3, 5, {.seed = 3, .max_delay_polls = 10, .silent_rank = {}});
}

TEST(Ps, EveryOptimizer) {
  for (OptimizerType type :
       {OptimizerType::sgd, OptimizerType::momentum, OptimizerType::nesterov, OptimizerType::adagrad,
        OptimizerType::rmsprop, OptimizerType::adamw, OptimizerType::ftrl, OptimizerType::rowwise_adagrad}) {
    Exchange e = default_exchange();
    e.steps = 2;
    e.optimizer.type = type;
    e.optimizer.weight_decay = 0.01;
    expect_reference(e, 2, 2, 3);
  }
}

VariableTable table_with_averages() {
  std::vector<VariableSpec> all = testing::exchange_table().variables();
  const Initializer random = Initializer::normal(0, 1);
  for (const auto& [name, dtype, shape, decay] :
       {std::tuple{"large/mean", DType::float32, Shape{140'000}, 0.9},
        {"small/variance", DType::float64, Shape{9}, 0.0},
        {"small/mean", DType::float32, Shape{9}, 0.99}}) {
    all.push_back(testing::make_spec(name, dtype, shape, random, false));
    all.back().average_decay = decay;
  }
  return VariableTable(std::move(all));
}

TEST(Ps, MovingAveragesTakeTheGlobalBatchsSample) {
  Exchange e = default_exchange();
  e.variables = table_with_averages();
  for (int n_servers : {1, 2, 3}) {
    for (int n_workers : {1, 2, 3}) expect_reference(e, n_servers, n_workers, 6);
  }
  e.ack_last = true;
  e.optimizer.clip = {ClipType::value, 1e9};  // averages are not clipped
  expect_reference(e, 2, 2, 3);
}

TEST(Ps, FollowsTheSchedule) {
  Exchange e = default_exchange();
  e.optimizer.schedule.type = ScheduleType::step;
  e.optimizer.schedule.every_steps = 1;
  const Digest halved = (e.optimizer.schedule.factor = 0.5, reference_hash(e, 3));
  expect_reference(e, 2, 2, 3);
  e.optimizer.schedule.factor = 0.25;
  EXPECT_NE(reference_hash(e, 3), halved);
}

TEST(Ps, PushesMayAskForAnAckAndPullLater) {
  Exchange e = default_exchange();
  e.ack_last = true;
  expect_reference(e, 2, 3, 3);
  expect_reference(e, 2, 3, 3, {.seed = 1, .max_delay_polls = 20, .silent_rank = {}});
}

TEST(Ps, MoreServersThanBuckets) {
  Exchange e = default_exchange();
  e.variables =
      VariableTable({testing::make_spec("only/w", DType::float32, Shape{10}, Initializer::normal(0, 1))});
  expect_reference(e, 4, 2, 2);
}

// A worker that starts late pulls when the others have already pushed the first step, which cannot end
// without it.
TEST(Ps, APullDuringARoundIsAnswered) {
  Exchange e = default_exchange();
  e.steps = 1;
  const ClusterMap cluster = assign_roles({"a", "a", "a"}, 1, 2);
  LoopbackHub hub(3);
  const auto t0 = hub.endpoint(Rank(0)), t1 = hub.endpoint(Rank(1)), t2 = hub.endpoint(Rank(2));
  ExchangeServer server(*t0, cluster, e, ServerId(0));
  std::thread serving([&] {
    try {
      server.run();
    } catch (const Aborted&) {
      // What made the test give up is being reported.
    }
  });
  ExchangeWorker early(*t1, cluster, e, WorkerId(0)), late(*t2, cluster, e, WorkerId(1));
  early.client().pull_all(Clock(0));
  early.client().wait_all();
  early.push_step(Clock(1));
  late.client().pull_all(Clock(0));  // behind the pushes in the server's inbox
  const std::int64_t deadline = now_ns() + 10'000'000'000;
  const BucketId last(BucketPlan::make(e.variables, 1).size() - 1);
  const auto all_ready = [&] {
    bool ready = true;
    for (int b = 0; b <= last.value; ++b) ready &= late.client().ready(BucketId(b));
    return ready;
  };
  while (!all_ready() && now_ns() < deadline) {
    late.client().progress();
    std::this_thread::yield();
  }
  EXPECT_TRUE(all_ready()) << "the pull waits for a round that waits for the pull";
  if (!all_ready()) hub.abort();
  if (all_ready()) {
    late.push_step(Clock(1));
    std::thread other([&] { EXPECT_EQ(early.finish(), reference_hash(e, 2)); });
    EXPECT_EQ(late.finish(), reference_hash(e, 2));
    other.join();
  }
  serving.join();
}

TEST(Ps, ASilentWorkerIsNamed) {
  for (int n_servers : {1, 2}) {
    Exchange e = default_exchange();
    e.server_stall_s = e.worker_stall_s = 1;
    const Rank silent(n_servers + 1);  // worker 1
    const ExchangeResult result =
        run_over_loopback(e, n_servers, 3, 3, {.seed = 0, .max_delay_polls = 0, .silent_rank = silent});
    EXPECT_TRUE(result.error.starts_with(
        fmt::format("stall: no sign of life from worker 1 (rank {}) for 1.", silent.value)))
        << result.error;
  }
}

TEST(Ps, ASilentServerIsNamed) {
  Exchange e = default_exchange();
  e.server_stall_s = e.worker_stall_s = 1;
  const ExchangeResult result =
      run_over_loopback(e, 2, 2, 2, {.seed = 0, .max_delay_polls = 0, .silent_rank = Rank(1)});
  EXPECT_TRUE(result.error.starts_with("stall: no sign of life from server 1 (rank 1) for 1."))
      << result.error;
}

// One server, two workers; the messages a worker sends are made by hand.
struct ByHand {
  ByHand() : server(*t0, cluster, e, ServerId(0)) {}
  MessageHeader push(int bucket) const {
    const Bucket& b = plan[BucketId(bucket)];
    MessageHeader h = make_header(MessageType::push, 0, Clock(1));
    h.bucket = bucket;
    h.sequence = 1;
    h.n_contributions = 1;
    h.n_bytes = static_cast<std::uint64_t>(b.n_bytes());
    return h;
  }
  std::string answer_to(const MessageHeader& h, std::string_view body = {}, bool from_worker_1 = false) {
    (from_worker_1 ? t2 : t1)->send_message(Rank(0), h, body);
    return thrown([&] { server.run(); });
  }
  Exchange e = default_exchange();
  ClusterMap cluster = assign_roles({"a", "a", "a"}, 1, 2);
  BucketPlan plan = BucketPlan::make(e.variables, 1);
  LoopbackHub hub{3};
  std::unique_ptr<Transport> t0 = hub.endpoint(Rank(0)), t1 = hub.endpoint(Rank(1)),
                             t2 = hub.endpoint(Rank(2));
  ExchangeServer server;
};

TEST(Server, TellsWrongMessagesApart) {
  const auto answer = [](const std::function<void(MessageHeader&)>& change) {
    ByHand by_hand;
    MessageHeader h = by_hand.push(0);
    change(h);
    return by_hand.answer_to(h);
  };
  EXPECT_EQ(answer([](auto& h) { h.sequence = 2; }),
            "protocol: push 2 of worker 0 arrived where push 1 was due");
  EXPECT_EQ(answer([](auto& h) { h.bucket = 1000; }),
            "protocol: worker 0 pushed bucket 1000, which is not on server 0");
  EXPECT_EQ(answer([](auto& h) { h.bucket = -7; }),
            "protocol: worker 0 pushed bucket -7, which is not on server 0");
  EXPECT_EQ(answer([](auto& h) { h.bucket = 2; }),
            "protocol: worker 0 pushed bucket 2 (small), whose values never change");
  EXPECT_EQ(answer([](auto& h) { h.clock = 2; }),
            "protocol: worker 0 pushed step 2 of bucket 0 (large), which is at step 0");
  EXPECT_NE(answer([](auto& h) { h.n_bytes = std::uint64_t{1} << 62; }).find("expected"), std::string::npos);
  EXPECT_EQ(answer([](auto& h) {
              h.type = static_cast<std::uint16_t>(MessageType::pull);
              h.bucket = 77;
            }),
            "protocol: worker 0 pulled bucket 77, which is not on server 0");
  EXPECT_EQ(answer([](auto& h) { h.type = static_cast<std::uint16_t>(MessageType::ack); }),
            "protocol: rank 1 sent the coordinator a ack");
  EXPECT_EQ(answer([](auto& h) { h.type = static_cast<std::uint16_t>(MessageType::cut); }),
            "protocol: a checkpoint of step 1 was asked for, but none are configured");
  EXPECT_EQ(answer([](auto& h) {
              h.type = static_cast<std::uint16_t>(MessageType::norm_sums);
              h.flags = 7;
            }),
            "protocol: rank 1 sent sums of squares of the unknown kind 7");
  EXPECT_EQ(answer([](auto& h) {
              h.type = static_cast<std::uint16_t>(MessageType::norm_sums);
              h.flags = kNormsOfValues;
            }),
            "protocol: rank 1 sent norms as server 0");
  EXPECT_EQ(answer([](auto& h) {
              h.type = static_cast<std::uint16_t>(MessageType::norm_scales);
              h.flags = kNormsOfGradients;
            }),
            "protocol: rank 1 sent server 0 factors of step 1, which are not due");
}

TEST(Server, RefusesAnotherServersBucket) {
  const Exchange e = default_exchange();
  const ClusterMap cluster = assign_roles({"a", "a", "a"}, 2, 1);
  const std::vector<BucketId> others = BucketPlan::make(e.variables, 2).of_server(ServerId(1));
  ASSERT_FALSE(others.empty());
  LoopbackHub hub(3);
  const auto mine = hub.endpoint(Rank(0)), worker = hub.endpoint(Rank(2));
  ExchangeServer server(*mine, cluster, e, ServerId(0));
  MessageHeader h = make_header(MessageType::pull, 0, Clock(0));
  h.bucket = others[0].value;
  worker->send_message(Rank(0), h);
  EXPECT_EQ(thrown([&] { server.run(); }),
            fmt::format("protocol: worker 0 pulled bucket {}, which is not on server 0", h.bucket));
}

// One bucket a step ahead of the others: a cut of "step 1" would have its step 2 in it.
TEST(Server, RefusesAStepThatBeginsBeforeTheOneBeforeHasEnded) {
  const Exchange e = default_exchange();
  const ClusterMap cluster = assign_roles({"a", "a"}, 1, 1);
  LoopbackHub hub(2);
  const auto servers = hub.endpoint(Rank(0)), mine = hub.endpoint(Rank(1));
  ExchangeServer server(*servers, cluster, e, ServerId(0));
  ExchangeWorker worker(*mine, cluster, e, WorkerId(0));
  auto error = std::async(std::launch::async, [&] { return thrown([&] { server.run(); }); });
  PsClient& client = worker.client();
  client.pull_all(Clock(0));
  client.wait_all();
  const BucketId small(1);
  client.push(small, Clock(1), 0);
  client.wait(small);
  client.push(small, Clock(2), 0);
  while (error.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) client.progress();
  EXPECT_EQ(error.get(),
            "protocol: worker 0 pushed step 2 of bucket 1 (small) before it had all values of step 1");
}

TEST(Coordinator, TellsWrongReportsApart) {
  const auto answer = [](MessageType type, int sender, Clock clock, const std::string& body) {
    ByHand by_hand;
    return by_hand.answer_to(make_header(type, sender, clock), body);
  };
  StepReport one_leaf;
  one_leaf.leaves = {{}};
  StepReport two_leaves;
  two_leaves.leaves = {{}, {}};
  EXPECT_EQ(answer(MessageType::step_report, 0, Clock(2), to_binary(one_leaf)),
            "protocol: worker 0 reports step 2 while step 1 is under way");
  EXPECT_EQ(answer(MessageType::step_report, 1, Clock(1), to_binary(one_leaf)),
            "protocol: rank 1 sent a step report as worker 1");
  EXPECT_EQ(answer(MessageType::step_report, 0, Clock(1), to_binary(two_leaves)),
            "protocol: worker 0 reports 2 logical workers");
  EXPECT_NE(
      answer(MessageType::step_report, 0, Clock(1), "xx").find("should hold a step report cannot be read"),
      std::string::npos);
  EvalReport eval;
  eval.batches = {5};
  eval.sums = {{}};
  eval.n_batches = 3;
  EXPECT_EQ(answer(MessageType::eval_report, 0, Clock(1), to_binary(eval)),
            "protocol: rank 1 reports 1 evaluation batches with 1 sums, 0 real and 0 integer metrics");
  eval.reals = {{}};
  EXPECT_EQ(answer(MessageType::eval_report, 0, Clock(1), to_binary(eval)),
            "protocol: rank 1 reports evaluation batch 5 of 3, or twice");
  eval.n_batches = -1;
  EXPECT_EQ(answer(MessageType::eval_report, 0, Clock(1), to_binary(eval)),
            "protocol: rank 1 reports an evaluation of -1 batches");
}

// One worker; the messages of server 0 are made by hand.
std::string client_answer_to(MessageHeader h) {
  const Exchange e = default_exchange();
  const ClusterMap cluster = assign_roles({"a", "a"}, 1, 1);
  LoopbackHub hub(2);
  const auto server = hub.endpoint(Rank(0)), mine = hub.endpoint(Rank(1));
  ExchangeWorker worker(*mine, cluster, e, WorkerId(0));
  worker.client().pull_all(Clock(3));
  server->send_message(Rank(1), h, {});
  return thrown([&] { worker.client().progress(); });
}

TEST(PsClient, TellsWrongAnswersApart) {
  MessageHeader good = make_header(MessageType::value, 0, Clock(3));
  good.bucket = 1;
  good.n_bytes = 9 * 7 * 4;
  EXPECT_EQ(client_answer_to(good), "no error");
  MessageHeader h = good;
  h.bucket = 99;
  EXPECT_EQ(client_answer_to(h), "protocol: server 0 answered for bucket 99, which does not exist");
  h = good;
  h.clock = 2;
  EXPECT_EQ(
      client_answer_to(h),
      "protocol: server 0 sent a value of step 2 (252 bytes) of bucket 1 (small), where step 3 was due");
  h = good;
  h.n_bytes = 4;
  EXPECT_NE(client_answer_to(h).find("(4 bytes) of bucket 1 (small)"), std::string::npos);
  h = good;
  h.type = static_cast<std::uint16_t>(MessageType::ack);
  EXPECT_NE(client_answer_to(h), "no error");
  h = good;
  h.type = static_cast<std::uint16_t>(MessageType::push);
  EXPECT_EQ(client_answer_to(h), "protocol: rank 0 sent worker 0 a push");
}

TEST(PsClient, APushWhileTheValueIsUnderWayIsRefused) {
  const Exchange e = default_exchange();
  const ClusterMap cluster = assign_roles({"a", "a"}, 1, 1);
  LoopbackHub hub(2);
  const auto mine = hub.endpoint(Rank(1));
  ExchangeWorker worker(*mine, cluster, e, WorkerId(0));
  worker.client().pull_all(Clock(0));
  EXPECT_EQ(thrown([&] { worker.client().push(BucketId(0), Clock(1), 0); }),
            "argument: bucket 0 (large) is pushed while its value is under way");
}

}  // namespace
}  // namespace varscope
