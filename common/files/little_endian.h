#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace varscope {

// Little-endian integers in strings; the readers REQUIRE that the bytes are there.
template <class Int>
void put_le(std::string& out, Int value) {
  for (std::size_t i = 0; i < sizeof(Int); ++i)
    out += static_cast<char>((static_cast<std::uint64_t>(value) >> (8 * i)) & 0xff);
}
template <class Int>
Int get_le(std::string_view bytes, std::size_t at) {
  std::uint64_t value = 0;
  for (std::size_t i = sizeof(Int); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return static_cast<Int>(value);
}
// The same from the front of `bytes`, which loses them.
template <class Int>
Int take_le(std::string_view& bytes) {
  const Int value = get_le<Int>(bytes, 0);
  bytes.remove_prefix(sizeof(Int));
  return value;
}

}  // namespace varscope
