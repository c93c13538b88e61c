#include "ps/store/parameter_shard.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "ps/store/snapshot.h"

namespace varscope {
namespace {

AlignedBytes touched(std::int64_t n_bytes) {
  AlignedBytes memory = allocate_aligned(static_cast<std::size_t>(n_bytes));
  std::memset(memory.get(), 0, static_cast<std::size_t>(n_bytes));
  return memory;
}

}  // namespace

ParameterShard::ParameterShard(const VariableTable& variables, const BucketPlan& plan, ServerId server,
                               std::vector<Slot> slots)
    : variables_(variables),
      server_(server),
      slots_(std::move(slots)),
      ids_(plan.of_server(server)),
      position_(plan.size(), -1) {
  for (BucketId id : ids_) {
    const Bucket& bucket = plan[id];
    Entry e{&bucket, touched(bucket.n_bytes()), {}, Clock(0)};
    n_bytes_ += bucket.n_bytes();
    for (std::size_t s = 0; bucket.trainable && s < slots_.size(); ++s) {
      e.slots.push_back(touched(bucket.n_bytes()));
      n_bytes_ += bucket.n_bytes();
    }
    position_[id] = static_cast<int>(entries_.size());
    entries_.push_back(std::move(e));
  }
}

bool ParameterShard::has(BucketId id) const { return position_.has(id) && position_[id] >= 0; }

const ParameterShard::Entry& ParameterShard::entry(BucketId id) const {
  if (!has(id)) fail(ErrorKind::argument, "bucket {} is not on server {}", id.value, server_.value);
  return entries_[static_cast<std::size_t>(position_[id])];
}

std::vector<std::byte*> ParameterShard::slots(BucketId id) {
  std::vector<std::byte*> all;
  for (const AlignedBytes& s : entry(id).slots) all.push_back(s.get());
  return all;
}

void ParameterShard::before_write(BucketId id, std::int64_t begin, std::int64_t n_bytes) {
  if (snapshot_ == nullptr) return;
  const Entry& e = entry(id);
  const auto n = static_cast<std::size_t>(n_bytes);
  snapshot_->before_write(e.value.get() + begin, n);
  for (const AlignedBytes& slot : e.slots) snapshot_->before_write(slot.get() + begin, n);
}

void ParameterShard::for_each_slice(const Loader& visit) {
  for (Entry& e : entries_) {
    const auto item = static_cast<std::int64_t>(size_of(e.bucket->dtype));
    for (const BucketSlice& slice : e.bucket->slices) {
      const VariableSpec& variable = variables_[static_cast<std::size_t>(slice.variable)];
      const auto view = [&](const AlignedBytes& memory) {
        return TensorView(e.bucket->dtype, slice.box.extent, memory.get() + slice.bucket_begin * item);
      };
      visit(variable, "", slice, view(e.value));
      for (std::size_t s = 0; s < e.slots.size(); ++s)
        visit(variable, slots_[s].name, slice, view(e.slots[s]));
    }
  }
}

void ParameterShard::initialize(std::uint64_t seed) {
  // A variable's slices follow each other: what their initial values share is computed once.
  const VariableSpec* current = nullptr;
  std::optional<InitialValues> values;
  for_each_slice(
      [&](const VariableSpec& variable, const std::string& slot, const BucketSlice& slice, TensorView out) {
        if (!slot.empty()) return;
        if (current != &variable) values.emplace(variable.initial_values(seed));
        current = &variable;
        variable.fill(out, *values, slice.variable_begin);
      });
  start_slots();
}

void ParameterShard::start_slots() {
  for (const Entry& e : entries_) {
    for (std::size_t s = 0; s < e.slots.size(); ++s)
      start_slot(slots_[s], e.bucket->dtype, e.value.get(), e.slots[s].get(), e.bucket->n_elements);
  }
}

HashReport ParameterShard::hashes() {
  HashReport report;
  for_each_slice(
      [&](const VariableSpec& variable, const std::string& slot, const BucketSlice& slice, TensorView data) {
        if (!slot.empty()) return;
        report.entries.push_back(
            {variable.name, slice.index, digest_of(std::span(data.bytes(), data.n_bytes()))});
      });
  return report;
}

}  // namespace varscope
