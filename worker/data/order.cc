#include "worker/data/order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/base/error.h"
#include "common/base/philox.h"

namespace varscope {

EpochOrder::EpochOrder(std::uint64_t seed, std::int64_t epoch, std::int64_t n, Shuffle shuffle)
    : epoch_(epoch), indices_(static_cast<std::size_t>(n)) {
  std::iota(indices_.begin(), indices_.end(), 0);
  if (shuffle == Shuffle::no) return;
  const RandomStream stream(seed, RandomPurpose::shuffle, static_cast<std::uint64_t>(epoch));
  for (std::size_t i = indices_.size(); i-- > 1;) {
    std::swap(indices_[i], indices_[static_cast<std::size_t>(stream.below(i, i + 1))]);
  }
}

std::span<const std::int64_t> EpochOrder::part(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || end < begin || end > size()) {
    fail(ErrorKind::argument, "positions {} .. {} of an epoch of {} samples", begin, end, size());
  }
  return std::span(indices_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
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
