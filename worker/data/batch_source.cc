#include "worker/data/batch_source.h"

namespace varscope {

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

void IndexedBatches::next(Clock clock, int v, const Batch& out) {
  const BatchRange all = batch(clock);
  if (order_.epoch() != all.epoch) {
    order_ =
        EpochOrder(options_.seed, all.epoch, data_.size(), is_sequential() ? Shuffle::no : options_.shuffle);
  }
  const Range mine = part(clock, v);
  data_.read(order_.part(all.begin + mine.begin, all.begin + mine.end), out.view(mine.size()));
}

SourcePosition IndexedBatches::position(Clock clock) const {
  const BatchRange next = batch_at(clock.value, data_.size(), options_.batch);
  return {next.epoch, next.begin, data_.size()};
}

}  // namespace varscope
