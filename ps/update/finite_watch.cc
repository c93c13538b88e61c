#include "ps/update/finite_watch.h"

#include <span>

#include "common/base/finite.h"
#include "ps/update/updater.h"

namespace varscope {
namespace {

bool is_clean(DType dtype, const std::byte* memory, std::int64_t n) {
  if (dtype == DType::float32) return all_finite(reinterpret_cast<const float*>(memory), n);
  if (dtype == DType::float64) return all_finite(reinterpret_cast<const double*>(memory), n);
  return count_not_finite(dtype, {memory, static_cast<std::size_t>(n) * size_of(dtype)}) == 0;
}

}  // namespace

void FiniteWatch::look(BucketId id, std::int64_t begin, std::int64_t n, Clock clock) {
  const Bucket& bucket = plan_[id];
  look_at(bucket, -1, shard_.value(id), begin, n, clock);
  for (int i = 0; i < shard_.n_slots(id); ++i) look_at(bucket, i, shard_.slot(id, i), begin, n, clock);
}

void FiniteWatch::look_at_all() {
  for (const BucketId id : shard_.buckets()) look(id, 0, plan_[id].n_elements, shard_.clock(id));
}

void FiniteWatch::look_at(const Bucket& bucket, int slot, std::byte* memory, std::int64_t begin,
                          std::int64_t n, Clock clock) {
  const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
  if (is_clean(bucket.dtype, memory + begin * item, n)) return;
  for_each_slice_in(bucket, begin, n, [&](const BucketSlice& slice, std::int64_t from, std::int64_t count) {
    const auto known = known_.find({slice.variable, slot});
    if (known != known_.end() && known->second.clock != clock.value) return;
    const auto found = find_not_finite(
        bucket.dtype, {memory + from * item, static_cast<std::size_t>(count) * size_of(bucket.dtype)});
    if (!found) return;
    const std::int64_t element = slice.variable_begin + (from - slice.bucket_begin) + found->element;
    if (known == known_.end()) {
      known_[{slice.variable, slot}] = {clock.value, static_cast<std::size_t>(n_found_)};
      return add({NotFiniteFinding::Where::value, clock.value, shard_.variable(slice.variable).name,
                  slot < 0 ? "" : shard_.slot_name(slot), element, found->what});
    }
    // Chunks come in any order: the first element of the step is the one with the smallest index.
    if (known->second.index >= findings_.size() || findings_[known->second.index].element < element) return;
    findings_[known->second.index].element = element;
    findings_[known->second.index].what = found->what;
  });
}

void FiniteWatch::add(NotFiniteFinding finding) {
  if (findings_.size() < kMostFindings) findings_.push_back(std::move(finding));
  ++n_found_;
}

FiniteReport FiniteWatch::report() const {
  return {false, findings_, n_found_ - static_cast<std::int64_t>(findings_.size())};
}

}  // namespace varscope
