#include "worker/data/batch_source.h"

#include "common/base/error.h"

namespace varscope {

void BatchSource::add(const FedFile& file) {
  fail(ErrorKind::protocol, "server 0 gave the file {} to a worker that follows no directory", file.name);
}

IndexedBatches::IndexedBatches(const Dataset& data, const Options& options)
    : data_(data), options_(options), spec_(data.spec()) {}

std::optional<std::int64_t> IndexedBatches::steps_per_pass() const {
  return steps_per_epoch(data_.size(), options_.batch);
}

std::int64_t IndexedBatches::largest_part() const {
  return largest_logical_batch(data_.size(), options_.batch, options_.n_parts);
}

Range IndexedBatches::part(Clock clock, int v) const {
  return logical_range(0, batch(clock).size(), v, options_.n_parts);
}

std::span<const std::int64_t> IndexedBatches::indices(const BatchRange& of_epoch, const Range& of_batch) {
  if (order_.epoch() != of_epoch.epoch) {
    order_ = EpochOrder(options_.seed, of_epoch.epoch, data_.size(),
                        is_sequential() ? Shuffle::no : options_.shuffle);
  }
  return order_.part(of_epoch.begin + of_batch.begin, of_epoch.begin + of_batch.end);
}

double IndexedBatches::weight(Clock clock, const Range& of_batch) {
  const std::span<const double> weights = data_.weights();
  if (weights.empty()) return static_cast<double>(of_batch.size());
  double sum = 0;
  for (const std::int64_t i : indices(batch(clock), of_batch)) sum += weights[static_cast<std::size_t>(i)];
  return sum;
}

void IndexedBatches::next(Clock clock, int v, const Batch& out) {
  const Range mine = part(clock, v);
  data_.read_weighted(indices(batch(clock), mine), out.view(mine.size()));
}

SourcePosition IndexedBatches::position(Clock clock) const {
  const BatchRange next = batch_at(clock.value, data_.size(), options_.batch);
  return {next.epoch, next.begin, data_.size()};
}

}  // namespace varscope
