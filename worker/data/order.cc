#include "worker/data/order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/philox.h"

namespace varscope {

EpochOrder::EpochOrder(std::uint64_t seed, std::int64_t epoch, std::int64_t n, Shuffle shuffle)
    : epoch_(epoch),
      n_(n),
      shuffle_(shuffle),
      random_(seed, RandomPurpose::shuffle, static_cast<std::uint64_t>(epoch)) {
  if (shuffle == Shuffle::no) return;
  if (n > kMostListed) {
    a_ = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(n)));
    b_ = (static_cast<std::uint64_t>(n) + a_ - 1) / a_;
    return;
  }
  indices_.resize(static_cast<std::size_t>(n));
  std::iota(indices_.begin(), indices_.end(), 0);
  for (std::size_t i = indices_.size(); i-- > 1;)
    std::swap(indices_[i], indices_[static_cast<std::size_t>(random_.below(i, i + 1))]);
}

std::int64_t EpochOrder::permuted(std::int64_t position) const {
  constexpr std::uint64_t kRounds = 4;
  auto at = static_cast<std::uint64_t>(position);
  do {
    std::uint64_t left = at / b_, right = at % b_;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const bool is_left = round % 2 == 0;
      const std::uint64_t element = (round + 1) << 56U | (is_left ? right : left);
      std::uint64_t& half = is_left ? left : right;
      const std::uint64_t bound = is_left ? a_ : b_;
      half += random_.below(element, bound);
      if (half >= bound) half -= bound;
    }
    at = left * b_ + right;
  } while (at >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(at);
}

std::span<const std::int64_t> EpochOrder::part(std::int64_t begin, std::int64_t end) {
  if (begin < 0 || end < begin || end > n_)
    fail(ErrorKind::argument, "positions {} .. {} of an epoch of {} samples", begin, end, n_);
  if (!indices_.empty())
    return std::span(indices_).subspan(static_cast<std::size_t>(begin),
                                       static_cast<std::size_t>(end - begin));
  part_.resize(static_cast<std::size_t>(end - begin));
  std::iota(part_.begin(), part_.end(), begin);
  if (shuffle_ == Shuffle::yes)
    std::ranges::transform(part_, part_.begin(), [&](std::int64_t i) { return permuted(i); });
  return part_;
}

std::int64_t steps_per_epoch(std::int64_t n, std::int64_t batch) {
  if (n < 1 || batch < 1) fail(ErrorKind::argument, "batches of {} out of {} samples", batch, n);
  return n / batch + (n % batch != 0 ? 1 : 0);
}

BatchRange batch_at(std::int64_t step, std::int64_t n, std::int64_t batch) {
  const std::int64_t per_epoch = steps_per_epoch(n, batch);
  if (step < 0) fail(ErrorKind::argument, "step {} is negative", step);
  const std::int64_t in_epoch = step % per_epoch;
  const std::int64_t begin = in_epoch * batch;
  return {step / per_epoch, in_epoch, begin, begin + std::min(batch, n - begin)};
}

std::int64_t largest_logical_batch(std::int64_t n, std::int64_t batch, std::int64_t n_parts) {
  if (n < 1 || batch < 1 || n_parts < 1)
    fail(ErrorKind::argument, "batches of {} out of {} samples in {} parts", batch, n, n_parts);
  const std::int64_t most = std::min(n, batch);
  return most / n_parts + (most % n_parts != 0 ? 1 : 0);
}

Range logical_range(std::int64_t begin, std::int64_t end, std::int64_t v, std::int64_t n_parts) {
  if (v < 0 || v >= n_parts || end < begin) {
    fail(ErrorKind::argument, "part {} of {} of positions {} .. {}", v, n_parts, begin, end);
  }
  const std::int64_t n = end - begin;
  const std::int64_t small = n / n_parts;
  const std::int64_t larger = n % n_parts;  // that many parts have one more
  const std::int64_t first = begin + v * small + std::min(v, larger);
  return {first, first + small + (v < larger ? 1 : 0)};
}

}  // namespace varscope
