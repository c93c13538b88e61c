#include "checkpoint/format/boxes.h"

#include <fmt/format.h>

#include <algorithm>

namespace varscope {
namespace {

// Whether the box is one run of the row-major variable.
bool is_contiguous(const Slice& box) {
  std::size_t axis = box.full.rank();
  while (axis > 0 && box.extent[axis - 1] == box.full[axis - 1]) --axis;
  while (axis > 1) {
    if (box.extent[--axis - 1] != 1) return false;
  }
  return true;
}

std::string overlap(const Slice& a, const Slice& b) {
  return fmt::format("has overlapping slices \"{}\" and \"{}\"", a.spec(), b.spec());
}

// The first pair that overlaps, in words; "" when there is none.
std::string find_overlap(std::vector<const Slice*>& boxes) {
  if (std::all_of(boxes.begin(), boxes.end(), [](const Slice* b) { return is_contiguous(*b); })) {
    std::sort(boxes.begin(), boxes.end(),
              [](const Slice* a, const Slice* b) { return a->linear_begin() < b->linear_begin(); });
    for (std::size_t i = 1; i < boxes.size(); ++i) {
      const Slice &a = *boxes[i - 1], &b = *boxes[i];
      if (a.linear_begin() + a.n_elements() > b.linear_begin()) return overlap(a, b);
    }
    return "";
  }
  // Sweep along axis 0; only boxes whose ranges on it meet are compared. Scalars never come here: they are
  // contiguous.
  std::sort(boxes.begin(), boxes.end(),
            [](const Slice* a, const Slice* b) { return a->offset[0] < b->offset[0]; });
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const std::int64_t end = boxes[i]->offset[0] + boxes[i]->extent[0];
    for (std::size_t j = i + 1; j < boxes.size() && boxes[j]->offset[0] < end; ++j) {
      if (intersect(*boxes[i], *boxes[j])) return overlap(*boxes[i], *boxes[j]);
    }
  }
  return "";
}

}  // namespace

std::optional<Slice> intersect(const Slice& a, const Slice& b) {
  const std::size_t rank = a.full.rank();
  std::vector<std::int64_t> offset(rank), extent(rank);
  for (std::size_t axis = 0; axis < rank; ++axis) {
    offset[axis] = std::max(a.offset[axis], b.offset[axis]);
    extent[axis] = std::min(a.offset[axis] + a.extent[axis], b.offset[axis] + b.extent[axis]) - offset[axis];
    if (extent[axis] <= 0) return std::nullopt;
  }
  return Slice{a.full, Shape(std::move(offset)), Shape(std::move(extent))};
}

Slice in_whole(const VariableSpec& variable, const Slice& box) {
  if (!variable.is_part()) return box;
  std::vector<std::int64_t> offset(box.offset.dims().begin(), box.offset.dims().end());
  for (std::size_t axis = 0; axis < offset.size(); ++axis) offset[axis] += variable.part.offset[axis];
  return {variable.part.full_shape, Shape(std::move(offset)), box.extent};
}

std::int64_t element_in_whole(const Slice& box, std::int64_t element) {
  std::int64_t place = 0, stride = 1;
  for (std::size_t a = box.full.rank(); a-- > 0;) {
    place += (box.offset[a] + element % box.extent[a]) * stride;
    element /= box.extent[a];
    stride *= box.full[a];
  }
  return place;
}

std::string coverage_problem(const Shape& shape, std::span<const Slice> boxes) {
  const std::int64_t total = shape.n_elements();
  std::vector<const Slice*> sorted;
  std::int64_t covered = 0;
  for (const Slice& box : boxes) {
    sorted.push_back(&box);
    if (box.n_elements() > total - covered) {
      const std::string pair = find_overlap(sorted);
      return pair.empty() ? fmt::format("has slices of more than its {} elements", total) : pair;
    }
    covered += box.n_elements();
  }
  if (std::string pair = find_overlap(sorted); !pair.empty()) return pair;
  if (covered < total)
    return fmt::format("has a hole: {} of its {} elements are in no slice", total - covered, total);
  return "";
}

}  // namespace varscope
