#include "common/base/score_counts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr int kBits = 64;

// Rises with x: the bits of a double do, but those of negative ones fall.
std::int64_t key_of(double x) {
  if (std::isnan(x)) return std::numeric_limits<std::int64_t>::min();
  const auto bits = std::bit_cast<std::int64_t>(x + 0.0);  // -0 + 0 is 0
  return bits >= 0 ? bits : bits ^ std::numeric_limits<std::int64_t>::max();
}

std::int64_t without_low_bits(std::int64_t key, int n) {
  if (n >= kBits) return 0;
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(key) & (~std::uint64_t{0} << n));
}

// How many low bits must go until a and b are one.
int bits_between(std::int64_t a, std::int64_t b) {
  return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(a) ^ static_cast<std::uint64_t>(b)));
}

}  // namespace

// Of a weight the fraction's bits alone may go.
ScoreCounts::Entry ScoreCounts::without_low_bits_of(Entry entry, int n) {
  constexpr int kFraction = 52;
  entry.key = without_low_bits(entry.key, n);
  if (entry.weight != 1)
    entry.weight = std::bit_cast<double>(
        without_low_bits(std::bit_cast<std::int64_t>(entry.weight), std::min(n, kFraction)));
  return entry;
}

void ScoreCounts::add(double score, bool is_positive, double weight) {
  if (weight == 0) return;
  entries_.push_back(
      without_low_bits_of({key_of(score), weight, is_positive ? 0 : 1, is_positive ? 1 : 0}, dropped_bits_));
  if (entries_.size() >= 2 * most_) compact();
}

void ScoreCounts::merge(const ScoreCounts& other) {
  other.check();
  other.compact();
  drop_bits(other.dropped_bits_);
  entries_.insert(entries_.end(), other.entries_.begin(), other.entries_.end());
  if (dropped_bits_ > other.dropped_bits_) {
    for (Entry& e : entries_) e = without_low_bits_of(e, dropped_bits_);
  }
  compact();
}

void ScoreCounts::check() const {
  bool is_good = dropped_bits_ >= 0 && dropped_bits_ <= kBits;
  for (std::size_t i = 0; i < n_sorted_ && is_good; ++i) {
    const Entry& e = entries_[i];
    is_good = e.negatives >= 0 && e.positives >= 0 && e.weight > 0 && std::isfinite(e.weight) &&
              (i == 0 || entries_[i - 1] < e);
  }
  if (!is_good) {
    fail(ErrorKind::protocol, "{} counts of scores, {} bits dropped, are damaged", entries_.size(),
         dropped_bits_);
  }
}

void ScoreCounts::drop_bits(int n) const {
  if (n <= dropped_bits_) return;
  dropped_bits_ = n;
  for (Entry& e : entries_) e = without_low_bits_of(e, n);
  n_sorted_ = 0;
  sort_and_join();
}

void ScoreCounts::sort_and_join() const {
  std::sort(entries_.begin(), entries_.end());
  std::size_t n = 0;
  for (const Entry& e : entries_) {
    if (n > 0 && entries_[n - 1].is_of(e)) {
      entries_[n - 1].negatives += e.negatives;
      entries_[n - 1].positives += e.positives;
    } else {
      entries_[n++] = e;
    }
  }
  entries_.resize(n);
  n_sorted_ = n;
}

// Drops no bit more than it must: how many that is depends on the set of distinct scores alone, and no subset
// needs more, so that parts which have dropped bits already come to the same end.
void ScoreCounts::compact() const {
  if (n_sorted_ < entries_.size()) sort_and_join();
  if (entries_.size() <= most_) return;
  drop_bits(bits_to_drop());
}

int ScoreCounts::bits_to_drop() const {
  if (std::ranges::any_of(entries_, [](const Entry& e) { return e.weight != 1; })) {
    // Scores that become one may have any weights, so that neighbours do not tell.
    for (int bits = dropped_bits_ + 1; bits < kBits; ++bits) {
      std::vector<Entry> fewer;
      fewer.reserve(entries_.size());
      for (const Entry& e : entries_) fewer.push_back(without_low_bits_of(e, bits));
      std::sort(fewer.begin(), fewer.end());
      const auto end =
          std::unique(fewer.begin(), fewer.end(), [](const Entry& a, const Entry& b) { return a.is_of(b); });
      if (static_cast<std::size_t>(end - fewer.begin()) <= most_) return bits;
    }
    return kBits;
  }
  std::array<std::size_t, kBits + 1> n_pairs{};  // neighbours that become one at so many dropped bits
  for (std::size_t i = 1; i < entries_.size(); ++i)
    ++n_pairs[static_cast<std::size_t>(bits_between(entries_[i - 1].key, entries_[i].key))];
  std::size_t n = entries_.size();
  int bits = 0;
  while (n > most_) n -= n_pairs[static_cast<std::size_t>(++bits)];
  return bits;
}

double ScoreCounts::auc() const {
  compact();
  double negatives = 0, positives = 0, ordered = 0;  // pairs in order, ties counted half
  for (std::size_t i = 0; i < entries_.size();) {
    double here = 0, positive = 0;
    const std::int64_t key = entries_[i].key;
    for (; i < entries_.size() && entries_[i].key == key; ++i) {
      here += entries_[i].weight * static_cast<double>(entries_[i].negatives);
      positive += entries_[i].weight * static_cast<double>(entries_[i].positives);
    }
    ordered += positive * (negatives + here / 2);
    negatives += here;
    positives += positive;
  }
  if (negatives == 0 || positives == 0) return std::numeric_limits<double>::quiet_NaN();
  return ordered / (negatives * positives);
}

bool ScoreCounts::is_exact() const {
  compact();
  return dropped_bits_ == 0;
}

std::size_t ScoreCounts::n_scores() const {
  compact();
  return entries_.size();
}

}  // namespace varscope
