#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace varscope::testing {

// A writer of tf.train.Example in protobuf's wire form, by hand.

inline std::string varint(std::uint64_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
  return out + static_cast<char>(value);
}
inline std::string field(int number, std::string_view bytes) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}

inline std::string bytes_feature(const std::vector<std::string>& values) {
  std::string list;
  for (const std::string& v : values) list += field(1, v);
  return field(1, list);
}
// Packed, as everybody writes them, or one by one.
inline std::string float_feature(const std::vector<float>& values, bool packed = true) {
  std::string list, all;
  for (const float v : values) {
    std::string bytes(4, '\0');
    std::memcpy(bytes.data(), &v, 4);
    all += bytes;
    list += varint(1 << 3 | 5) + bytes;
  }
  return field(2, packed ? field(1, all) : list);
}
inline std::string int64_feature(const std::vector<std::int64_t>& values, bool packed = true) {
  std::string list, all;
  for (const std::int64_t v : values) {
    all += varint(static_cast<std::uint64_t>(v));
    list += varint(1 << 3) + varint(static_cast<std::uint64_t>(v));
  }
  return field(3, packed ? field(1, all) : list);
}
inline std::string example(const std::vector<std::pair<std::string, std::string>>& features) {
  std::string all;
  for (const auto& [name, feature] : features) all += field(1, field(1, name) + field(2, feature));
  return field(1, all);
}

}  // namespace varscope::testing
