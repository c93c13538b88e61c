#include "worker/data/split.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/config/source_keys.h"
#include "tests/support/thrown.h"
#include "worker/data/digits.h"
#include "worker/data/source_registry.h"

namespace varscope {
namespace {

using testing::thrown;

TEST(Split, EachSampleIsOfOnePartThatDependsOnSeedAndNumberOnly) {
  const SplitConfig split{.test = 0.2, .seed = 3};
  const auto train = samples_of_part(split, DataSplit::train, 10000),
             test = samples_of_part(split, DataSplit::test, 10000);
  EXPECT_NEAR(static_cast<double>(test.size()), 2000, 160);  // 4 standard deviations
  std::vector<std::int64_t> all = train;
  all.insert(all.end(), test.begin(), test.end());
  std::ranges::sort(all);
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<std::int64_t>(i));
  // More samples leave those before where they are.
  const auto first = samples_of_part(split, DataSplit::test, 100);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), test.begin()));
  EXPECT_NE(samples_of_part({.test = 0.2, .seed = 4}, DataSplit::test, 10000), test);
  // A greater share has the samples of a smaller one.
  const auto more = samples_of_part({.test = 0.3, .seed = 3}, DataSplit::test, 10000);
  EXPECT_TRUE(std::ranges::includes(more, test));
}

TEST(Split, APartWithoutSamplesIsRefused) {
  EXPECT_EQ(
      thrown([] { samples_of_part({.test = 1e-6}, DataSplit::test, 10); }),
      "data: data.split with test: 1e-06 leaves none of 10 samples to evaluate; choose another share or seed");
  EXPECT_NE(thrown([] { samples_of_part({.test = 0.999999}, DataSplit::train, 10); }).find("to train on"),
            std::string::npos);
}

TEST(Split, OfImagesHasSomeOfThem) {
  DigitsSource keys;
  keys.samples = 40;
  keys.size = 8;
  const DataSourceConfig digits("digits", keys);
  SourceContext context{.root = {}, .split = SplitConfig{.test = 0.5}};
  const auto train = open_source(digits, context);
  context.position = DataSplit::test;
  context.train = &digits;
  const auto test = open_source(digits, context);
  EXPECT_EQ(train->size() + test->size(), 40);
  EXPECT_FALSE(train->content() == test->content());
  const auto numbers = samples_of_part(*context.split, DataSplit::test, 40);
  const DigitsDataset all({.samples = 40, .size = 8}, DataSplit::train);
  const Batch a(all.spec(), DType::float32, 1), b(test->spec(), DType::float32, 1);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    all.read(std::vector{numbers[i]}, a.view(1));
    test->read(std::vector{static_cast<std::int64_t>(i)}, b.view(1));
    EXPECT_TRUE(std::ranges::equal(a.view(1).inputs[0].as<float>(), b.view(1).inputs[0].as<float>()));
    EXPECT_EQ(a.view(1).y.as<std::int32_t>()[0], b.view(1).y.as<std::int32_t>()[0]);
  }
}

TEST(Split, OfTextsAndPairsIsRefusedWithTheWay) {
  const SourceContext context{.root = {}, .split = SplitConfig{}};
  TextSource text;
  text.file = "t";
  DigitsSource pairs;
  pairs.samples = 9;
  pairs.pairs.pairs = true;
  EXPECT_NE(thrown([&] {
              open_source(DataSourceConfig("text", text), context);
            }).find("a text is parted by test_fraction"),
            std::string::npos);
  EXPECT_NE(thrown([&] {
              open_source(DataSourceConfig("digits", pairs), context);
            }).find("would leave images of pairs in both parts"),
            std::string::npos);
}

}  // namespace
}  // namespace varscope
