#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/tensor.h"

namespace varscope {

// A tensor under a name, as a file has it.
struct NamedTensor {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;  // fully known
  // Of int64 only: the bits are those of unsigned numbers, which varscope has as ids of tables' rows alone.
  bool is_unsigned = false;

  std::uint64_t n_bytes() const { return static_cast<std::uint64_t>(shape.n_elements()) * size_of(dtype); }
};

// Whether a tensor of that name may be a table's ids, and so unsigned (checkpoint/exchange/table_tensors.h).
inline bool may_be_ids(std::string_view name) { return name.ends_with(".ids"); }

}  // namespace varscope
