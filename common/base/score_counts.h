#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace varscope {

// How often each score was seen with a negative and with a positive label: what the area under the ROC curve
// is made of (Hanley and McNeil, 1982: the chance that a random positive scores above a random negative). The
// scores may be any numbers, such as logits: only their order counts. Exact up to `most` distinct scores;
// beyond that the lowest bits of all of them are dropped, as few as do, so that near scores count as ties.
// The outcome is a function of what was added alone: not of the order, nor of how it was dealt to several of
// these. A value; not thread-safe. Memory: 32 bytes for each distinct score, twice that while adding.
class ScoreCounts {
 public:
  static constexpr std::size_t kMost = std::size_t{1} << 20;

  explicit ScoreCounts(std::size_t most = kMost) : most_(most) {}  // REQUIRES most >= 1

  // NaN counts as below all others, -0 as 0. A sample of weight w counts w times; REQUIRES that it is
  // finite and not negative. Where bits are dropped, those of the weights are too.
  void add(double score, bool is_positive, double weight = 1);
  // Throws Error(protocol) when `other`, which may have come from the network, is not what these functions
  // make: counts that are negative, scores that do not rise.
  void merge(const ScoreCounts& other);

  // Ties count half. NaN unless both labels were seen.
  double auc() const;
  // False where scores were put together.
  bool is_exact() const;
  std::size_t n_scores() const;  // distinct ones that are told apart

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    if constexpr (Archive::is_saving::value) compact();
    ar& dropped_bits_& entries_;
    if constexpr (Archive::is_loading::value) n_sorted_ = entries_.size();
  }

 private:
  struct Entry {
    std::int64_t key = 0;  // rises with the score
    double weight = 1;     // of each of these
    std::int64_t negatives = 0, positives = 0;
    bool is_of(const Entry& other) const { return key == other.key && weight == other.weight; }
    bool operator<(const Entry& other) const {
      return key != other.key ? key < other.key : weight < other.weight;
    }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
      ar& key& weight& negatives& positives;
    }
  };
  void check() const;
  void compact() const;
  void drop_bits(int n) const;
  static Entry without_low_bits_of(Entry entry, int n);
  int bits_to_drop() const;
  void sort_and_join() const;

  std::size_t most_;
  // Compacted when they are read: the first n_sorted_ entries rise and are distinct.
  mutable int dropped_bits_ = 0;
  mutable std::vector<Entry> entries_;
  mutable std::size_t n_sorted_ = 0;
};

}  // namespace varscope
