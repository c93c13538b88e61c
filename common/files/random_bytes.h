#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace varscope {

// Bytes that can be read at any place: of a file, a mapping, memory. A value; borrows what it reads from.
struct RandomBytes {
  std::uint64_t size = 0;
  // Fills `out`. REQUIRES offset + out.size() <= size.
  std::function<void(std::uint64_t offset, std::span<std::byte> out)> read_at;

  // [begin, begin + n). REQUIRES begin + n <= size.
  std::string range(std::uint64_t begin, std::uint64_t n) const {
    std::string out(static_cast<std::size_t>(n), '\0');
    read_at(begin, std::as_writable_bytes(std::span(out)));
    return out;
  }
};

inline RandomBytes bytes_of(std::span<const std::byte> memory) {
  return {memory.size(), [memory](std::uint64_t offset, std::span<std::byte> out) {
            std::ranges::copy(memory.subspan(static_cast<std::size_t>(offset), out.size()), out.begin());
          }};
}

}  // namespace varscope
