#include "common/transport/counted_workers.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kScaleBytes = 2 * sizeof(double);

bool may_scale(double scale) { return std::isfinite(scale) && scale > 0; }

}  // namespace

CountedWorkers CountedWorkers::all(int n_workers) {
  CountedWorkers workers(n_workers);
  workers.is_counted_.flip();
  return workers;
}

CountedWorkers CountedWorkers::from_bytes(std::string_view bytes, int n_workers) {
  const std::size_t n_bytes = (static_cast<std::size_t>(n_workers) + 7) / 8;
  if (bytes.size() != n_bytes) {
    fail(ErrorKind::protocol, "the counted ones of {} workers are named in {} bytes, expected {}", n_workers,
         bytes.size(), n_bytes);
  }
  CountedWorkers workers(n_workers);
  for (std::size_t i = 0; i < 8 * n_bytes; ++i) {
    if ((static_cast<unsigned char>(bytes[i / 8]) >> (i % 8) & 1U) == 0) continue;
    if (i >= workers.is_counted_.size())
      fail(ErrorKind::protocol, "worker {} is named as counted, of {} workers", i, n_workers);
    workers.is_counted_[i] = true;
  }
  if (workers.count() == 0) fail(ErrorKind::protocol, "none of {} workers is named as counted", n_workers);
  return workers;
}

int CountedWorkers::count() const { return static_cast<int>(std::ranges::count(is_counted_, true)); }

std::string CountedWorkers::to_bytes() const {
  std::string bytes((is_counted_.size() + 7) / 8, '\0');
  for (std::size_t i = 0; i < is_counted_.size(); ++i) {
    if (is_counted_[i])
      bytes[i / 8] = static_cast<char>(static_cast<unsigned char>(bytes[i / 8]) | 1U << (i % 8));
  }
  return bytes;
}

std::string CountedPush::to_bytes() const {
  std::string bytes(kScaleBytes, '\0');
  std::memcpy(bytes.data(), &gradient_scale, sizeof(double));
  std::memcpy(bytes.data() + sizeof(double), &average_scale, sizeof(double));
  return bytes + counted.to_bytes();
}

std::size_t CountedPush::n_bytes(int n_workers) {
  return kScaleBytes + (static_cast<std::size_t>(n_workers) + 7) / 8;
}

CountedPush CountedPush::from_bytes(std::string_view body, int n_workers, Rank from) {
  CountedPush push;
  if (body.size() < kScaleBytes) {
    fail(ErrorKind::protocol, "rank {} sent a push with {} bytes that say which workers count", from.value,
         body.size());
  }
  std::memcpy(&push.gradient_scale, body.data(), sizeof(double));
  std::memcpy(&push.average_scale, body.data() + sizeof(double), sizeof(double));
  if (!may_scale(push.gradient_scale) || !may_scale(push.average_scale)) {
    fail(ErrorKind::protocol, "rank {} sent a push whose sums are to be multiplied by {} and {}", from.value,
         push.gradient_scale, push.average_scale);
  }
  push.counted = CountedWorkers::from_bytes(body.substr(kScaleBytes), n_workers);
  return push;
}

}  // namespace varscope
