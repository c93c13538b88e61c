#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/variables/slice.h"
#include "common/variables/variable_table.h"

namespace varscope {

// What two boxes of one variable have in common; nothing when that is empty. REQUIRES: equal `full`.
std::optional<Slice> intersect(const Slice& a, const Slice& b);

// A box of a part as a box of the whole variable; a box of a whole variable stays as it is. REQUIRES:
// box.full is variable.shape, and a part lies inside its whole.
Slice in_whole(const VariableSpec& variable, const Slice& box);

// The place of the box's element, counted in row-major order, in the row-major order of `full`.
std::int64_t element_in_whole(const Slice& box, std::int64_t element);

// Whether the boxes cover the shape exactly once. Returns "" or what is wrong, in words that follow the
// variable's name. REQUIRES: every box has this `full` and at least one element.
std::string coverage_problem(const Shape& shape, std::span<const Slice> boxes);

// Calls f(from_element, to_element, n) for each run of elements that is contiguous in both row-major boxes,
// in row-major order; together the runs are `common`, which lies inside both.
template <class F>
void for_each_run(const Slice& common, const Slice& from, const Slice& to, F&& f) {
  const std::size_t rank = common.full.rank();
  // Axes from `inner` on form one run: all but the first of them are whole in both boxes.
  std::size_t inner = rank;
  std::int64_t run = 1;
  while (inner > 0) {
    --inner;
    run *= common.extent[inner];
    if (common.extent[inner] != from.extent[inner] || common.extent[inner] != to.extent[inner]) break;
  }
  const auto element = [&](const Slice& box, const std::vector<std::int64_t>& at) {
    std::int64_t e = 0;
    for (std::size_t a = 0; a < rank; ++a) e = e * box.extent[a] + (common.offset[a] + at[a] - box.offset[a]);
    return e;
  };
  std::vector<std::int64_t> at(rank, 0);
  while (true) {
    f(element(from, at), element(to, at), run);
    std::size_t axis = inner;
    while (axis > 0 && ++at[axis - 1] == common.extent[axis - 1]) at[--axis] = 0;
    if (axis == 0) return;
  }
}

}  // namespace varscope
