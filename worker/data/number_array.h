#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/base/tensor.h"

namespace varscope {

// The types that numbers have in files of other programs.
enum class NumberType : std::uint8_t {
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,
  float32,
  float64
};
const char* to_string(NumberType type);  // "uint8", as NumPy says it
std::size_t size_of(NumberType type);
bool is_floating(NumberType type);
std::optional<NumberType> number_type(std::string_view name);  // the reverse of to_string

// What numbers are multiplied by: numerator / denominator. x / 255 has other bits than x * (1 / 255).
struct Scale {
  double numerator = 1, denominator = 1;
  bool is_one() const { return numerator == denominator; }
  bool operator==(const Scale&) const = default;
};

// Rows of numbers, [n, ...], as they lie in a file or in memory: of any of the types, in either order of
// bytes, the last axis (C) or the first one (Fortran) varying fastest. A value that shares what the numbers
// lie in. Reading is safe from any thread.
class NumberArray {
 public:
  struct Layout {
    NumberType type = NumberType::uint8;
    bool is_swapped = false;  // big-endian
    bool is_fortran = false;
    bool is_unpacked = false;  // the bytes take memory of this process: they are no mapping
  };
  // `name` for messages: "x.npy", "train.npz: array \"x\"". `owner` keeps the bytes alive. Throws Error(data)
  // when the extents are none, too many or too large, have no rows or rows of nothing, or are not just those
  // of the bytes.
  NumberArray(std::string name, std::shared_ptr<const void> owner, std::span<const std::byte> bytes,
              const Layout& layout, const std::vector<std::int64_t>& extents);

  const std::string& name() const { return name_; }
  NumberType type() const { return layout_.type; }
  std::int64_t n_rows() const { return n_rows_; }
  // Of one row: that of [n, k] is [k], that of [n] is [1].
  const Shape& row_shape() const { return row_shape_; }
  bool is_vector() const { return is_vector_; }  // [n], not [n, 1]
  std::string shape_text() const;                // "[60000, 28, 28]"
  std::int64_t n_bytes() const;                  // of memory

  // Row i in C order, scaled; of row_shape().n_elements() numbers. REQUIRES 0 <= i < n_rows().
  void read(std::int64_t i, const Scale& scale, float* out) const;
  void read(std::int64_t i, const Scale& scale, double* out) const;
  // The elements of row i as integers; false when one is none, or does not fit.
  bool read(std::int64_t i, std::int64_t* out) const;
  bool read(std::int64_t i, std::int32_t* out) const;
  bool read(std::int64_t i, std::uint64_t* out) const;  // none of floats

  // Over rows [begin, end): their elements in C order and this machine's order of bytes, and their type.
  Digest content(std::int64_t begin, std::int64_t end) const;

 private:
  template <class T, class Use>
  void each(std::int64_t i, Use use) const;
  template <class To>
  void read_as(std::int64_t i, const Scale& scale, To* out) const;
  template <class To>
  bool read_integers(std::int64_t i, To* out) const;

  std::string name_;
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
  Layout layout_;
  std::int64_t n_rows_ = 0, row_size_ = 0;
  Shape row_shape_;
  bool is_vector_ = false;
  std::vector<std::int64_t> strides_;  // of the row's axes, in elements; in Fortran order only
};

}  // namespace varscope
