#pragma once

#include <cstdint>
#include <string>

#include "common/base/tensor.h"

namespace varscope {

// A tensor under a name, as a file has it.
struct NamedTensor {
  std::string name;
  DType dtype = DType::float32;
  Shape shape;  // fully known

  std::uint64_t n_bytes() const { return static_cast<std::uint64_t>(shape.n_elements()) * size_of(dtype); }
};

}  // namespace varscope
