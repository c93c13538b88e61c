// Pairs of words of a text: which there are, what is drawn beside them, and by which distribution.
#include "worker/data/skipgram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::thrown;

// Sum of (count - expected)^2 / expected, where `cells - 1` is the mean and twice that the variance.
double chi_squared(const std::vector<double>& counts, const std::vector<double>& weights) {
  double n = 0, sum = 0, chi = 0;
  for (const double c : counts) n += c;
  for (const double w : weights) sum += w;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = n * weights[i] / sum;
    if (expected > 0) chi += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return chi;
}

TEST(AliasTable, DrawsByTheWeights) {
  const std::vector<double> weights{1, 2, 0, 3, 10, 0.5, 0.5};
  const AliasTable table(weights);
  const RandomStream stream(5, RandomPurpose::test, 0);
  std::vector<double> counts(weights.size(), 0);
  for (std::uint64_t i = 0; i < 100'000; ++i) ++counts[static_cast<std::size_t>(table.draw(stream.words(i)))];
  EXPECT_EQ(counts[2], 0) << "of weight 0";
  EXPECT_LT(chi_squared(counts, weights), 5 + 5 * std::sqrt(10.0));
  EXPECT_EQ(AliasTable(std::vector<double>{7}).draw(stream.words(0)), 0);
}

class Skipgram : public testing::SourceTest {
 protected:
  Skipgram() : SourceTest("type: skipgram, file: t, ") {}
  // Every word counts, and none is taken out.
  static SkipgramOptions plain(std::int64_t window) {
    return {.min_count = 1, .window = window, .negatives = 2, .subsample = 0, .test_fraction = 0};
  }
  SkipgramDataset dataset(const std::string& text, const SkipgramOptions& options) const {
    return {write("t", text), options};
  }
};

struct Pairs {
  std::vector<std::int32_t> words, contexts;
  std::vector<std::int32_t> labels;
  bool operator==(const Pairs&) const = default;
};
Pairs pairs_of(const Dataset& data, const std::vector<std::int64_t>& rows) {
  const Batch batch(data.spec(), DType::float32, std::ssize(rows));
  const BatchView view = batch.view(std::ssize(rows));
  data.read(rows, view);
  Pairs pairs;
  const auto w = view.inputs[0].as<std::int32_t>(), c = view.inputs[1].as<std::int32_t>();
  pairs.words.assign(w.begin(), w.end());
  pairs.contexts.assign(c.begin(), c.end());
  const auto y = view.y.as<std::int32_t>();
  pairs.labels.assign(y.begin(), y.end());
  return pairs;
}
std::vector<std::int64_t> first(std::int64_t n) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

TEST_F(Skipgram, AllNeighboursWithinAWindowOfOne) {
  const SkipgramDataset data = dataset("b a c a", plain(1));
  EXPECT_THAT(data.vocabulary(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(std::vector(data.words().begin(), data.words().end()), ElementsAre(1, 0, 2, 0));
  ASSERT_EQ(data.size(), 6);
  EXPECT_EQ(data.inputs(),
            (std::vector<InputSpec>{
                {.name = "word", .shape = Shape{1}, .features = Features::ids, .n_ids = 3},
                {.name = "context", .shape = Shape{3}, .features = Features::ids, .n_ids = 3}}));
  const Pairs pairs = pairs_of(data, first(6));
  EXPECT_THAT(pairs.words, ElementsAre(1, 0, 0, 2, 2, 0));
  std::vector<std::int32_t> near;
  for (std::size_t i = 0; i < 6; ++i) near.push_back(pairs.contexts[3 * i]);
  EXPECT_THAT(near, ElementsAre(0, 1, 2, 0, 0, 2));
  EXPECT_THAT(pairs.labels, ElementsAre(1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0));
}

// For each word all that are 1 to b places away, where b is one number of 1 .. window.
TEST_F(Skipgram, WindowsAreOfOneSizeToBothSidesAndAllSizesAreAlike) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += fmt::format("w{} ", i);
  const std::int64_t window = 4;
  const SkipgramDataset data = dataset(text, plain(window));
  std::map<std::int64_t, std::vector<std::int64_t>> near;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const auto [word, context] = data.pair(i);
    near[word].push_back(context - word);
  }
  ASSERT_EQ(near.size(), 3000U);
  std::vector<double> sizes(4, 0);
  for (const auto& [word, offsets] : near) {
    std::int64_t b = 0;
    for (const std::int64_t o : offsets) b = std::max(b, std::abs(o));
    std::vector<std::int64_t> expected;
    for (std::int64_t o = -b; o <= b; ++o) {
      if (o != 0 && word + o >= 0 && word + o < 3000) expected.push_back(o);
    }
    EXPECT_EQ(offsets, expected) << word;
    ASSERT_LE(b, window);
    if (word >= window && word < 3000 - window) ++sizes[static_cast<std::size_t>(b - 1)];
  }
  EXPECT_LT(chi_squared(sizes, {1, 1, 1, 1}), 3 + 5 * std::sqrt(6.0));
}

TEST_F(Skipgram, FrequentWordsAreTakenOutByTheirShare) {
  std::string text;
  for (int i = 0; i < 40'000; ++i)
    text += i % 4 == 0 ? "the " : i % 40 == 1 ? "of " : fmt::format("w{} ", i % 977);
  SkipgramOptions options = plain(2);
  options.subsample = 0.01;
  const SkipgramDataset all = dataset(text, plain(2)), some = dataset(text, options);
  const auto count = [](const SkipgramDataset& data, const std::string& word) {
    const auto id = std::ranges::find(data.vocabulary(), word) - data.vocabulary().begin();
    return static_cast<double>(std::ranges::count(data.words(), static_cast<std::int32_t>(id)));
  };
  for (const char* word : {"the", "of"}) {
    const double n = count(all, word), share = std::sqrt(0.01 / (n / 40'000));
    EXPECT_NEAR(count(some, word), n * share, 4 * std::sqrt(n * share * (1 - share))) << word;
  }
  for (const char* word : {"w5", "w976"}) EXPECT_EQ(count(some, word), count(all, word));
}

TEST_F(Skipgram, NegativesAreByTheFrequencyToThreeQuartersAndNeverTheContext) {
  std::string text;
  const std::vector<int> counts{400, 200, 100, 50, 20};
  for (std::size_t w = 0; w < counts.size(); ++w) {
    for (int i = 0; i < counts[w]; ++i) text += fmt::format("w{} ", w);
  }
  SkipgramOptions options = plain(3);
  options.negatives = 10;
  const SkipgramDataset data = dataset(text, options);
  const Pairs pairs = pairs_of(data, first(data.size()));
  std::map<std::int32_t, std::vector<double>> drawn;  // by the context
  for (std::size_t i = 0; i < pairs.words.size(); ++i) {
    const std::int32_t context = pairs.contexts[11 * i];
    auto& of = drawn.try_emplace(context, 5, 0.0).first->second;
    for (std::size_t k = 1; k < 11; ++k) ++of.at(static_cast<std::size_t>(pairs.contexts[11 * i + k]));
  }
  ASSERT_EQ(drawn.size(), 5U);
  for (const auto& [context, of] : drawn) {
    std::vector<double> weights;
    for (const int c : counts) weights.push_back(std::pow(c, 0.75));
    weights[static_cast<std::size_t>(context)] = 0;
    EXPECT_EQ(of[static_cast<std::size_t>(context)], 0);
    EXPECT_LT(chi_squared(of, weights), 3 + 5 * std::sqrt(6.0)) << context;
  }
  const SkipgramDataset two = dataset("a b a a a a a a a a", plain(1));
  for (const std::int32_t context : pairs_of(two, first(two.size())).contexts) EXPECT_LT(context, 2);
}

TEST_F(Skipgram, ASampleDependsOnSeedAndNumberAlone) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("w{} ", i * i % 37);
  SkipgramOptions options = plain(5);
  options.subsample = 0.02;
  const SkipgramDataset data = dataset(text, options), again = dataset(text, options);
  const Pairs some = pairs_of(data, {700, 3, 700});
  EXPECT_EQ(some, pairs_of(again, {700, 3, 700}));
  EXPECT_EQ(some.words[0], some.words[2]);
  EXPECT_EQ(std::vector(some.contexts.begin(), some.contexts.begin() + 3),
            std::vector(some.contexts.begin() + 6, some.contexts.end()));
  EXPECT_EQ(data.identity(), again.identity());
  options.seed = 2;
  EXPECT_NE(dataset(text, options).content(), data.content());
  options.negatives = 3;
  EXPECT_NE(dataset(text, options).content(), data.content());
}

TEST_F(Skipgram, RareWordsAreTakenOutOfTheText) {
  SkipgramOptions options = plain(1);
  options.min_count = 2;
  const SkipgramDataset data = dataset("a x b a y b", options);
  EXPECT_THAT(data.vocabulary(), ElementsAre("a", "b"));
  EXPECT_THAT(std::vector(data.words().begin(), data.words().end()), ElementsAre(0, 1, 0, 1));
  EXPECT_EQ(data.pair(0), (std::pair<std::int64_t, std::int64_t>{0, 1})) << "x is not between them";
  options.min_count = 1;
  options.vocabulary = 3;
  EXPECT_THAT(dataset("a x b a y b", options).vocabulary(), ElementsAre("a", "b", "x"));
  EXPECT_THAT(data.notes(), ElementsAre("a vocabulary of 2 words; 4 of 6 words of the text are left"));
}

TEST_F(Skipgram, IsOpenedByItsKeysAndTestedOnTheEndOfTheText) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += i < 150 ? "a b " : "b c a ";
  write("t", text);
  const std::string keys = "min_count: 1, window: 2, negatives: 3, subsample: 0, test_fraction: 0.25";
  const auto train = open(keys);
  EXPECT_EQ(train->label_shape(), Shape{4});
  EXPECT_EQ(train->target(), Target::classes);
  EXPECT_EQ(train->n_classes(), 2);
  const auto test = open_test(keys, "type: skipgram, file: t, " + keys);
  EXPECT_EQ(test->vocabulary_digest(), train->vocabulary_digest());
  EXPECT_NE(test->content(), train->content());
  write("other", "a c b b a a zzz zzz");
  const auto other = open_test(keys, "type: skipgram, file: other, " + keys);
  EXPECT_EQ(other->vocabulary_digest(), train->vocabulary_digest()) << "words of data.train alone";
  EXPECT_THAT(thrown([&] { open_test(keys, "type: skipgram, file: t, negatives: 4"); }),
              HasSubstr("vocabulary, min_count and negatives must be those of data.train, another skipgram"));
  EXPECT_THAT(thrown([&] {
                open_test(keys, "type: skipgram, file: t, min_count: 1, negatives: 3, test_fraction: 0.5");
              }),
              HasSubstr("test_fraction is 0.5, but 0.25 for the same file in data.train"));
  const SourceContext split{.root = dir_, .split = SplitConfig{}};
  EXPECT_THAT(thrown([&] { open_source(config(keys).train, split); }),
              HasSubstr("a text is parted by test_fraction"));
}

TEST_F(Skipgram, WhatMakesNoPairsIsAnError) {
  EXPECT_THAT(thrown([&] { dataset("a a a", plain(1)); }),
              HasSubstr("t: 1 of its words occur 1 times or more (min_count); pairs need two or more"));
  SkipgramOptions options = plain(1);
  options.words = 1;
  EXPECT_THAT(thrown([&] { dataset("a b", options); }),
              HasSubstr("t: 1 of the 1 words of its training part are left, which make no pair"));
  EXPECT_THAT(thrown([&] { dataset(std::string("a b \0", 5), plain(1)); }),
              HasSubstr("is no text: its byte 4 is 0"));
  EXPECT_THAT(thrown([&] { dataset("a b", plain(256)); }), HasSubstr("argument: pairs of a text"));
  EXPECT_THAT(error("window: 256"), HasSubstr("window: 256 is out of range; allowed: 1 to 255"));
}

}  // namespace
}  // namespace varscope
