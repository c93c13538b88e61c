#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/philox.h"

namespace varscope {

enum class Shuffle : std::uint8_t { no, yes };

// The order in which an epoch visits n samples: a permutation that is a pure function of (seed, epoch, n).
// Every worker makes the same one and takes its own part. Up to kMostListed samples are shuffled in an array,
// by Fisher and Yates in Durstenfeld's form (1964). Of more the place of each is computed, in the same time
// wherever it stands and without memory that grows with n: a Feistel network of four rounds over the factors
// of a x b >= n, which is walked until it falls below n (Black and Rogaway, "Ciphers with arbitrary finite
// domains", CT-RSA 2002), with Philox as its functions.
class EpochOrder {
 public:
  static constexpr std::int64_t kMostListed = std::int64_t{1} << 20;

  EpochOrder() = default;
  // REQUIRES n >= 0, epoch >= 0.
  EpochOrder(std::uint64_t seed, std::int64_t epoch, std::int64_t n, Shuffle shuffle);
  std::int64_t epoch() const { return epoch_; }
  std::int64_t size() const { return n_; }
  // Positions [begin, end) of the epoch, as sample indices; valid until the next call. Throws Error(argument)
  // for positions that are not there.
  std::span<const std::int64_t> part(std::int64_t begin, std::int64_t end);

 private:
  std::int64_t permuted(std::int64_t position) const;

  std::int64_t epoch_ = -1, n_ = 0;
  Shuffle shuffle_ = Shuffle::no;
  RandomStream random_{0, RandomPurpose::shuffle, 0};
  std::uint64_t a_ = 1, b_ = 1;        // of the network
  std::vector<std::int64_t> indices_;  // of all positions, or
  std::vector<std::int64_t> part_;     // of those that were asked for last
};

// A global batch: positions [begin, end) of the epoch's order.
struct BatchRange {
  std::int64_t epoch;
  std::int64_t step_in_epoch;
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const BatchRange&, const BatchRange&) = default;
};

// Steps of one epoch; the last batch may be short, and is kept. Throw Error(argument) if n or batch is
// below 1.
std::int64_t steps_per_epoch(std::int64_t n, std::int64_t batch);
// The batch of global step `step`, counted from 0 over all epochs: the whole position of a run in its data.
BatchRange batch_at(std::int64_t step, std::int64_t n, std::int64_t batch);

// The most samples that one of `n_parts` logical workers has of a batch: no more than there are.
std::int64_t largest_logical_batch(std::int64_t n, std::int64_t batch, std::int64_t n_parts);

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};
// Part v of V contiguous parts of [begin, end), whose sizes differ by at most 1, the larger ones first. A
// part is empty where there are fewer elements than parts. Throws Error(argument) unless 0 <= v < V.
Range logical_range(std::int64_t begin, std::int64_t end, std::int64_t v, std::int64_t n_parts);

}  // namespace varscope
