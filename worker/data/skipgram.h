#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/philox.h"
#include "common/config/data_split.h"
#include "worker/data/dataset.h"

namespace varscope {

// Draws from a fixed distribution in constant time: the alias method. A. J. Walker, "An efficient method for
// generating discrete random variables with general distributions" (ACM TOMS 3(3), 1977); the table is made
// as by M. D. Vose (IEEE TSE 17(9), 1991). Immutable: safe from any thread.
class AliasTable {
 public:
  AliasTable() = default;
  // REQUIRES 1 to 2^31 - 1 weights, finite, not negative, and not all 0.
  explicit AliasTable(std::span<const double> weights);
  // The place of a weight, of 128 random bits: its share of all weights is its probability.
  std::int32_t draw(const std::array<std::uint32_t, 4>& words) const;

 private:
  std::vector<double> keep_;  // the probability that a place is itself, and not its alias
  std::vector<std::int32_t> alias_;
};

struct SkipgramOptions {
  std::int64_t vocabulary = 50000;  // at most so many words, the most frequent ones
  std::int64_t min_count = 5;       // rarer words are left out
  std::int64_t window = 5;          // words to each side of a word
  std::int64_t negatives = 5;       // of a pair
  double subsample = 1e-4;          // t below; 0: all words are kept
  std::uint64_t seed = 1;
  double test_fraction = 0.1;                         // of the words, at the end of the file
  std::int64_t words = 0;                             // use the first n words of the split; 0 means all
  std::optional<DataSplit> split = DataSplit::train;  // nothing: all words of the file
  // The file whose words to train on give the vocabulary and its frequencies; empty: this one.
  std::filesystem::path vocabulary_file = {};
  double vocabulary_test_fraction = 0;  // of that file
};

// Pairs of words that stand near each other, with words that do not, for embeddings of words [1]: input
// `word` [1], input `context` [1 + negatives], and as labels the classes 1, 0, 0, ... [1 + negatives]: the
// first context stood near the word, the others are drawn. For a sigmoid loss on inner products of two
// embeddings.
//
// As in word2vec: words that are rarer than min_count, or are not among the most frequent ones, are taken out
// of the text. Of the others an occurrence of a word with frequency f is kept with probability
// min(1, sqrt(t / f)). Each word that is left has a window of 1 to `window` words to each side, and each word
// in it makes a sample: samples are in the order of the text. Negatives are drawn by the frequency to the
// power of 3/4, and are not the context itself. All draws are pure functions of the seed, the split and the
// number of the word or sample: each epoch has the same samples, in an order of its own. Ids are by
// frequency, then alphabetically, from 0 on. Memory: 5 bytes for each word that is left. Immutable: safe from
// any thread.
//
// [1] T. Mikolov, I. Sutskever, K. Chen, G. Corrado, J. Dean, "Distributed representations of words and
// phrases and their compositionality" (NeurIPS 2013)
class SkipgramDataset final : public Dataset {
 public:
  static constexpr std::int64_t kMostWindow = 255;
  // Throws Error(data) that names the file: unreadable, fewer than two words left to tell apart, no pair;
  // Error(argument) for options out of range.
  SkipgramDataset(const std::filesystem::path& file, const SkipgramOptions& options);

  std::int64_t size() const override { return n_pairs_; }
  const Shape& sample_shape() const override { return word_shape_; }
  const Shape& label_shape() const override { return context_shape_; }
  std::int64_t n_classes() const override { return 2; }
  Features features() const override { return Features::ids; }
  std::vector<InputSpec> inputs() const override;
  std::int64_t n_bytes() const override;
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override;
  Digest content() const override;
  Digest vocabulary_digest() const override;
  std::string schema() const override;  // for vocabulary_from_schema()
  std::vector<std::string> notes() const override;

  const std::vector<std::string>& vocabulary() const { return vocabulary_; }  // by id
  // The words that are left, by id, in their order.
  std::span<const std::int32_t> words() const { return ids_; }
  // The places in words() of sample i's word and context.
  std::pair<std::int64_t, std::int64_t> pair(std::int64_t i) const;

 private:
  void take_vocabulary(std::string_view text, std::int64_t n_training);
  void take_words(std::string_view text, std::int64_t begin, std::int64_t end);
  void draw_windows();
  RandomStream stream(std::uint64_t kind) const;
  std::int32_t negative(std::int64_t sample, std::int64_t k, std::int32_t context) const;
  std::int64_t pairs_of(std::int64_t place) const;
  std::int64_t before(std::int64_t place) const;

  SkipgramOptions options_;
  Shape word_shape_{1}, context_shape_;
  std::vector<std::string> vocabulary_;
  std::vector<std::int64_t> counts_;  // by id, in the training words
  std::int64_t n_known_ = 0;          // their sum
  AliasTable negatives_;
  RandomStream negative_stream_;
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> windows_;  // of each
  std::vector<std::int64_t> begins_;   // of the samples of each kBlock words
  std::int64_t n_pairs_ = 0, n_words_ = 0;
};

}  // namespace varscope
