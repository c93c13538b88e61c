// Click-through data that are drawn: Zipf's law against its probabilities, labels against their model.
#include "worker/data/click_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/support/references/row_ids.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::row_ids_of;
using testing::thrown;

// How often each rank of 1 .. n is drawn from `draws` uniform numbers.
std::vector<double> counts_of(const Zipf& zipf, std::int64_t n, int draws, double& drawn) {
  const RandomStream stream(3, RandomPurpose::test, 1);
  std::vector<double> counts(static_cast<std::size_t>(n), 0);
  drawn = 0;
  for (int i = 0; i < draws; ++i) {
    if (const auto k = zipf.rank(stream.uniform(static_cast<std::uint64_t>(i)))) {
      ++counts.at(static_cast<std::size_t>(*k - 1));
      ++drawn;
    }
  }
  return counts;
}

TEST(Zipf, HasItsProbabilities) {
  for (const double exponent : {0.0, 0.5, 0.999999999, 1.0, 1.1, 2.0, 6.0}) {
    for (const std::int64_t n : {1, 2, 3, 10, 300}) {
      const Zipf zipf(n, exponent);
      double drawn = 0, all = 0, chi = 0;
      const std::vector<double> counts = counts_of(zipf, n, 200'000, drawn);
      EXPECT_GT(drawn, 200'000 * 2 / 3) << exponent << " " << n;
      for (std::int64_t k = 1; k <= n; ++k) all += std::pow(static_cast<double>(k), -exponent);
      double expected = 0, count = 0;
      int cells = 0;
      for (std::int64_t k = 1; k <= n; ++k) {  // ranks that are rare go together
        expected += drawn * std::pow(static_cast<double>(k), -exponent) / all;
        count += counts[static_cast<std::size_t>(k - 1)];
        if (expected < 20 && k < n) continue;
        if (expected < 5) break;
        chi += (count - expected) * (count - expected) / expected;
        expected = count = 0;
        ++cells;
      }
      // Mean cells - 1, variance 2 (cells - 1).
      EXPECT_LT(chi, (cells - 1) + 5 * std::sqrt(2.0 * cells)) << exponent << " " << n;
    }
  }
}

TEST(Zipf, TakesRanksAtTheEndsOfTheInterval) {
  for (const double exponent : {0.0, 0.5, 1.0, 1.1, 10.0}) {
    const Zipf zipf(Zipf::kMostRanks, exponent);
    EXPECT_EQ(zipf.rank(std::nextafter(1.0, 0.0)), 1) << exponent;
    EXPECT_LE(zipf.rank(0).value_or(1), Zipf::kMostRanks) << exponent;
  }
  EXPECT_EQ(Zipf(Zipf::kMostRanks, 0).rank(0), Zipf::kMostRanks);
  EXPECT_EQ(Zipf(1, 1.1).rank(0.5), 1);
}

TEST(Zipf, WhatItIsNotMadeFor) {
  EXPECT_THAT(thrown([] { Zipf(0, 1); }),
              HasSubstr("argument: Zipf's law over 0 ranks with exponent 1; needs 1 to 1099511627776 ranks"));
  EXPECT_THAT(thrown([] { Zipf(5, -0.1); }), HasSubstr("exponent 0 to 10"));
  EXPECT_THAT(thrown([] { Zipf(5, std::nan("")); }), HasSubstr("exponent 0 to 10"));
}

struct Clicks {
  std::vector<std::uint64_t> ids;
  std::vector<double> numbers;
  std::vector<std::int32_t> labels;
  bool operator==(const Clicks&) const = default;
};
Clicks clicks_of(const Dataset& data, const std::vector<std::int64_t>& rows) {
  const auto n = std::ssize(rows);
  const Batch batch(data.spec(), DType::float64, n);
  const BatchView view = batch.view(n);
  data.read(rows, view);
  Clicks clicks;
  for (const std::int64_t id : view.inputs[0].as<std::int64_t>())
    clicks.ids.push_back(static_cast<std::uint64_t>(id));
  if (view.inputs.size() > 1) {
    const auto x = view.inputs[1].as<double>();
    clicks.numbers.assign(x.begin(), x.end());
  }
  const auto y = view.y.as<std::int32_t>();
  clicks.labels.assign(y.begin(), y.end());
  return clicks;
}

TEST(ClickData, ASampleDependsOnSeedPartAndNumberAlone) {
  const ClickOptions options{.samples = 50, .features = 5, .vocabulary = 1000, .numbers = 2};
  const ClickDataset data(options, DataSplit::train);
  ASSERT_EQ(data.inputs().size(), 2U);
  EXPECT_EQ(
      data.inputs()[0],
      (InputSpec{
          .name = "words", .shape = Shape{5}, .features = Features::row_ids, .id_type = IdType::uint64}));
  EXPECT_EQ(data.inputs()[1], (InputSpec{.name = "numbers", .shape = Shape{2}}));
  EXPECT_EQ(data.n_bytes(), 0);
  const Clicks three = clicks_of(data, {7, 3, 7});
  EXPECT_EQ(std::vector(three.ids.begin(), three.ids.begin() + 5),
            std::vector(three.ids.begin() + 10, three.ids.end()));
  ClickOptions more = options;
  more.samples = 1'000'000'000'000;
  EXPECT_EQ(clicks_of(ClickDataset(more, DataSplit::train), {7, 3, 7}), three) << "a prefix of a longer one";
  EXPECT_NE(clicks_of(ClickDataset(options, DataSplit::test), {7, 3, 7}).ids, three.ids);
  more.seed = 8;
  EXPECT_NE(clicks_of(ClickDataset(more, DataSplit::train), {7, 3, 7}).ids, three.ids);
  clicks_of(ClickDataset(more, DataSplit::train), {999'999'999'999});
  EXPECT_EQ(data.content(), ClickDataset(options, DataSplit::train).content());
  EXPECT_NE(data.content(), ClickDataset(options, DataSplit::test).content());
}

TEST(ClickData, IdsLookLikeHashesAndNoTwoAreOne) {
  const ClickDataset data({.features = 26, .vocabulary = 1000}, DataSplit::train);
  std::set<std::uint64_t> ids;
  int high = 0;
  for (std::int64_t field = 0; field < 26; ++field) {
    for (std::int64_t k = 1; k <= 1000; ++k) {
      ids.insert(data.id(field, k));
      high += static_cast<int>(data.id(field, k) >> 63U);
    }
  }
  EXPECT_EQ(ids.size(), 26'000U);
  EXPECT_NEAR(high, 13'000, 5 * 81);  // sqrt(26,000) / 2
}

TEST(ClickData, LabelsAreOfTheModelThatIsTold) {
  const std::int64_t n = 20'000;
  const ClickDataset data({.samples = n, .numbers = 3}, DataSplit::train);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  const Clicks clicks = clicks_of(data, rows);
  double clicked = 0, expected = 0, variance = 0, loss = 0, squares = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    double logit = ClickDataset::kBias;
    for (std::int64_t f = 0; f < 26; ++f)
      logit += data.weight(clicks.ids[static_cast<std::size_t>(26 * i + f)]);
    for (std::int64_t k = 0; k < 3; ++k) {
      logit += data.weight(data.id(ClickDataset::kMostFeatures + k, 1)) *
               clicks.numbers[static_cast<std::size_t>(3 * i + k)];
    }
    const double p = data.probability(i);
    EXPECT_NEAR(p, 1 / (1 + std::exp(-logit)), 1e-12);
    const int label = clicks.labels[static_cast<std::size_t>(i)];
    clicked += label;
    expected += p;
    variance += p * (1 - p);
    const double l = -std::log(label == 1 ? p : 1 - p);
    loss += l / static_cast<double>(n);
    squares += l * l / static_cast<double>(n);
  }
  EXPECT_NEAR(clicked, expected, 4 * std::sqrt(variance));
  const ClickDataset::Optimum best = data.optimum(n);
  EXPECT_NEAR(best.clicks, expected / static_cast<double>(n), 1e-12);
  EXPECT_NEAR(loss, best.log_loss, 4 * std::sqrt((squares - loss * loss) / static_cast<double>(n)));
  EXPECT_LT(best.error, 0.01 * best.log_loss);
  // Of one rate for all: what a model must beat that has learnt anything.
  const double rate = best.clicks, constant = -rate * std::log(rate) - (1 - rate) * std::log(1 - rate);
  EXPECT_LT(best.log_loss, 0.85 * constant);
}

class ClickSource : public testing::SourceTest {
 protected:
  ClickSource() : SourceTest("type: synthetic, generate: ctr, ") {}
};

TEST_F(ClickSource, IsOpenedByItsKeys) {
  const auto data = open("samples: 300, features: 4, vocabulary: 50, exponent: 0, numbers: 1, seed: 3");
  EXPECT_EQ(data->size(), 300);
  EXPECT_EQ(data->inputs()[0].shape, Shape{4});
  EXPECT_EQ(data->inputs().size(), 2U);
  const auto ids = row_ids_of(*data);
  EXPECT_LE((std::set<std::uint64_t>(ids.begin(), ids.end()).size()), 200U);
  EXPECT_GE((std::set<std::uint64_t>(ids.begin(), ids.end()).size()), 190U);
  EXPECT_THAT(data->notes(), ElementsAre(AllOf(HasSubstr("the least log loss to expect is 0."),
                                               HasSubstr("% of the labels are 1"))));
  EXPECT_EQ(open("features: 2")->inputs().size(), 1U);
}

TEST_F(ClickSource, KeysOfOtherGeneratorsAreErrors) {
  EXPECT_THAT(error("size: 8"), HasSubstr("not used by generate ctr"));
  EXPECT_THAT(error("vocabulary: 0"), HasSubstr("vocabulary: 0 is out of range"));
  EXPECT_THAT(thrown([] {
                parse_job(
                    read_yaml_text("job: {name: t}\ndata: {train: {type: synthetic, features: 5}}\nmodel: "
                                   "{loss: mean_squared_error, layers: [{type: dense, units: 1}]}\n",
                                   "job.yaml"),
                    "job.yaml");
              }),
              HasSubstr("not used by generate friedman1 (only by ctr)"));
}

}  // namespace
}  // namespace varscope
