#pragma once

#include <cstdint>

#include "worker/ops/op_support.h"

// Ids of rows of a table, int32 or int64; private to worker/ops.
namespace varscope::op_support {

inline void require_ids(const InferContext& context, std::size_t input) {
  const DType dtype = context.dtype(input);
  if (dtype == DType::int32 || dtype == DType::int64) return;
  context.fail(fmt::format("needs ids, int32 or int64, in \"{}\", which is {}", context.name(input),
                           context.type(input).str()));
}

// A table of known shape, or one of which each run has rows of its own: [ragged, units].
inline void require_table(const InferContext& context, std::size_t input) {
  context.require_rank(input, 2);
  const Shape& table = context.shape(input);
  if (table.fully_known() || (table[0] == Shape::kRagged && table[1] > 0)) return;
  context.fail(fmt::format("needs a table of known shape; \"{}\" has {}", context.name(input), table.str()));
}

// Calls body(pointer to the ids). REQUIRES require_ids.
template <class Body>
void with_ids(const TensorView& ids, Body&& body) {
  if (ids.dtype() == DType::int32) {
    body(static_cast<const std::int32_t*>(ids.data<std::int32_t>()));
  } else {
    body(static_cast<const std::int64_t*>(ids.data<std::int64_t>()));
  }
}

// Throws Error(data) for an id that is not one of `size` places: "an embedding table of" 5 "rows".
template <class Id>
void check_ids(const Id* ids, const Shape& shape, std::int64_t size, const char* what, const char* places) {
  const std::int64_t n = shape.n_elements();
  for (std::int64_t i = 0; i < n; ++i) {
    if (ids[i] >= 0 && ids[i] < size) continue;
    const std::int64_t per_row = shape.rank() == 0 ? 1 : n / shape[0];
    fail(ErrorKind::data, "row {} of the batch has id {} at position {}; {} {} {} has ids 0 .. {}",
         i / per_row, ids[i], i % per_row, what, size, places, size - 1);
  }
}

}  // namespace varscope::op_support
