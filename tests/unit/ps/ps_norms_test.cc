// Clipping and constraints by norm, over servers, workers and arrival orders.
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "tests/support/jobs/norms_exchange.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::constrained_table;
using testing::Exchange;
using testing::ExchangeResult;
using testing::norms_exchange;
using testing::NormsReference;
using testing::run_over_loopback;
using testing::without_constraints;

constexpr int kLeaves = 6;

double at(const Tensor& t, std::size_t i) {
  return t.dtype() == DType::float64 ? t.as<double>()[i] : static_cast<double>(t.as<float>()[i]);
}

void expect_near_reference(const Exchange& e) {
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  const NormsReference reference(e, kLeaves);
  for (std::size_t v = 0; v < e.variables.size(); ++v) {
    const std::vector<double>& expected = reference.values()[v];
    double largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      largest =
          std::max(largest, std::abs(at(result.values[v], i) - expected[i]) / (1 + std::abs(expected[i])));
    }
    // A norm over all variables carries the rounding of float32 over to the others.
    EXPECT_LT(largest, e.variables[v].dtype == DType::float64 ? 1e-9 : 1e-6) << e.variables[v].name;
  }
}

// One hash for all servers, workers and arrival orders.
void expect_same_bits(const Exchange& e) {
  const ExchangeResult first = run_over_loopback(e, 1, 1, kLeaves);
  ASSERT_EQ(first.error, "");
  const auto expect_first = [&](int n_servers, int n_workers, LoopbackFaults faults) {
    SCOPED_TRACE(fmt::format("{} servers, {} workers, seed {}", n_servers, n_workers, faults.seed));
    const ExchangeResult result = run_over_loopback(e, n_servers, n_workers, kLeaves, faults);
    ASSERT_EQ(result.error, "");
    ASSERT_TRUE(result.hash);
    EXPECT_EQ(result.hash->hex(), first.hash->hex());
    for (const Digest& d : result.worker_hash) EXPECT_EQ(d.hex(), first.hash->hex());
  };
  for (int n_servers : {1, 2, 3, 5}) {
    for (int n_workers : {1, 2, 3}) expect_first(n_servers, n_workers, {});
  }
  for (std::uint64_t seed = 1; seed <= 4; ++seed)
    expect_first(3, 2, {.seed = seed, .max_delay_polls = seed % 2 == 0 ? 3 : 40, .silent_rank = {}});
}

TEST(PsNorms, ClippingFollowsTheDefinition) {
  const VariableTable free = without_constraints(constrained_table());
  for (const auto& [type, limit] :
       {std::pair{ClipType::value, 0.5}, {ClipType::norm, 3.0}, {ClipType::global_norm, 100.0}}) {
    SCOPED_TRACE(choice_name(kClipTypes, type));
    expect_near_reference(norms_exchange(type, limit, free));
  }
}

TEST(PsNorms, ConstraintsFollowTheDefinition) {
  expect_near_reference(norms_exchange(ClipType::none, 1, constrained_table()));
}

TEST(PsNorms, ClippingAndConstraintsTogether) {
  expect_near_reference(norms_exchange(ClipType::global_norm, 50, constrained_table()));
  expect_near_reference(norms_exchange(ClipType::norm, 5, constrained_table()));
}

TEST(PsNorms, BitsDependOnLogicalWorkersOnly) {
  expect_same_bits(norms_exchange(ClipType::none, 1, constrained_table()));
  expect_same_bits(norms_exchange(ClipType::norm, 5, without_constraints(constrained_table())));
  expect_same_bits(norms_exchange(ClipType::global_norm, 50, constrained_table()));
}

TEST(PsNorms, AcksComeWhenTheStepIsFullyApplied) {
  Exchange e = norms_exchange(ClipType::global_norm, 50, constrained_table());
  const ExchangeResult values = run_over_loopback(e, 3, 2, kLeaves);
  e.ack_last = true;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const ExchangeResult acked =
        run_over_loopback(e, 3, 2, kLeaves, {.seed = seed, .max_delay_polls = 20, .silent_rank = {}});
    ASSERT_EQ(acked.error, "");
    EXPECT_EQ(acked.hash->hex(), values.hash->hex());
    EXPECT_EQ(acked.worker_hash[WorkerId(1)].hex(), values.hash->hex());
  }
}

// A checkpoint holds fully applied steps only: from any of them another cluster comes to the same end. Every
// rank loads while nobody saves: the first run keeps its checkpoint of step 2.
TEST(PsNorms, ResumesToTheSameBitsFromACutWithinDeferredSteps) {
  for (ClipType clip : {ClipType::none, ClipType::global_norm}) {
    const testing::TempDir dir;
    Exchange e = norms_exchange(clip, 50, constrained_table());  // a moving average among them
    e.steps = 4;
    const ExchangeResult whole = run_over_loopback(e, 2, 2, kLeaves);
    e.checkpoint_dir = dir.path();
    const ExchangeResult saving =
        run_over_loopback(e, 3, 2, kLeaves, {.seed = 1, .max_delay_polls = 20, .silent_rank = {}});
    ASSERT_EQ(saving.error, "");
    EXPECT_EQ(saving.hash->hex(), whole.hash->hex());
    PosixFs fs;
    const std::string last = dir / step_name(4);
    EXPECT_EQ(CheckpointReader::open(fs, last).values_hash().hex(), whole.hash->hex());
    e.first = 2;
    e.every_steps = 1000;
    for (const auto& [n_servers, n_workers] : {std::pair{1, 3}, {2, 1}, {5, 2}}) {
      std::filesystem::rename(dir / step_name(4), dir / fmt::format("aside-{}", n_servers));
      const ExchangeResult resumed = run_over_loopback(e, n_servers, n_workers, kLeaves);
      ASSERT_EQ(resumed.error, "");
      EXPECT_EQ(resumed.hash->hex(), whole.hash->hex()) << n_servers << " servers";
    }
  }
}

TEST(PsNorms, ALimitThatIsNeverReachedChangesNothing) {
  Exchange e = norms_exchange(ClipType::none, 1, without_constraints(constrained_table()));
  const ExchangeResult plain = run_over_loopback(e, 2, 2, kLeaves);
  for (ClipType type : {ClipType::norm, ClipType::global_norm, ClipType::value}) {
    e.optimizer.clip = {type, 1e30};
    EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).hash->hex(), plain.hash->hex());
  }
}

TEST(PsNorms, OneSmallVariableOnManyServers) {
  Exchange e =
      norms_exchange(ClipType::norm, 0.5,
                     VariableTable({testing::with_constraint(
                         testing::make_spec("only/w", DType::float32, Shape{10}, Initializer::normal(0, 1)),
                         Constraint::unit_norm())}));
  expect_near_reference(e);
  for (int n_servers : {1, 4}) {
    const ExchangeResult result = run_over_loopback(e, n_servers, 2, kLeaves);
    ASSERT_EQ(result.error, "");
    double squares = 0;
    for (float x : result.values[0].as<float>()) squares += static_cast<double>(x) * x;
    EXPECT_NEAR(squares, 1, 1e-6);
  }
}

TEST(PsNorms, ASmallByteLimitChangesNothing) {
  Exchange e = norms_exchange(ClipType::norm, 5, constrained_table());
  const ExchangeResult large = run_over_loopback(e, 2, 3, kLeaves);
  e.limits = {.max_bytes = 1, .max_window = 1};
  const ExchangeResult small =
      run_over_loopback(e, 2, 3, kLeaves, {.seed = 3, .max_delay_polls = 10, .silent_rank = {}});
  ASSERT_EQ(small.error, "");
  EXPECT_EQ(small.hash->hex(), large.hash->hex());
}

TEST(PsNorms, ANormThatIsNotFiniteEndsTheJobByName) {
  const auto error_of = [](ClipType clip, const Constraint& constraint) {
    std::vector<VariableSpec> all = {
        testing::make_spec("a/w", DType::float32, Shape{50, 40}, Initializer::normal(0, 1)),
        testing::make_spec("c/w", DType::float64, Shape{7}, Initializer::constant(1e200))};
    all[1].constraint = constraint;
    return run_over_loopback(norms_exchange(clip, 1, VariableTable(all)), 2, 2, 2).error;
  };
  const auto words = [](const std::string& of) {
    return "not finite: step 1: the norm of the " + of +
           " of c/w is not finite, though all values are finite after it";
  };
  for (ClipType clip : {ClipType::norm, ClipType::global_norm})
    EXPECT_EQ(error_of(clip, {}), words("gradient"));
  EXPECT_EQ(error_of(ClipType::none, Constraint::max_norm(1)), words("values"));
}

// By such a factor one bad element would spread over all variables.
TEST(PsNorms, ANormThatIsNotFiniteScalesNothing) {
  Exchange e = norms_exchange(
      ClipType::global_norm, 1,
      VariableTable({testing::make_spec("a/w", DType::float32, Shape{50, 40}, Initializer::normal(0, 1)),
                     testing::make_spec("c/w", DType::float64, Shape{7}, Initializer::constant(1e200))}));
  e.on_nan = OnNan::warn;
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  e.optimizer.clip = {};
  EXPECT_EQ(result.hash->hex(), run_over_loopback(e, 2, 2, kLeaves).hash->hex());
}

}  // namespace
}  // namespace varscope
