#include "worker/data/number_array.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/base/error.h"
#include "common/files/half.h"

namespace varscope {
namespace {

struct Half {
  std::uint16_t bits;
};
struct Boolean {
  std::uint8_t bits;
};

constexpr std::array kNames = {"bool",   "int8",   "int16",  "int32",   "int64",   "uint8",
                               "uint16", "uint32", "uint64", "float16", "float32", "float64"};

// Calls f(T{}) with the type of the elements.
template <class F>
decltype(auto) with_type(NumberType type, F&& f) {
  switch (type) {
    case NumberType::boolean:
      return f(Boolean{});
    case NumberType::int8:
      return f(std::int8_t{});
    case NumberType::int16:
      return f(std::int16_t{});
    case NumberType::int32:
      return f(std::int32_t{});
    case NumberType::int64:
      return f(std::int64_t{});
    case NumberType::uint8:
      return f(std::uint8_t{});
    case NumberType::uint16:
      return f(std::uint16_t{});
    case NumberType::uint32:
      return f(std::uint32_t{});
    case NumberType::uint64:
      return f(std::uint64_t{});
    case NumberType::float16:
      return f(Half{});
    case NumberType::float32:
      return f(float{});
    case NumberType::float64:
      return f(double{});
  }
  fail(ErrorKind::argument, "type {} of numbers is not one of ours", static_cast<int>(type));
}

template <class T>
T load(const std::byte* at) {
  T x;
  std::memcpy(&x, at, sizeof x);  // members of archives begin anywhere
  return x;
}
template <class T>
T load_swapped(const std::byte* at) {
  std::array<std::byte, sizeof(T)> bytes;
  std::reverse_copy(at, at + sizeof(T), bytes.begin());
  return load<T>(bytes.data());
}

// A number of C++ of the same value.
template <class T>
auto plain(T x) {
  if constexpr (std::is_same_v<T, Half>) {
    return from_half(x.bits);
  } else if constexpr (std::is_same_v<T, Boolean>) {
    return static_cast<std::uint8_t>(x.bits != 0);
  } else {
    return x;
  }
}

template <class To>
const std::array<To, 256>& scaled_bytes_of_images() {
  static const std::array<To, 256> table = [] {
    std::array<To, 256> t{};
    for (std::size_t i = 0; i < t.size(); ++i) t[i] = static_cast<To>(static_cast<double>(i) / 255.0);
    return t;
  }();
  return table;
}

}  // namespace

const char* to_string(NumberType type) { return kNames.at(static_cast<std::size_t>(type)); }

std::optional<NumberType> number_type(std::string_view name) {
  const auto* found = std::ranges::find(kNames, name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<NumberType>(found - kNames.begin());
}

std::size_t size_of(NumberType type) {
  return with_type(type, [](auto x) { return sizeof x; });
}

bool is_floating(NumberType type) {
  return type == NumberType::float16 || type == NumberType::float32 || type == NumberType::float64;
}

NumberArray::NumberArray(std::string name, std::shared_ptr<const void> owner,
                         std::span<const std::byte> bytes, const Layout& layout,
                         const std::vector<std::int64_t>& extents)
    : name_(std::move(name)), owner_(std::move(owner)), bytes_(bytes), layout_(layout) {
  constexpr std::size_t kMostAxes = 32;
  if (extents.empty()) fail(ErrorKind::data, "{}: holds a single number; samples are rows, [n, ...]", name_);
  if (extents.size() > kMostAxes)
    fail(ErrorKind::data, "{}: has {} axes, more than {}", name_, extents.size(), kMostAxes);
  auto n = static_cast<std::int64_t>(size_of(layout.type));
  std::string shape;
  for (const std::int64_t e : extents) shape += fmt::format("{}{}", shape.empty() ? "" : ", ", e);
  for (const std::int64_t e : extents) {
    if (e <= 0) fail(ErrorKind::data, "{}: has shape [{}]: it holds no numbers", name_, shape);
    if (e > std::numeric_limits<std::int64_t>::max() / n)
      fail(ErrorKind::data, "{}: has shape [{}], more numbers than there can be", name_, shape);
    n *= e;
  }
  if (static_cast<std::uint64_t>(n) != bytes.size()) {
    fail(ErrorKind::data, "{}: has {} bytes where {} numbers [{}] take {}{}", name_, bytes.size(),
         to_string(layout.type), shape, n,
         bytes.size() < static_cast<std::uint64_t>(n) ? ": it is cut off" : "");
  }
  n_rows_ = extents.front();
  is_vector_ = extents.size() == 1;
  row_shape_ = is_vector_ ? Shape{1} : Shape(std::vector(extents.begin() + 1, extents.end()));
  row_size_ = row_shape_.n_elements();
  if (!layout.is_fortran || is_vector_) return;
  std::int64_t stride = n_rows_;
  for (const std::int64_t e : row_shape_.dims()) {
    strides_.push_back(stride);
    stride *= e;
  }
}

std::string NumberArray::shape_text() const {
  return is_vector_ ? Shape{n_rows_}.str() : [&] {
    std::vector<std::int64_t> dims{n_rows_};
    dims.insert(dims.end(), row_shape_.dims().begin(), row_shape_.dims().end());
    return Shape(std::move(dims)).str();
  }();
}

// Calls use(x) for each element of a row, in C order.
template <class T, class Use>
void NumberArray::each(std::int64_t i, Use use) const {
  const auto one = [&](std::int64_t at) {
    const std::byte* p = bytes_.data() + static_cast<std::size_t>(at) * sizeof(T);
    return plain(layout_.is_swapped ? load_swapped<T>(p) : load<T>(p));
  };
  if (strides_.empty()) {
    const std::int64_t begin = i * row_size_;
    if (layout_.is_swapped) {
      for (std::int64_t k = 0; k < row_size_; ++k) use(one(begin + k));
      return;
    }
    const std::byte* p = bytes_.data() + static_cast<std::size_t>(begin) * sizeof(T);
    for (std::int64_t k = 0; k < row_size_; ++k, p += sizeof(T)) use(plain(load<T>(p)));
    return;
  }
  std::array<std::int64_t, 32> index{};
  std::int64_t at = i;
  for (std::int64_t k = 0; k < row_size_; ++k) {
    use(one(at));
    for (std::size_t axis = strides_.size(); axis-- > 0;) {
      at += strides_[axis];
      if (++index[axis] < row_shape_[axis]) break;
      at -= strides_[axis] * row_shape_[axis];
      index[axis] = 0;
    }
  }
}

template <class To>
void NumberArray::read_as(std::int64_t i, const Scale& scale, To* out) const {
  if (layout_.type == NumberType::uint8 && scale == Scale{1, 255}) {
    const std::array<To, 256>& table = scaled_bytes_of_images<To>();
    each<std::uint8_t>(i, [&](std::uint8_t x) { *out++ = table[x]; });
    return;
  }
  with_type(layout_.type, [&](auto type) {
    if (scale.is_one()) {
      each<decltype(type)>(i, [&](auto x) { *out++ = static_cast<To>(x); });
    } else {
      each<decltype(type)>(i, [&](auto x) {
        *out++ = static_cast<To>(static_cast<double>(x) * scale.numerator / scale.denominator);
      });
    }
  });
}

void NumberArray::read(std::int64_t i, const Scale& scale, float* out) const { read_as(i, scale, out); }
void NumberArray::read(std::int64_t i, const Scale& scale, double* out) const { read_as(i, scale, out); }

template <class To>
bool NumberArray::read_integers(std::int64_t i, To* out) const {
  using Limits = std::numeric_limits<To>;
  bool all = true;
  with_type(layout_.type, [&](auto type) {
    each<decltype(type)>(i, [&](auto x) {
      using T = decltype(x);
      bool fits = false;
      if constexpr (std::is_floating_point_v<T> && std::is_unsigned_v<To>) {
        fits = false;
      } else if constexpr (std::is_floating_point_v<T>) {
        // The least integer is a power of 2, exact in any type; NaN is none.
        constexpr auto kLeast = static_cast<T>(Limits::min());
        fits = x >= kLeast && x < -kLeast && std::trunc(x) == x;
      } else {
        fits = std::in_range<To>(x);
      }
      all = all && fits;
      *out++ = fits ? static_cast<To>(x) : To{0};
    });
  });
  return all;
}

bool NumberArray::read(std::int64_t i, std::int64_t* out) const { return read_integers(i, out); }
bool NumberArray::read(std::int64_t i, std::int32_t* out) const { return read_integers(i, out); }
bool NumberArray::read(std::int64_t i, std::uint64_t* out) const { return read_integers(i, out); }

std::int64_t NumberArray::n_bytes() const { return layout_.is_unpacked ? std::ssize(bytes_) : 0; }

Digest NumberArray::content(std::int64_t begin, std::int64_t end) const {
  Digester digester;
  const std::string_view type = to_string(layout_.type);
  digester.update(std::as_bytes(std::span(type)));
  const std::size_t row_bytes = static_cast<std::size_t>(row_size_) * size_of(layout_.type);
  if (strides_.empty() && !layout_.is_swapped) {
    digester.update(bytes_.subspan(static_cast<std::size_t>(begin) * row_bytes,
                                   static_cast<std::size_t>(end - begin) * row_bytes));
    return digester.finish();
  }
  std::vector<std::byte> row(row_bytes);
  const bool is_half = layout_.type == NumberType::float16;
  for (std::int64_t i = begin; i < end; ++i) {
    std::size_t at = 0;
    with_type(is_half ? NumberType::uint16 : layout_.type, [&](auto element) {
      using T = decltype(element);
      each<T>(i, [&](auto x) {
        std::memcpy(row.data() + at, &x, sizeof x);
        at += sizeof(T);
      });
    });
    digester.update(row);
  }
  return digester.finish();
}

}  // namespace varscope
