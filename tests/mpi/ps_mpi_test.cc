// The exchange of ps_test over MPI: the same bits.
#include <gtest/gtest.h>

#include "common/placement/cluster.h"
#include "common/transport/step_traffic.h"
#include "tests/support/jobs/mpi_main.h"
#include "tests/support/jobs/norms_exchange.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::default_exchange;
using testing::Exchange;
using testing::ExchangeServer;
using testing::ExchangeWorker;
using testing::mpi_job;
using testing::mpi_size;

constexpr int kLogicalWorkers = 6;

void expect_same_as_loopback(const Exchange& e, int n_servers) {
  const ClusterMap cluster = assign_roles(
      std::vector<std::string>(static_cast<std::size_t>(mpi_size()), "host"), n_servers, kLogicalWorkers);
  const auto transport = mpi_job().make_transport();
  const Digest expected = testing::reference_hash(e, kLogicalWorkers);
  const Rank me = transport->rank();
  if (const auto worker = cluster.worker_at(me)) {
    EXPECT_EQ(ExchangeWorker(*transport, cluster, e, *worker).run().hex(), expected.hex());
    return;
  }
  ExchangeServer server(*transport, cluster, e, *cluster.server_at(me));
  server.run();
  EXPECT_EQ(server.finished().has_value(), me == Rank(0));
  if (!server.finished()) return;
  EXPECT_EQ(server.finished()->values_hash.hex(), expected.hex());
  const auto loopback = testing::run_over_loopback(e, n_servers, cluster.n_workers(), kLogicalWorkers);
  EXPECT_EQ(loopback.error, "");
  ASSERT_TRUE(loopback.hash);
  EXPECT_EQ(server.finished()->values_hash.hex(), loopback.hash->hex());
}

TEST(PsMpi, OneServer) { expect_same_as_loopback(default_exchange(), 1); }

TEST(PsMpi, TwoServers) {
  if (mpi_size() < 3) GTEST_SKIP() << "needs three ranks";
  expect_same_as_loopback(default_exchange(), 2);
}

// What this rank sends and receives of a run of so many steps.
TransportStats traffic_of(const Exchange& e, const ClusterMap& cluster) {
  const auto transport = mpi_job().make_transport();
  if (const auto worker = cluster.worker_at(transport->rank())) {
    ExchangeWorker(*transport, cluster, e, *worker).run();
  } else {
    ExchangeServer(*transport, cluster, e, *cluster.server_at(transport->rank())).run();
  }
  return transport->stats();
}

// One more step moves as many bytes more. Each worker has two of the leaves.
TEST(PsMpi, CompressedStepsMoveTheBytesThatThePlanSays) {
  Exchange e = default_exchange();
  std::vector<VariableSpec> all = e.variables.variables();
  all[0].compression = {.type = CodecType::onebit, .values = ValueForm::bf16, .start_step = 0};
  e.variables = VariableTable(all);
  e.optimizer.type = OptimizerType::momentum;
  const int n_workers = mpi_size() - 1;
  const ClusterMap cluster =
      assign_roles(std::vector<std::string>(static_cast<std::size_t>(mpi_size()), "host"), 1, 2 * n_workers);
  const StepTraffic plan = step_traffic(BucketPlan::make(e.variables, 1), cluster);
  const TransportStats before = traffic_of(e, cluster);
  ++e.steps;
  const TransportStats after = traffic_of(e, cluster);
  const auto sent = static_cast<std::int64_t>(after.bytes_sent - before.bytes_sent),
             received = static_cast<std::int64_t>(after.bytes_received - before.bytes_received);
  const bool is_server = mpi_job().rank() == Rank(0);
  EXPECT_EQ(sent, is_server ? plan.down : plan.up / n_workers);
  EXPECT_EQ(received, is_server ? plan.up : plan.down / n_workers);
}

// Large slices, which are staged at both ends; leaves that are sent one by one.
TEST(PsMpi, CompressedGradientsAndValues) {
  Exchange e = default_exchange();
  std::vector<VariableSpec> all{
      testing::make_spec("a/weights", DType::float32, Shape{1500, 1024}, Initializer::normal(0, 1)),
      testing::make_spec("b/weights", DType::float32, Shape{777, 33}, Initializer::normal(0, 1)),
      testing::make_spec("b/bias", DType::float32, Shape{33})};
  all[0].compression = {.type = CodecType::onebit, .values = ValueForm::bf16, .start_step = 0};
  all[1].compression = {.type = CodecType::bf16};
  e.variables = VariableTable(all);
  e.optimizer.type = OptimizerType::momentum;
  e.flush = {true, 3, 0, 0, Clock(e.steps)};
  expect_same_as_loopback(e, std::min(2, mpi_size() - 1));
}

// Buckets of many chunks, most of which lie in several slices that are neighbours in the worker's memory.
TEST(PsMpi, LargeVariablesOnSeveralServers) {
  Exchange e = default_exchange();
  const Initializer random = Initializer::normal(0, 1);
  e.variables = VariableTable({testing::make_spec("a/weights", DType::float32, Shape{1500, 1024}, random),
                               testing::make_spec("a/bias", DType::float32, Shape{1024}),
                               testing::make_spec("b/weights", DType::float64, Shape{512, 1111}, random)});
  e.steps = 3;
  expect_same_as_loopback(e, std::min(2, mpi_size() - 1));
  expect_same_as_loopback(e, mpi_size() - 1);
}

TEST(PsMpi, AllButOneAreServers) { expect_same_as_loopback(default_exchange(), mpi_size() - 1); }

TEST(PsMpi, AcksAndASmallByteLimit) {
  Exchange e = default_exchange();
  e.ack_last = true;
  e.limits = {.max_bytes = 1, .max_window = 1};
  expect_same_as_loopback(e, 1);
}

TEST(PsMpi, ManySmallBuckets) {
  Exchange e = default_exchange();
  std::vector<VariableSpec> all;
  for (int i = 0; i < 150; ++i) {
    all.push_back(testing::make_spec("layer" + std::to_string(i) + "/w", DType::float32, Shape{1 + i},
                                     Initializer::normal(0, 1)));
  }
  e.variables = VariableTable(std::move(all));
  e.steps = 10;
  expect_same_as_loopback(e, 1);
}

// The bits of one server and one worker of this process.
void expect_norms_as_over_loopback(const Exchange& e, int n_servers) {
  const ClusterMap cluster = assign_roles(
      std::vector<std::string>(static_cast<std::size_t>(mpi_size()), "host"), n_servers, kLogicalWorkers);
  const auto transport = mpi_job().make_transport();
  const auto alone = testing::run_over_loopback(e, 1, 1, kLogicalWorkers);
  ASSERT_TRUE(alone.hash) << alone.error;
  if (const auto worker = cluster.worker_at(transport->rank())) {
    EXPECT_EQ(ExchangeWorker(*transport, cluster, e, *worker).run().hex(), alone.hash->hex());
    return;
  }
  ExchangeServer server(*transport, cluster, e, *cluster.server_at(transport->rank()));
  server.run();
  if (!server.finished()) return;
  EXPECT_EQ(server.finished()->values_hash.hex(), alone.hash->hex());
}

TEST(PsMpi, ClippingAndConstraintsByNorm) {
  const Exchange both = testing::norms_exchange(ClipType::global_norm, 50, testing::constrained_table());
  expect_norms_as_over_loopback(both, 1);
  if (mpi_size() < 3) return;
  expect_norms_as_over_loopback(both, 2);
  expect_norms_as_over_loopback(both, mpi_size() - 1);
}

}  // namespace
}  // namespace varscope
