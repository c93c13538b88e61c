#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "common/base/tensor.h"
#include "common/variables/slice.h"

namespace varscope {

// Says how many parts a variable of this shape and dtype is divided into along each axis; at most one axis
// may have more than one. A pure function: every rank calls it and must get the same answer. It must not call
// the store.
using Partitioner = std::function<std::vector<std::int64_t>(const Shape&, DType)>;

// The factories' partitioners throw Error(argument) for an axis that the shape does not have.

// min(parts, extent) parts. REQUIRES parts >= 1 (Error(argument)).
Partitioner fixed_size_partitioner(std::int64_t parts, std::size_t axis = 0);
// As few parts as keep each within max_shard_bytes, where a part has at least one index of the axis; never
// more than max_shards.
Partitioner variable_axis_size_partitioner(std::int64_t max_shard_bytes, std::size_t axis = 0,
                                           std::optional<std::int64_t> max_shards = {});
// max(1, min(extent, max_partitions, ceil(bytes / min_slice_size))) parts.
Partitioner min_max_variable_partitioner(std::int64_t max_partitions = 1, std::size_t axis = 0,
                                         std::int64_t min_slice_size = 256 << 10);

// A partitioner's answer, checked: `n` parts along `axis` (0 when no axis is divided).
struct Partitioning {
  std::size_t axis = 0;
  std::int64_t n = 1;
  std::vector<std::int64_t> counts(std::size_t rank) const;  // as the partitioner gave them
  friend bool operator==(const Partitioning&, const Partitioning&) = default;
};

// Calls the partitioner. Throws Error(argument), naming `variable`, when it gives another number of entries
// than the shape's rank, an entry below 1, more than one above 1, or more parts than the axis has indices.
// REQUIRES rank > 0.
Partitioning call_partitioner(const Partitioner& partitioner, const std::string& variable, const Shape& shape,
                              DType dtype);

// The parts, in order: as equal as can be, the first (extent mod n) one longer. REQUIRES a checked
// partitioning.
std::vector<Slice> cut_parts(const Shape& shape, const Partitioning& partitioning);

}  // namespace varscope
