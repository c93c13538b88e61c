// BSP with a fixed delay: real servers, coordinator and clients over threads of one process, against a loop
// over versions.
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "common/base/philox.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::default_exchange;
using testing::Exchange;
using testing::ExchangeResult;
using testing::reference_hash;
using testing::run_over_loopback;

Exchange delayed(std::int64_t delay, int steps, std::int64_t drain_every = 4) {
  Exchange e = default_exchange();
  e.steps = steps;
  e.flush = {.every = drain_every, .last = Clock(steps), .delay = delay};
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
  for (const Digest& d : result.worker_hash)
    EXPECT_EQ(d.hex(), expected.hex()) << "a worker has other values";
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

TEST(Delay, ASmallByteLimitStopsNobody) {
  Exchange e = delayed(2, 7);
  e.limits = {.max_bytes = 1, .max_window = 1};
  expect_reference(e, 2, 3, 5, {.seed = 3, .max_delay_polls = 10, .silent_rank = {}});
}

}  // namespace
}  // namespace varscope
