#include "common/variables/partitioner.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace varscope {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

void check_positive(const char* partitioner, const char* what, std::int64_t value) {
  if (value < 1) fail(ErrorKind::argument, "{}: {} is {}; it must be 1 or more", partitioner, what, value);
}

std::int64_t extent_of(const Shape& shape, std::size_t axis) {
  if (axis >= shape.rank()) {
    fail(ErrorKind::argument, "cannot partition along axis {} a variable of shape {}", axis, shape.str());
  }
  return shape[axis];
}

std::vector<std::int64_t> along(const Shape& shape, std::size_t axis, std::int64_t n) {
  return Partitioning{axis, std::max<std::int64_t>(1, n)}.counts(shape.rank());
}

std::int64_t bytes_of(const Shape& shape, DType dtype) {
  return shape.n_elements() * static_cast<std::int64_t>(size_of(dtype));
}

}  // namespace

Partitioner fixed_size_partitioner(std::int64_t parts, std::size_t axis) {
  check_positive("fixed_size_partitioner", "the number of parts", parts);
  return [parts, axis](const Shape& shape, DType) {
    return along(shape, axis, std::min(parts, extent_of(shape, axis)));
  };
}

Partitioner variable_axis_size_partitioner(std::int64_t max_shard_bytes, std::size_t axis,
                                           std::optional<std::int64_t> max_shards) {
  check_positive("variable_axis_size_partitioner", "max_shard_bytes", max_shard_bytes);
  if (max_shards) check_positive("variable_axis_size_partitioner", "max_shards", *max_shards);
  return [=](const Shape& shape, DType dtype) {
    const std::int64_t extent = extent_of(shape, axis);
    if (shape.n_elements() == 0) return along(shape, axis, 1);
    const std::int64_t slice_bytes = bytes_of(shape, dtype) / extent;
    const std::int64_t per_shard = std::max<std::int64_t>(1, max_shard_bytes / slice_bytes);
    const std::int64_t shards = ceil_div(extent, per_shard);
    return along(shape, axis, std::min(shards, max_shards.value_or(shards)));
  };
}

Partitioner min_max_variable_partitioner(std::int64_t max_partitions, std::size_t axis,
                                         std::int64_t min_slice_size) {
  check_positive("min_max_variable_partitioner", "max_partitions", max_partitions);
  check_positive("min_max_variable_partitioner", "min_slice_size", min_slice_size);
  return [=](const Shape& shape, DType dtype) {
    const std::int64_t extent = extent_of(shape, axis);
    return along(shape, axis,
                 std::min({extent, max_partitions, ceil_div(bytes_of(shape, dtype), min_slice_size)}));
  };
}

std::vector<std::int64_t> Partitioning::counts(std::size_t rank) const {
  std::vector<std::int64_t> all(rank, 1);
  if (axis < rank) all[axis] = n;
  return all;
}

Partitioning call_partitioner(const Partitioner& partitioner, const std::string& variable, const Shape& shape,
                              DType dtype) {
  const std::vector<std::int64_t> counts = partitioner(shape, dtype);
  const auto bad = [&](std::string_view what) {
    fail(ErrorKind::argument, "the partitioner of variable \"{}\" of shape {} gave [{}]: {}", variable,
         shape.str(), fmt::join(counts, ", "), what);
  };
  if (counts.size() != shape.rank())
    bad(fmt::format("{} entries do not match the variable's rank {}", counts.size(), shape.rank()));
  Partitioning result;
  for (std::size_t axis = 0; axis < counts.size(); ++axis) {
    if (counts[axis] < 1) bad(fmt::format("axis {} would have less than one part", axis));
    if (counts[axis] == 1) continue;
    if (result.n > 1) bad("a variable can be divided along one axis only");
    if (counts[axis] > shape[axis])
      bad(fmt::format("axis {} has only {} indices to give to its parts", axis, shape[axis]));
    result = {axis, counts[axis]};
  }
  return result;
}

std::vector<Slice> cut_parts(const Shape& shape, const Partitioning& partitioning) {
  const auto [axis, n] = partitioning;
  const Shape origin(std::vector<std::int64_t>(shape.rank(), 0));
  std::vector<Slice> parts;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t length = shape[axis] / n + (i < shape[axis] % n ? 1 : 0);
    parts.push_back({shape, origin.with_dim(axis, begin), shape.with_dim(axis, length)});
    begin += length;
  }
  return parts;
}

}  // namespace varscope
