#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"

namespace varscope {

enum class DType : std::uint8_t { float32 = 1, float64 = 2, int32 = 3, int64 = 4, bfloat16 = 5, uint8 = 6 };

std::size_t size_of(DType dtype);           // bytes of one element
const char* to_string(DType dtype);         // "float32", ...
DType dtype_from_string(std::string_view);  // throws Error(argument) that lists the names
bool is_floating(DType dtype);

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::float32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::float64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::int32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::int64;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::uint8;
}

// The extents of a tensor, row-major, outermost first. The empty shape is a scalar with one element. Extents
// that are not known until a graph runs have a number below 0.
class Shape {
 public:
  static constexpr std::int64_t kUnknown = -1;  // the batch
  static constexpr std::int64_t kRagged = -2;   // any number: the ids of all rows, one row behind the other
  static constexpr std::int64_t kBounds = -3;   // the batch + 1: where each of the rows begins, and the end
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::vector<std::int64_t>(dims)) {}
  explicit Shape(std::vector<std::int64_t> dims);  // throws Error(argument) on an extent below -3 or overflow

  std::size_t rank() const { return dims_.size(); }
  std::int64_t operator[](std::size_t axis) const { return dims_[axis]; }
  std::span<const std::int64_t> dims() const { return dims_; }
  bool fully_known() const;
  std::int64_t n_elements() const;  // REQUIRES: fully_known()
  Shape with_dim(std::size_t axis, std::int64_t extent) const;
  bool has(std::int64_t extent) const;  // on any axis
  std::string str() const;              // "[784, 256]", "[?, 10]", "[ragged]", "[?+1]"
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::vector<std::int64_t> dims_;
};

// Borrowed, mutable view of a contiguous row-major tensor. Cheap to copy; does not own.
class TensorView {
 public:
  TensorView() = default;
  TensorView(DType dtype, Shape shape, std::byte* data)
      : dtype_(dtype), shape_(std::move(shape)), data_(data) {}

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t n_elements() const { return shape_.n_elements(); }
  std::size_t n_bytes() const { return static_cast<std::size_t>(n_elements()) * size_of(dtype_); }
  std::byte* bytes() const { return data_; }
  bool empty() const { return data_ == nullptr; }
  // Throws Error(argument) if T is not the dtype.
  template <class T>
  std::span<T> as() const {
    if (dtype_of<T>() != dtype_) fail_dtype(dtype_of<T>());
    return {reinterpret_cast<T*>(data_), static_cast<std::size_t>(n_elements())};
  }
  template <class T>
  T* data() const {
    return as<T>().data();
  }

 private:
  [[noreturn]] void fail_dtype(DType asked) const;
  DType dtype_ = DType::float32;
  Shape shape_;
  std::byte* data_ = nullptr;
};

inline constexpr std::size_t kAlignment = 64;  // bytes: a cache line and the widest vector register

struct AlignedFree {
  void operator()(std::byte* p) const;
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedFree>;
// Uninitialised memory aligned to kAlignment. Throws std::bad_alloc.
AlignedBytes allocate_aligned(std::size_t n_bytes);

// Owns kAlignment-aligned, zero-filled memory with a dtype and a fully known shape. Movable, not copyable.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  template <class T>
  static Tensor of(Shape shape, std::initializer_list<T> values) {
    Tensor t(dtype_of<T>(), std::move(shape));
    if (values.size() != t.view().template as<T>().size())
      fail(ErrorKind::argument, "{} values for {}", values.size(), t.shape().str());
    std::copy(values.begin(), values.end(), t.view().template data<T>());
    return t;
  }

  DType dtype() const { return view_.dtype(); }
  const Shape& shape() const { return view_.shape(); }
  std::int64_t n_elements() const { return view_.n_elements(); }
  std::size_t n_bytes() const { return view_.n_bytes(); }
  const TensorView& view() const { return view_; }
  template <class T>
  std::span<T> as() const {
    return view_.as<T>();
  }
  Tensor clone() const;

 private:
  AlignedBytes memory_;
  TensorView view_;
};

}  // namespace varscope
