#pragma once

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace varscope::testing {

// A writer of NumPy's files and of IDX files that shares nothing with the product's.

template <class Int>
std::string little_bytes(Int value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof value; ++i)
    out += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xff);
  return out;
}
inline std::string big_word(std::uint32_t value) {
  std::string out = little_bytes(value);
  std::ranges::reverse(out);
  return out;
}

// Numbers as they lie in memory, or with the bytes of each turned round.
template <class T>
std::string raw(const std::vector<T>& numbers, bool swapped = false) {
  std::string out;
  for (const T x : numbers) {
    std::string bytes(sizeof x, '\0');
    std::memcpy(bytes.data(), &x, sizeof x);
    if (swapped) std::ranges::reverse(bytes);
    out += bytes;
  }
  return out;
}

inline std::string npy_with(const std::string& dict, const std::string& data) {
  return std::string("\x93NUMPY\x01\x00", 8) + little_bytes(static_cast<std::uint16_t>(dict.size())) + dict +
         data;
}
// shape: "3, 2, 2", or "3,"
inline std::string npy(const std::string& descr, const std::string& shape, const std::string& data,
                       bool fortran = false) {
  return npy_with(fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}\n", descr,
                              fortran ? "True" : "False", shape),
                  data);
}

inline std::string deflated(const std::string& bytes) {
  z_stream z{};
  if (deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("deflateInit2");
  std::string out(deflateBound(&z, bytes.size()), '\0');
  std::string in = bytes;
  z.next_in = reinterpret_cast<Bytef*>(in.data());
  z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const int code = deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  if (code != Z_STREAM_END) throw std::runtime_error("deflate");
  return out;
}

// A zip archive of these members, deflated or stored, without zip64 fields.
inline std::string zip(const std::vector<std::pair<std::string, std::string>>& members, bool compressed) {
  std::string out, directory;
  for (const auto& [name, bytes] : members) {
    const std::string packed = compressed ? deflated(bytes) : bytes;
    const auto crc = static_cast<std::uint32_t>(
        ::crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
    const std::string common =
        little_bytes(std::uint16_t{20}) + little_bytes(std::uint16_t{0}) +
        little_bytes(static_cast<std::uint16_t>(compressed ? 8 : 0)) + little_bytes(std::uint32_t{0}) +
        little_bytes(crc) + little_bytes(static_cast<std::uint32_t>(packed.size())) +
        little_bytes(static_cast<std::uint32_t>(bytes.size())) +
        little_bytes(static_cast<std::uint16_t>(name.size())) + little_bytes(std::uint16_t{0});
    directory += std::string("PK\1\2") + little_bytes(std::uint16_t{20}) + common + std::string(10, '\0') +
                 little_bytes(static_cast<std::uint32_t>(out.size())) + name;
    out += std::string("PK\3\4") + common + name + packed;
  }
  const auto n = static_cast<std::uint16_t>(members.size());
  return out + directory + "PK\5\6" + std::string(4, '\0') + little_bytes(n) + little_bytes(n) +
         little_bytes(static_cast<std::uint32_t>(directory.size())) +
         little_bytes(static_cast<std::uint32_t>(out.size())) + std::string(2, '\0');
}

// `type` is IDX's code; the elements are big-endian already.
inline std::string idx(std::uint32_t type, const std::vector<std::uint32_t>& dims,
                       const std::string& elements) {
  std::string out = big_word(type << 8 | static_cast<std::uint32_t>(dims.size()));
  for (const std::uint32_t d : dims) out += big_word(d);
  return out + elements;
}

}  // namespace varscope::testing
