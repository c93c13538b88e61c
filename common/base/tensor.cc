#include "common/base/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

namespace varscope {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::float64:
    case DType::int64:
      return 8;
    case DType::bfloat16:
      return 2;
    case DType::uint8:
      return 1;
  }
  fail(ErrorKind::argument, "dtype {} is not one of ours", static_cast<int>(dtype));
}

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::bfloat16:
      return "bfloat16";
    case DType::uint8:
      return "uint8";
  }
  return "unknown";
}

DType dtype_from_string(std::string_view name) {
  for (DType d :
       {DType::float32, DType::float64, DType::int32, DType::int64, DType::bfloat16, DType::uint8}) {
    if (name == to_string(d)) return d;
  }
  fail(ErrorKind::argument,
       "dtype \"{}\" is unknown; it is one of float32, float64, int32, int64, bfloat16, uint8", name);
}

bool is_floating(DType dtype) {
  return dtype == DType::float32 || dtype == DType::float64 || dtype == DType::bfloat16;
}

Shape::Shape(std::vector<std::int64_t> dims) : dims_(std::move(dims)) {
  std::int64_t n = 1;
  for (std::int64_t d : dims_) {
    if (d < kBounds) fail(ErrorKind::argument, "shape [{}] has a negative extent", fmt::join(dims_, ", "));
    if (d > 0 && n > std::numeric_limits<std::int64_t>::max() / 16 / d) {
      fail(ErrorKind::argument, "shape [{}] has more elements than fit in memory", fmt::join(dims_, ", "));
    }
    if (d > 0) n *= d;
  }
}

bool Shape::fully_known() const {
  return std::ranges::none_of(dims_, [](std::int64_t d) { return d < 0; });
}

bool Shape::has(std::int64_t extent) const { return std::ranges::find(dims_, extent) != dims_.end(); }

std::int64_t Shape::n_elements() const {
  std::int64_t n = 1;
  for (std::int64_t d : dims_) {
    if (d < 0) fail(ErrorKind::argument, "shape {} is not fully known", str());
    n *= d;
  }
  return n;
}

Shape Shape::with_dim(std::size_t axis, std::int64_t extent) const {
  std::vector<std::int64_t> dims = dims_;
  dims.at(axis) = extent;
  return Shape(std::move(dims));
}

std::string Shape::str() const {
  std::string s = "[";
  for (std::size_t i = 0; i < dims_.size(); ++i) {
    if (i > 0) s += ", ";
    const std::int64_t d = dims_[i];
    s += d == kUnknown ? "?" : d == kRagged ? "ragged" : d == kBounds ? "?+1" : std::to_string(d);
  }
  return s + "]";
}

void TensorView::fail_dtype(DType asked) const {
  fail(ErrorKind::argument, "tensor of shape {} has dtype {}, not {}", shape_.str(), to_string(dtype_),
       to_string(asked));
}

void AlignedFree::operator()(std::byte* p) const { std::free(p); }

AlignedBytes allocate_aligned(std::size_t n_bytes) {
  const std::size_t rounded = (std::max<std::size_t>(n_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  auto* p = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
  if (p == nullptr) throw std::bad_alloc();
  return AlignedBytes(p);
}

Tensor::Tensor(DType dtype, Shape shape) {
  const std::size_t n = static_cast<std::size_t>(shape.n_elements()) * size_of(dtype);
  memory_ = allocate_aligned(n);
  std::memset(memory_.get(), 0, n);
  view_ = TensorView(dtype, std::move(shape), memory_.get());
}

Tensor Tensor::clone() const {
  Tensor t(dtype(), shape());
  if (n_bytes() > 0) std::memcpy(t.view().bytes(), view_.bytes(), n_bytes());
  return t;
}

}  // namespace varscope
