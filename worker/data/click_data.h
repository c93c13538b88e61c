#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/philox.h"
#include "common/config/data_split.h"
#include "worker/data/dataset.h"
#include "worker/data/zipf.h"

namespace varscope {

struct ClickOptions {
  std::int64_t samples = 10000;
  std::int64_t features = 26;        // ids of a sample
  std::int64_t vocabulary = 100000;  // ids of a field
  double exponent = 1.1;             // of Zipf's law
  std::int64_t numbers = 0;          // of a sample
  std::uint64_t seed = 7;
};

// Click-through data of any size, without files and without memory: sample i is a pure function of (seed,
// split, i). Its ids, input `words` [features], row ids of type uint64, are drawn from Zipf's law, each field
// from a vocabulary of its own, and mixed so that they look like hashes: no two words share one. Its numbers,
// input `numbers` [numbers], are standard normal. It is clicked on (class 1) with probability
//   p = sigmoid(kBias + sum of the weights of its ids + sum of weight * number),
// where the weight of an id is a pure function of (seed, id), uniform with standard deviation kSpread /
// sqrt(features + numbers). So the best model is known, a logistic regression, and what it reaches:
// optimum(). Immutable: safe from any thread.
class ClickDataset final : public Dataset {
 public:
  static constexpr std::int64_t kMostFeatures = 1024;
  static constexpr double kBias = -1, kSpread = 2;
  // Throws Error(argument) for options out of range.
  ClickDataset(const ClickOptions& options, DataSplit split);

  std::int64_t size() const override { return options_.samples; }
  const Shape& sample_shape() const override { return sample_shape_; }
  std::int64_t n_classes() const override { return 2; }
  Features features() const override { return Features::row_ids; }
  std::vector<InputSpec> inputs() const override;
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override;
  // Of the options, and of the first samples: nothing else is in the data.
  Digest content() const override;
  std::vector<std::string> notes() const override;

  // Field `field`'s word of rank 1, 2, ... as an id.
  std::uint64_t id(std::int64_t field, std::int64_t rank) const;
  // Of an id in the true model.
  double weight(std::uint64_t id) const;
  // The log loss of the true model, the least that any can expect: the mean entropy of the labels of the
  // first n samples, and the standard error of this mean.
  struct Optimum {
    double log_loss = 0, error = 0;
    double clicks = 0;  // mean probability of class 1
  };
  Optimum optimum(std::int64_t n) const;
  // The true probability that sample i is of class 1.
  double probability(std::int64_t i) const;

 private:
  static constexpr std::uint64_t kStreams = 64;  // of a split, for draws that are rejected
  std::uint64_t element(std::int64_t sample, std::int64_t place) const;
  std::int64_t rank(std::int64_t sample, std::int64_t field) const;
  double number(std::int64_t sample, std::int64_t k) const;
  // f(field, id) and g(k, number) of a sample; its probability.
  template <class F, class G>
  double visit(std::int64_t sample, const F& f, const G& g) const;

  ClickOptions options_;
  DataSplit split_;
  Shape sample_shape_;
  Zipf zipf_;
  RandomStream stream_;
  std::uint64_t id_key_, weight_key_;
  double weight_scale_;
};

}  // namespace varscope
