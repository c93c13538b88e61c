#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/tensor.h"

namespace varscope {

// A box of one variable: `full` is the variable's shape; the box starts at `offset` and has `extent` elements
// on each axis (all three have the same rank). A scalar's box has rank 0 and one element.
struct Slice {
  Shape full;
  Shape offset;
  Shape extent;

  std::int64_t n_elements() const { return extent.n_elements(); }
  // Boxes made by slice_variable() are contiguous in the row-major variable: the position of their first
  // element, in elements.
  std::int64_t linear_begin() const;
  // Text as TensorFlow's SaveSliceInfo writes it: "20 43 0,20:0,9" (shape, then offset,extent per axis). A
  // scalar is "".
  std::string spec() const;
  static Slice from_spec(
      std::string_view spec);  // throws Error(data); checks that the box lies inside the shape
  friend bool operator==(const Slice&, const Slice&) = default;
};

inline constexpr std::int64_t kMinSliceBytes = 4 << 10;
inline constexpr std::int64_t kMaxSliceBytes = 1 << 20;
inline constexpr std::int64_t kSlicesPerVariable = 64;

// Divides a variable into contiguous boxes, in row-major order, without hole or overlap. Depends on shape and
// dtype only, never on the number of servers, so that a slice is the same thing in every run. The size aims
// at clamp(bytes / kSlicesPerVariable, kMinSliceBytes, kMaxSliceBytes). A variable without elements has no
// slices.
std::vector<Slice> slice_variable(const Shape& shape, DType dtype);

}  // namespace varscope
