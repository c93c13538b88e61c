// The first loss or value that is not finite: who finds it, what is said, what is saved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "checkpoint/directory/scan.h"
#include "ps/not_finite_text.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::Exchange;
using testing::ExchangeResult;
using ::testing::IsEmpty;
using testing::run_over_loopback;

constexpr int kLeaves = 2;
constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

// The rate makes infinities of some gradients' products; of others, and of what is never pushed, finite
// values.
Exchange diverging(OptimizerType type = OptimizerType::sgd) {
  Exchange e;
  e.variables = VariableTable(
      {testing::make_spec("large/w", DType::float32, Shape{600, 401}, Initializer::normal(0, 1)),
       testing::make_spec("wide/w", DType::float64, Shape{5000}, Initializer::normal(0, 1)),
       testing::make_spec("small/w", DType::float32, Shape{9}, Initializer::constant(1e38)),
       testing::make_spec("small/frozen", DType::float32, Shape{13}, Initializer::constant(1), false)});
  e.optimizer.type = type;
  e.optimizer.learning_rate = 1000;  // small/w: 1e38 - 1000 * 2 * 0.01 * 1e38 < -3.4e38
  e.steps = 6;
  return e;
}

constexpr const char* kDiverged = "not finite: step 1: the update made -inf in small/w (element 0)";

TEST(NotFinite, TheUpdateThatMakesOneEndsTheJobAtOnceByStepAndVariable) {
  for (const int n_servers : {1, 2, 5}) {
    for (const std::uint64_t seed : {1, 2, 3}) {
      const ExchangeResult result = run_over_loopback(
          diverging(), n_servers, 2, kLeaves, {.seed = seed, .max_delay_polls = 20, .silent_rank = {}});
      EXPECT_EQ(result.error, kDiverged) << n_servers << " servers, seed " << seed;
    }
  }
}

TEST(NotFinite, ALossIsToldWithItsStep) {
  Exchange e = testing::default_exchange();
  e.loss = [](Clock clock) { return clock.value < 3 ? 1.0 : -kNan; };
  for (const int n_servers : {1, 3}) {
    EXPECT_EQ(run_over_loopback(e, n_servers, 2, kLeaves).error,
              "not finite: step 3: the loss is nan, though all values are finite after it");
  }
  e.loss = [](Clock) { return kInf; };
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error,
            "not finite: step 1: the loss is inf, though all values are finite after it");
}

TEST(NotFinite, LossAndValuesOfOneStepAreToldTogether) {
  Exchange e = diverging();
  e.loss = [](Clock) { return kNan; };
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error,
            "not finite: step 1: the loss is nan; the update made -inf in small/w (element 0)");
}

TEST(NotFinite, TheLastStepIsLookedAtAsWell) {
  Exchange e = diverging();
  e.steps = 1;
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error, kDiverged);
}

TEST(NotFinite, ASlotCounts) {
  Exchange e =
      diverging(OptimizerType::rmsprop);  // the square of a gradient is infinite, the value stays as it is
  e.optimizer.learning_rate = 0.001;
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error,
            "not finite: step 1: the update made inf in small/w (slot mean_square, element 0)");
}

TEST(NotFinite, SlotsOfFtrlCount) {
  Exchange e = diverging(OptimizerType::ftrl);  // the square of a gradient is infinite
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error,
            "not finite: step 1: the update made nan in small/w (element 0), inf in small/w (slot n, element "
            "0), nan in small/w (slot z, element 0)");
  e.optimizer.learning_rate = 0.001;  // the first z is about -1e38 * 0.3 / 0.001
  EXPECT_EQ(run_over_loopback(e, 2, 2, kLeaves).error,
            "not finite: the values that the run starts from have -inf in small/w (slot z, element 0)");
}

TEST(NotFinite, FirstValuesAreLookedAt) {
  Exchange e = testing::default_exchange();
  std::vector<VariableSpec> all = e.variables.variables();
  all.push_back(
      testing::make_spec("bad/frozen", DType::float64, Shape{3}, Initializer::constant(kNan), false));
  all.push_back(testing::make_spec("bad/w", DType::float32, Shape{3}, Initializer::constant(-kInf)));
  e.variables = VariableTable(all);
  EXPECT_EQ(
      run_over_loopback(e, 3, 2, kLeaves).error,
      "not finite: the values that the run starts from have nan in bad/frozen (element 0), -inf in bad/w "
      "(element 0)");
}

TEST(NotFinite, WarnTellsOnceAndGoesOn) {
  Exchange e = diverging();
  e.on_nan = OnNan::warn;
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  ASSERT_EQ(result.not_finite.size(), 1U);
  EXPECT_EQ("not finite: " + result.not_finite[0].what, kDiverged);
  EXPECT_THAT(result.not_finite[0].variables, ElementsAre("small/w"));
  EXPECT_FALSE(result.not_finite[0].ends);
  EXPECT_EQ(result.finish->not_finite_since, Clock(1));
  EXPECT_EQ(result.steps.size(), 6U);
}

TEST(NotFinite, AFiniteRunSaysNothing) {
  const ExchangeResult result = run_over_loopback(testing::default_exchange(), 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  EXPECT_THAT(result.not_finite, IsEmpty());
  EXPECT_FALSE(result.finish->not_finite_since);
}

std::vector<std::int64_t> steps_in(const std::string& dir) {
  PosixFs fs;
  std::vector<std::int64_t> steps;
  for (const CheckpointName& name : list_checkpoints(fs, dir)) steps.push_back(name.step);
  return steps;
}

TEST(NotFinite, StopKeepsOnlyFiniteCheckpoints) {
  const testing::TempDir dir;
  Exchange e = diverging();
  e.optimizer.learning_rate = 130;  // small/w: times -1.6 in each step
  e.checkpoint_dir = dir.path();
  e.every_steps = 1;
  e.when_busy = WhenBusy::queue;
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_TRUE(result.error.starts_with("not finite: step ")) << result.error;
  const std::int64_t bad = std::stoll(result.error.substr(17));
  ASSERT_GT(bad, 1) << result.error;
  PosixFs fs;
  for (const std::int64_t step : steps_in(dir.path())) {
    EXPECT_LT(step, bad);
    EXPECT_TRUE(load_manifest(fs, dir / step_name(step)).manifest.is_known_finite());
  }
}

TEST(NotFinite, WarnMarksCheckpoints) {
  const testing::TempDir dir;
  Exchange e = diverging();
  e.on_nan = OnNan::warn;
  e.checkpoint_dir = dir.path();
  const ExchangeResult result = run_over_loopback(e, 2, 2, kLeaves);
  ASSERT_EQ(result.error, "");
  ASSERT_FALSE(steps_in(dir.path()).empty());
  PosixFs fs;
  const Manifest m = load_manifest(fs, dir / step_name(steps_in(dir.path()).front())).manifest;
  EXPECT_TRUE(m.knows_not_finite);
  ASSERT_EQ(m.not_finite.size(), 1U);
  EXPECT_EQ(m.not_finite[0].variable, "small/w");
  EXPECT_EQ(m.not_finite[0].n_elements, 9);
}

NotFiniteFinding value(const std::string& variable, std::int64_t element, const std::string& what,
                       const std::string& slot = "") {
  return {NotFiniteFinding::Where::value, 4, variable, slot, element, what};
}

TEST(NotFiniteText, NamesFiveAndCountsTheOthers) {
  NotFiniteStep step{.step = 4, .loss = "nan"};
  for (const char* name : {"f", "e", "d", "c", "b", "a"}) step.findings.push_back(value(name, 7, "nan"));
  step.n_more = 10;
  EXPECT_EQ(text_of(step),
            "step 4: the loss is nan; the update made nan in a (element 7), b (element 7), c (element 7), "
            "d (element 7), e (element 7) and 11 more");
}

TEST(NotFiniteText, PutsValuesBeforeSlotsAndNormsBeforeBoth) {
  NotFiniteStep step{.step = 4};
  step.findings = {value("a", 1, "inf", "m"),
                   value("b", 2, "nan"),
                   {NotFiniteFinding::Where::gradient_norm, 4, "", "", 0, "inf"}};
  EXPECT_EQ(
      text_of(step),
      "step 4: the norm of the gradient of all variables together is not finite; the update made nan in b "
      "(element 2), inf in a (slot m, element 1)");
}

TEST(NotFiniteText, NamesRowsOfTablesByTheirIds) {
  NotFiniteStep step{.step = 4};
  step.findings = {value("user/embeddings", 3, "inf"), value("user/embeddings", 0, "inf", "m"),
                   value("word/embeddings", 1, "nan")};
  step.findings[0].row = step.findings[1].row = "-9223372036854775808";
  step.findings[2].row = "#00c0ffee00c0ffee";
  EXPECT_EQ(text_of(step),
            "step 4: the update made inf in user/embeddings (row -9223372036854775808, element 3), nan in "
            "word/embeddings (row #00c0ffee00c0ffee, element 1), inf in user/embeddings (slot m, row "
            "-9223372036854775808, element 0)");
  step.is_first = true;
  step.findings.resize(1);
  EXPECT_EQ(
      text_of(step),
      "the values that the run starts from have inf in user/embeddings (row -9223372036854775808, element 3)");
}

TEST(NotFiniteText, TellsOfAnEvaluation) {
  EXPECT_EQ(text_of({.step = 4, .test_loss = "nan"}),
            "step 4: the loss of the evaluation after it is nan, though all values are finite after it");
}

}  // namespace
}  // namespace varscope
