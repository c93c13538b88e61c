#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/base/tensor.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/reports.h"
#include "common/variables/variable_table.h"
#include "ps/store/slot.h"

namespace varscope {

class Snapshot;

// The slices of the variables that one server owns, with their optimizer slots. Each bucket's values, and
// each of its slots, are one contiguous, 64-byte-aligned run of memory in the order of Bucket::slices. Throws
// Error(argument) for a bucket that is not here. Not thread-safe; owns its memory.
class ParameterShard {
 public:
  // Allocates everything (touching every page) but sets no value; see initialize() and for_each_slice().
  ParameterShard(const VariableTable& variables, const BucketPlan& plan, ServerId server,
                 std::vector<Slot> slots);

  ServerId server() const { return server_; }
  const std::vector<BucketId>& buckets() const { return ids_; }
  const VariableTable& variables() const { return variables_; }
  const VariableSpec& variable(int index) const { return variables_[static_cast<std::size_t>(index)]; }
  bool has(BucketId id) const;
  std::byte* value(BucketId id) { return entry(id).value.get(); }
  // slots(id)[i] is the memory of the i-th slot; empty for buckets that are not trainable.
  std::vector<std::byte*> slots(BucketId id);
  int n_slots(BucketId id) const { return static_cast<int>(entry(id).slots.size()); }
  std::byte* slot(BucketId id, int i) { return entry(id).slots[static_cast<std::size_t>(i)].get(); }
  const std::string& slot_name(int i) const { return slots_[static_cast<std::size_t>(i)].name; }
  Clock clock(BucketId id) const { return entry(id).clock; }
  void set_clock(BucketId id, Clock clock) { entry(id).clock = clock; }
  std::int64_t n_bytes() const { return n_bytes_; }  // values and slots

  // Whoever changes values or slots while the server runs says so first, for bytes [begin, begin + n_bytes)
  // of the bucket's values and of each of its slots: a snapshot may still need them. Borrowed; null: none.
  void set_snapshot(Snapshot* snapshot) { snapshot_ = snapshot; }
  void before_write(BucketId id, std::int64_t begin, std::int64_t n_bytes);

  // Sets values by the variables' initializers, and slots to what they start with beside them.
  void initialize(std::uint64_t seed);
  // Sets all slots to what they start with beside the values that are there now.
  void start_slots();
  // Calls load(variable, slot name ("" is the value), slice, memory) for every slice of value and slots.
  using Loader =
      std::function<void(const VariableSpec&, const std::string& slot, const BucketSlice&, TensorView)>;
  void for_each_slice(const Loader& visit);
  // XXH3-128 of every slice's values.
  HashReport hashes();

 private:
  struct Entry {
    const Bucket* bucket;
    AlignedBytes value;
    std::vector<AlignedBytes> slots;
    Clock clock;
  };
  const Entry& entry(BucketId id) const;
  Entry& entry(BucketId id) { return const_cast<Entry&>(std::as_const(*this).entry(id)); }

  const VariableTable& variables_;
  ServerId server_;
  std::vector<Slot> slots_;
  std::vector<BucketId> ids_;
  std::vector<Entry> entries_;
  IdVector<BucketId, int> position_;  // in entries_; -1 when not here
  std::int64_t n_bytes_ = 0;
  Snapshot* snapshot_ = nullptr;
};

}  // namespace varscope
