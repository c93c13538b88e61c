#include "common/base/score_counts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "common/base/serialize.h"
#include "tests/support/thrown.h"

// The area under the ROC curve against all pairs of a positive and a negative.
namespace varscope {
namespace {

struct Scored {
  double score;
  bool is_positive;
};

double share_of_ordered_pairs(const std::vector<Scored>& all) {
  double ordered = 0, pairs = 0;
  for (const Scored& p : all) {
    for (const Scored& n : all) {
      if (!p.is_positive || n.is_positive) continue;
      pairs += 1;
      ordered += p.score > n.score ? 1 : p.score == n.score ? 0.5 : 0;
    }
  }
  return ordered / pairs;
}

ScoreCounts counts_of(const std::vector<Scored>& all, std::size_t most = ScoreCounts::kMost) {
  ScoreCounts counts(most);
  for (const Scored& s : all) counts.add(s.score, s.is_positive);
  return counts;
}

// n scores of mean `mean` and deviation `deviation`; those of positives are moved up by 1.2 deviations.
std::vector<Scored> scored(std::size_t n, double mean, double deviation, double positives = 0.4) {
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<Scored> all;
  for (std::size_t i = 0; i < n; ++i) {
    const bool is_positive = uniform(random) < positives;
    all.push_back({mean + deviation * (normal(random) + (is_positive ? 1.2 : 0)), is_positive});
  }
  return all;
}

TEST(ScoreCounts, AreExactWhereTheProbabilitiesAreAllNearOneEnd) {
  // Logits of a rare class: probabilities of 2e-5 to 9e-4, of which a histogram of [0, 1] sees nothing.
  for (const auto& all : {scored(1500, -9, 0.8), scored(1500, -10, 2), scored(1500, 300, 1e-9),
                          scored(1500, 0, 1e-300), scored(1500, 0, 1)}) {
    const ScoreCounts counts = counts_of(all);
    EXPECT_TRUE(counts.is_exact());
    EXPECT_NEAR(counts.auc(), share_of_ordered_pairs(all), 1e-12);
  }
  std::vector<Scored> ties = scored(1500, 0, 3);
  for (Scored& s : ties) s.score = std::round(s.score);
  EXPECT_NEAR(counts_of(ties).auc(), share_of_ordered_pairs(ties), 1e-12);
  EXPECT_LT(counts_of(ties).n_scores(), 40U);
}

TEST(ScoreCounts, OfTheBoundaries) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  EXPECT_EQ(counts_of({{1, true}, {0, false}}).auc(), 1);
  EXPECT_EQ(counts_of({{0, true}, {1, false}}).auc(), 0);
  EXPECT_EQ(counts_of({{-0.0, true}, {0.0, false}}).auc(), 0.5);
  EXPECT_EQ(counts_of({{infinity, true}, {-infinity, false}, {1e308, false}}).auc(), 1);
  EXPECT_EQ(counts_of({{nan, true}, {-infinity, false}}).auc(), 0);  // a model that diverged is not good
  EXPECT_EQ(counts_of({{-1, true}, {-2, false}}).auc(), 1);
  EXPECT_TRUE(std::isnan(counts_of({{1, true}, {2, true}}).auc()));
  EXPECT_TRUE(std::isnan(counts_of({{1, false}}).auc()));
  EXPECT_TRUE(std::isnan(ScoreCounts().auc()));
}

TEST(ScoreCounts, DoNotDependOnOrderOrOnHowTheyWereDealt) {
  std::vector<Scored> all = scored(3000, -4, 2);
  for (const std::size_t most : {std::size_t{1}, std::size_t{100}, std::size_t{1000}, ScoreCounts::kMost}) {
    const ScoreCounts whole = counts_of(all, most);
    EXPECT_EQ(whole.is_exact(), most == ScoreCounts::kMost);
    EXPECT_LE(whole.n_scores(), most);
    for (const std::size_t n_parts : {1U, 2U, 7U}) {
      std::shuffle(all.begin(), all.end(), std::mt19937(static_cast<unsigned>(n_parts)));
      std::vector<ScoreCounts> parts(n_parts, ScoreCounts(most));
      // Of unequal size, so that they drop unequal numbers of bits.
      for (std::size_t i = 0; i < all.size(); ++i)
        parts[i < 20 ? 0 : i % n_parts].add(all[i].score, all[i].is_positive);
      ScoreCounts sum(most);
      for (const ScoreCounts& part : parts) sum.merge(part);
      EXPECT_EQ(sum.auc(), whole.auc()) << most << " " << n_parts;
      EXPECT_EQ(sum.n_scores(), whole.n_scores());
    }
  }
}

TEST(ScoreCounts, OfMoreScoresThanTheLimitAreNear) {
  const std::vector<Scored> all = scored(4000, -9, 1);
  EXPECT_NEAR(counts_of(all, 1000).auc(), share_of_ordered_pairs(all), 2e-3);
  // At the limit itself nothing is lost.
  EXPECT_TRUE(counts_of(all, 4000).is_exact());
  EXPECT_FALSE(counts_of(all, 3999).is_exact());
}

TEST(ScoreCounts, Travel) {
  const std::vector<Scored> all = scored(500, 0, 1);
  ScoreCounts counts = counts_of(all);
  const auto copy = from_binary<ScoreCounts>(to_binary(counts), "counts");
  EXPECT_EQ(copy.auc(), counts.auc());
  ScoreCounts sum;
  sum.merge(copy);
  sum.merge(counts_of({}));
  EXPECT_EQ(sum.auc(), counts.auc());
}

// What a ScoreCounts writes, with anything in it.
struct Forged {
  struct Entry {
    std::int64_t key = 0, negatives = 0, positives = 0;
    double weight = 1;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
      ar& key& weight& negatives& positives;
    }
  };
  int dropped_bits = 0;
  std::vector<Entry> entries = {};
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& dropped_bits& entries;
  }
};

TEST(ScoreCounts, ThatAreDamagedAreRefused) {
  const auto merge = [](const Forged& forged) {
    ScoreCounts sum;
    sum.merge(from_binary<ScoreCounts>(to_binary(forged), "counts"));
    return sum.n_scores();
  };
  EXPECT_EQ(merge({0, {{1, 1, 0}, {2, 0, 1}}}), 2U);
  for (const Forged& bad :
       {Forged{0, {{2, 1, 0}, {1, 0, 1}}}, Forged{0, {{1, 1, 0}, {1, 0, 1}}}, Forged{0, {{1, -1, 0}}},
        Forged{0, {{1, 1, 0, -1}}}, Forged{-1, {}}, Forged{65, {}}}) {
    EXPECT_THAT_THROWN(merge(bad), ErrorKind::protocol, {"counts of scores", "are damaged"});
  }
}

struct Weighted {
  double score, weight;
  bool is_positive;
};

std::vector<Weighted> weighted(std::size_t n) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> uniform;
  std::vector<Weighted> all;
  for (const Scored& s : scored(n, 0, 1))
    all.push_back(
        {std::round(s.score * 20) / 20, uniform(random) < 0.2 ? 0 : 3 * uniform(random), s.is_positive});
  return all;
}

double share_of_weighted_pairs(const std::vector<Weighted>& all) {
  double ordered = 0, pairs = 0;
  for (const Weighted& p : all) {
    for (const Weighted& n : all) {
      if (!p.is_positive || n.is_positive) continue;
      const double weight = p.weight * n.weight;
      pairs += weight;
      ordered += weight * (p.score > n.score ? 1 : p.score == n.score ? 0.5 : 0);
    }
  }
  return ordered / pairs;
}

TEST(ScoreCounts, OfWeightedSamplesAreThoseOfPairsOfThem) {
  const std::vector<Weighted> all = weighted(700);
  ScoreCounts counts;
  for (const Weighted& s : all) counts.add(s.score, s.is_positive, s.weight);
  EXPECT_TRUE(counts.is_exact());
  EXPECT_NEAR(counts.auc(), share_of_weighted_pairs(all), 1e-12);
}

TEST(ScoreCounts, OfWeightedSamplesDoNotDependOnOrderOrOnHowTheyWereDealt) {
  std::vector<Weighted> all = weighted(3000);
  for (const std::size_t most : {std::size_t{600}, ScoreCounts::kMost}) {
    ScoreCounts whole(most);
    for (const Weighted& s : all) whole.add(s.score, s.is_positive, s.weight);
    EXPECT_NEAR(whole.auc(), share_of_weighted_pairs(all), most == 600 ? 0.03 : 1e-12);
    std::mt19937 random(3);
    for (const std::size_t n_parts : {1U, 3U, 7U}) {
      std::shuffle(all.begin(), all.end(), random);
      std::vector<ScoreCounts> parts(n_parts, ScoreCounts(most));
      for (std::size_t i = 0; i < all.size(); ++i)
        parts[i % n_parts].add(all[i].score, all[i].is_positive, all[i].weight);
      ScoreCounts sum(most);
      for (const ScoreCounts& part : parts) sum.merge(from_binary<ScoreCounts>(to_binary(part), "counts"));
      EXPECT_EQ(sum.auc(), whole.auc()) << most << " " << n_parts;
      EXPECT_EQ(sum.n_scores(), whole.n_scores());
    }
  }
}

}  // namespace
}  // namespace varscope
