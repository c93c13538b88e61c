// Histograms of values and gradients, from servers over messages to the observer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/serialize.h"
#include "ps/histogram_merger.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/naive_histogram.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::default_exchange;
using ::testing::ElementsAre;
using testing::Exchange;
using testing::ExchangeResult;
using testing::expect_histogram_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_spec;
using testing::reference_hash;
using testing::run_over_loopback;
using testing::thrown;

std::vector<double> as_doubles(const Tensor& t) {
  if (t.dtype() == DType::float64) return {t.as<double>().begin(), t.as<double>().end()};
  return {t.as<float>().begin(), t.as<float>().end()};
}

// The gradients that a single logical worker pushes in `step`, from the values before it.
std::vector<double> gradients_of(int variable, const Tensor& before, std::int64_t step) {
  std::vector<double> all;
  const auto gather = [&]<class T>(T) {
    std::int64_t i = 0;
    for (const T v : before.as<T>())
      all.push_back(static_cast<double>(testing::synthetic_gradient<T>(variable, i++, 0, step, v)));
  };
  before.dtype() == DType::float64 ? gather(double()) : gather(float());
  return all;
}

Exchange asking(int steps, int every) {
  Exchange e = default_exchange();
  e.steps = steps;
  e.histogram_every_steps = every;
  return e;
}

TEST(PsHistograms, AreThoseOfAllSlicesWhoeverOwnsThem) {
  const ExchangeResult before = run_over_loopback(asking(3, 0), 1, 1, 1);
  ASSERT_EQ(before.error, "");
  EXPECT_THAT(before.histograms, IsEmpty());
  const Exchange e = asking(4, 4);
  for (const int n_servers : {1, 2, 3}) {
    SCOPED_TRACE(n_servers);
    const ExchangeResult result = run_over_loopback(e, n_servers, 1, 1);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), reference_hash(e, 1).hex()) << "no bit depends on them";
    ASSERT_EQ(result.histograms.size(), 1U);
    EXPECT_EQ(result.histograms[0].clock, Clock(4));
    std::size_t n_seen = 0;
    for (const HistogramSummary::Variable& v : result.histograms[0].variables) {
      SCOPED_TRACE(v.name);
      const auto& table = e.variables.variables();
      const auto at =
          static_cast<std::size_t>(std::ranges::find(table, v.name, &VariableSpec::name) - table.begin());
      ASSERT_LT(at, table.size());
      expect_histogram_of(v.values, as_doubles(result.values[at]));
      expect_histogram_of(v.gradient, gradients_of(static_cast<int>(at), before.values[at], 4));
      ++n_seen;
    }
    EXPECT_EQ(n_seen, 5U) << "all but the one that is never pushed";
  }
}

TEST(PsHistograms, ComeEveryNStepsInOrderWhateverTheDelays) {
  Exchange e = asking(6, 2);
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const ExchangeResult result =
        run_over_loopback(e, 3, 2, 5, {.seed = seed, .max_delay_polls = 40, .silent_rank = {}});
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), reference_hash(e, 5).hex());
    std::vector<std::int64_t> clocks;
    for (const HistogramSummary& s : result.histograms) clocks.push_back(s.clock.value);
    EXPECT_THAT(clocks, ElementsAre(2, 4, 6));
  }
}

// Clipping by norm and constraints change what is applied: gradients are shown as they came.
TEST(PsHistograms, OfGradientsAreBeforeClippingAndOfValuesAfterConstraints) {
  Exchange e = asking(1, 1);
  e.optimizer = {};
  e.optimizer.learning_rate = 1;
  e.optimizer.clip = {.type = ClipType::global_norm, .limit = 0.001};
  Tensor before(e.variables[0].dtype, e.variables[0].shape);
  e.variables[0].fill(before.view(), e.seed, 0);
  const ExchangeResult result = run_over_loopback(e, 2, 1, 1);
  ASSERT_EQ(result.error, "");
  ASSERT_EQ(result.histograms.size(), 1U);
  const auto& large = result.histograms[0].variables;
  const auto found = std::ranges::find(large, "large/weights", &HistogramSummary::Variable::name);
  ASSERT_NE(found, large.end());
  expect_histogram_of(found->gradient, gradients_of(0, before, 1));
  expect_histogram_of(found->values, as_doubles(result.values[0]));
}

TEST(PsHistograms, OfMovingAveragesHaveNoGradient) {
  Exchange e = asking(2, 2);
  VariableSpec average = make_spec("bn/mean", DType::float32, Shape{100}, Initializer::constant(0), false);
  average.average_decay = 0.9;
  e.variables = VariableTable({average});
  const ExchangeResult result = run_over_loopback(e, 1, 1, 1);
  ASSERT_EQ(result.error, "");
  ASSERT_EQ(result.histograms.size(), 1U);
  expect_histogram_of(result.histograms[0].variables.at(0).values, as_doubles(result.values[0]));
  EXPECT_EQ(result.histograms[0].variables.at(0).gradient.count(), 0);
}

// --- server 0's part ---------------------------------------------------------------------------------------

class Merger : public ::testing::Test {
 protected:
  static VariableSpec part(int index) {
    VariableSpec v = make_spec(fmt::format("a/w/part_{}", index), DType::float32, Shape{2});
    v.scope = "a";
    v.part = {"a/w", Shape{4}, Shape{2 * index}, index, 2};
    return v;
  }
  static SliceHistograms of(int variable, float value) {
    SliceHistograms h{variable, {}, {}};
    h.values.add(DType::float32, reinterpret_cast<const std::byte*>(&value), 1);
    return h;
  }
  BucketId bucket_of(int variable) const { return plan.of_variable(variable).at(0); }

  VariableTable variables{{part(0), part(1), make_spec("b/w", DType::float32, Shape{1})}};
  BucketPlan plan = BucketPlan::make(variables, 1);
  HistogramMerger merger{plan, variables};
};

TEST_F(Merger, JoinsThePartsOfAVariable) {
  EXPECT_FALSE(merger.add(Rank(0), bucket_of(1), Clock(5), {{of(1, 3)}}));
  EXPECT_FALSE(merger.add(Rank(0), bucket_of(2), Clock(5), {{of(2, 9)}}));
  const auto all = merger.add(Rank(0), bucket_of(0), Clock(5), {{of(0, 2)}});
  ASSERT_TRUE(all);
  ASSERT_EQ(all->variables.size(), 2U);
  EXPECT_EQ(all->variables[0].name, "a/w");
  expect_histogram_of(all->variables[0].values, {2, 3});
  EXPECT_EQ(all->variables[1].name, "b/w");
}

TEST_F(Merger, KeepsStepsApart) {
  EXPECT_FALSE(merger.add(Rank(0), bucket_of(2), Clock(6), {{of(2, 1)}})) << "a fast server";
  EXPECT_FALSE(merger.add(Rank(0), bucket_of(2), Clock(5), {{of(2, 2)}}));
  const auto five = merger.add(Rank(0), bucket_of(0), Clock(5), {{of(0, 0), of(1, 0)}});
  ASSERT_TRUE(five);
  EXPECT_EQ(five->clock, Clock(5));
  expect_histogram_of(five->variables[1].values, {2});
}

TEST_F(Merger, RefusesWhatCannotBe) {
  EXPECT_EQ(
      thrown([&] { merger.add(Rank(3), bucket_of(2), Clock(5), {{of(0, 1)}}); }),
      fmt::format("protocol: rank 3 reports histograms of variable 0 in bucket {} of step 5, which has none "
                  "there",
                  bucket_of(2).value));
  merger.add(Rank(3), bucket_of(2), Clock(5), {{of(2, 1)}});
  EXPECT_THAT(thrown([&] { merger.add(Rank(3), bucket_of(2), Clock(5), {{of(2, 1)}}); }),
              HasSubstr("which has been reported"));
  // Bytes of a message that are not what they were: what can still be read must make sense.
  const std::string bytes = to_binary(HistogramReport{{of(2, 1)}});
  int n_refused = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 2);
    HistogramReport lie;
    if (thrown([&] { lie = from_binary<HistogramReport>(damaged, "a report"); }) != "no error") continue;
    const std::string what =
        thrown([&] { HistogramMerger(plan, variables).add(Rank(3), bucket_of(2), Clock(7), lie); });
    n_refused += what == "protocol: rank 3 reports histograms of variable \"b/w\" that make no sense" ? 1 : 0;
  }
  EXPECT_GT(n_refused, 0);
}

}  // namespace
}  // namespace varscope
