#include "common/variables/slice.h"

#include <algorithm>
#include <charconv>

namespace varscope {
namespace {

// Splits off the text up to `stop` (or all of it) and reads it as a non-negative integer.
std::int64_t take_number(std::string_view& text, std::string_view spec, char stop) {
  const std::string_view digits = text.substr(0, text.find(stop));
  std::int64_t value = -1;
  const auto [p, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || p != digits.data() + digits.size() || value < 0) {
    fail(ErrorKind::data, "slice \"{}\" is malformed at \"{}\"", spec, text);
  }
  text.remove_prefix(std::min(digits.size() + 1, text.size()));
  return value;
}

}  // namespace

std::int64_t Slice::linear_begin() const {
  std::int64_t at = 0;
  for (std::size_t axis = 0; axis < full.rank(); ++axis) at = at * full[axis] + offset[axis];
  return at;
}

std::string Slice::spec() const {
  std::string dims, boxes;
  for (std::size_t axis = 0; axis < full.rank(); ++axis) {
    dims += std::to_string(full[axis]) + " ";
    if (axis > 0) boxes += ":";
    boxes += std::to_string(offset[axis]) + "," + std::to_string(extent[axis]);
  }
  return dims + boxes;
}

Slice Slice::from_spec(std::string_view spec) {
  if (spec.empty()) return {};
  std::vector<std::int64_t> full, offset, extent;
  std::string_view text = spec;
  while (text.find(' ') != std::string_view::npos) full.push_back(take_number(text, spec, ' '));
  while (!text.empty()) {
    offset.push_back(take_number(text, spec, ','));
    extent.push_back(take_number(text, spec, ':'));
  }
  if (full.size() != offset.size()) {
    fail(ErrorKind::data, "slice \"{}\" has {} extents but {} ranges", spec, full.size(), offset.size());
  }
  for (std::size_t axis = 0; axis < full.size(); ++axis) {
    if (offset[axis] > full[axis] || extent[axis] > full[axis] - offset[axis]) {
      fail(ErrorKind::data, "slice \"{}\" reaches outside its variable on axis {}", spec, axis);
    }
  }
  Slice slice{Shape(std::move(full)), Shape(std::move(offset)), Shape(std::move(extent))};
  // One text per slice: no leading zero, nothing at the end.
  if (slice.spec() != spec)
    fail(ErrorKind::data, "slice \"{}\" is malformed; it should read \"{}\"", spec, slice.spec());
  return slice;
}

std::vector<Slice> slice_variable(const Shape& shape, DType dtype) {
  const std::int64_t n = shape.n_elements();
  const auto item = static_cast<std::int64_t>(size_of(dtype));
  if (n == 0) return {};
  if (shape.rank() == 0) return {Slice{}};
  const std::int64_t target =
      std::clamp(n * item / kSlicesPerVariable, kMinSliceBytes, kMaxSliceBytes) / item;  // elements

  // The axis to split: the outermost whose sub-tensors fit the target; everything outside it is taken one by
  // one.
  std::size_t axis = 0;
  std::int64_t inner = n / shape[0];
  while (inner > target && axis + 1 < shape.rank()) inner /= shape[++axis];
  const std::int64_t step = std::max<std::int64_t>(1, target / inner);
  const std::int64_t outer = n / (inner * shape[axis]);

  std::vector<Slice> slices;
  for (std::int64_t o = 0; o < outer; ++o) {
    std::vector<std::int64_t> offset(shape.rank(), 0), extent(shape.dims().begin(), shape.dims().end());
    std::int64_t rest = o;
    for (std::size_t a = axis; a-- > 0; rest /= shape[a]) {
      offset[a] = rest % shape[a];
      extent[a] = 1;
    }
    for (std::int64_t begin = 0; begin < shape[axis]; begin += step) {
      offset[axis] = begin;
      extent[axis] = std::min(step, shape[axis] - begin);
      slices.push_back({shape, Shape(offset), Shape(extent)});
    }
  }
  return slices;
}

}  // namespace varscope
