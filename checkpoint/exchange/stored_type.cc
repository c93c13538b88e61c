#include "checkpoint/exchange/stored_type.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "checkpoint/format/elements.h"
#include "common/base/error.h"
#include "common/files/half.h"

namespace varscope {
namespace {

constexpr std::array kTypes = {ForeignType{"float16", 2, DType::float32, 19, "<f2", "F16"},
                               ForeignType{"int8", 1, DType::int32, 6, "|i1", "I8"},
                               ForeignType{"int16", 2, DType::int32, 5, "<i2", "I16"},
                               ForeignType{"uint16", 2, DType::int32, 17, "<u2", "U16"},
                               ForeignType{"uint32", 4, DType::int64, 22, "<u4", "U32"},
                               ForeignType{"bool", 1, DType::uint8, 10, "|b1", "BOOL"}};

template <class Matches>
const ForeignType* find(Matches matches) {
  const auto it = std::ranges::find_if(kTypes, matches);
  return it == kTypes.end() ? nullptr : &*it;
}

template <class From, class To, class Convert>
void convert(std::span<const std::byte> from, std::span<std::byte> to, Convert f) {
  const std::size_t n = from.size() / sizeof(From);
  if (to.size() != n * sizeof(To) || from.size() % sizeof(From) != 0)
    fail(ErrorKind::argument, "{} bytes cannot be widened into {}", from.size(), to.size());
  for (std::size_t i = 0; i < n; ++i) {
    const To x = f(element<From>(from.data(), i));
    std::memcpy(to.data() + i * sizeof(To), &x, sizeof(To));
  }
}

template <class From, class To>
void convert(std::span<const std::byte> from, std::span<std::byte> to) {
  convert<From, To>(from, to, [](From x) { return static_cast<To>(x); });
}

}  // namespace

const ForeignType* foreign_type_of_tf(int number) {
  return find([&](const ForeignType& t) { return t.tf == number; });
}
const ForeignType* foreign_type_of_npy(std::string_view descr) {
  return find([&](const ForeignType& t) {
    // One byte has no order: NumPy says '|', others also '<'.
    return t.npy == descr ||
           (t.size == 1 && !descr.empty() && descr[0] == '<' && t.npy.substr(1) == descr.substr(1));
  });
}
const ForeignType* foreign_type_of_safetensors(std::string_view name) {
  return find([&](const ForeignType& t) { return t.safetensors == name; });
}

void widen(const ForeignType& type, std::span<const std::byte> from, std::span<std::byte> to) {
  switch (type.tf) {
    case 19:
      return convert<std::uint16_t, float>(from, to, from_half);
    case 6:
      return convert<std::int8_t, std::int32_t>(from, to);
    case 5:
      return convert<std::int16_t, std::int32_t>(from, to);
    case 17:
      return convert<std::uint16_t, std::int32_t>(from, to);
    case 22:
      return convert<std::uint32_t, std::int64_t>(from, to);
    case 10:
      return convert<std::uint8_t, std::uint8_t>(from, to,
                                                 [](std::uint8_t x) { return std::uint8_t{x != 0}; });
    default:
      fail(ErrorKind::argument, "{} cannot be widened", type.name);
  }
}

std::string StoredType::name() const {
  return foreign != nullptr ? std::string(foreign->name) : to_string(dtype);
}

StoredType require_widening(const ForeignType* foreign, std::string_view name, Widen how,
                            const std::string& what) {
  if (foreign == nullptr)
    fail(ErrorKind::checkpoint,
         "{} is of dtype {}, which varscope does not have; save it as another one, or leave it out", what,
         name);
  if (how == Widen::yes) return {foreign->wider, foreign};
  fail(ErrorKind::checkpoint, "{} is of dtype {}, which varscope does not have; read it as {} with --widen",
       what, name, to_string(foreign->wider));
}

void note_widening(ReadNotes& notes, const StoredType& type, const std::string& tensor) {
  if (type.foreign == nullptr) return;
  const std::string start = fmt::format("{} as {}: ", type.foreign->name, to_string(type.dtype));
  for (std::string& line : notes.widened) {
    if (!line.starts_with(start)) continue;
    line += ", " + tensor;
    return;
  }
  notes.widened.push_back(start + tensor);
}

}  // namespace varscope
