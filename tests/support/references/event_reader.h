#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

// Records and TensorBoard's events, read by their published layouts alone: no code of the product, no
// protobuf.
namespace varscope::testing {

// CRC-32C bit by bit, then TensorFlow's mask.
inline std::uint32_t masked_crc_by_bits(const std::string& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0U);
  }
  crc = ~crc;
  return (crc >> 15 | crc << 17) + 0xa282ead8U;
}

inline std::uint64_t little_endian_at(const std::string& bytes, std::size_t at, int n) {
  std::uint64_t value = 0;
  for (int i = n; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes.at(at + static_cast<std::size_t>(i)));
  return value;
}

// The data of all whole records. A record that is cut off at the end, as a kill leaves it, ends them.
inline std::vector<std::string> records_by_the_rules(const std::string& file) {
  std::vector<std::string> records;
  std::size_t at = 0;
  while (at + 12 <= file.size()) {
    const std::uint64_t length = little_endian_at(file, at, 8);
    EXPECT_EQ(little_endian_at(file, at + 8, 4), masked_crc_by_bits(file.substr(at, 8))) << "byte " << at;
    if (length > file.size() || at + 16 + length > file.size()) break;
    records.push_back(file.substr(at + 12, length));
    EXPECT_EQ(little_endian_at(file, at + 12 + length, 4), masked_crc_by_bits(records.back()))
        << "byte " << at;
    at += 16 + length;
  }
  return records;
}

// One protobuf message as the wire has it: its fields by number, in order.
struct WireFields {
  std::map<int, std::vector<std::uint64_t>> numbers;  // varints, and the bits of fixed32 and fixed64
  std::map<int, std::vector<std::string>> bytes;      // texts and messages

  explicit WireFields(const std::string& message) {
    std::size_t at = 0;
    const auto varint = [&] {
      std::uint64_t value = 0;
      for (int shift = 0;; shift += 7) {
        const auto byte = static_cast<unsigned char>(message.at(at++));
        value |= static_cast<std::uint64_t>(byte & 127) << shift;
        if (byte < 128) return value;
      }
    };
    while (at < message.size()) {
      const std::uint64_t key = varint();
      const int field = static_cast<int>(key >> 3), type = static_cast<int>(key & 7);
      if (type == 0) {
        numbers[field].push_back(varint());
      } else if (type == 1 || type == 5) {
        const int n = type == 1 ? 8 : 4;
        numbers[field].push_back(little_endian_at(message, at, n));
        at += static_cast<std::size_t>(n);
      } else {
        EXPECT_EQ(type, 2) << "wire type of field " << field;
        const std::uint64_t n = varint();
        EXPECT_LE(n, message.size() - at);
        bytes[field].push_back(message.substr(at, n));
        at += n;
      }
    }
  }
  bool has(int field) const { return numbers.contains(field) || bytes.contains(field); }
  std::uint64_t number(int field) const {
    const auto it = numbers.find(field);
    return it == numbers.end() ? 0 : it->second.back();
  }
  std::string text(int field) const {
    const auto it = bytes.find(field);
    return it == bytes.end() ? "" : it->second.back();
  }
  std::vector<std::string> all(int field) const {
    const auto it = bytes.find(field);
    return it == bytes.end() ? std::vector<std::string>{} : it->second;
  }
  double real(int field) const { return std::bit_cast<double>(number(field)); }
  float real32(int field) const { return std::bit_cast<float>(static_cast<std::uint32_t>(number(field))); }
  // A packed repeated double.
  std::vector<double> reals(int field) const {
    const std::string packed = text(field);
    std::vector<double> values;
    for (std::size_t at = 0; at + 8 <= packed.size(); at += 8)
      values.push_back(std::bit_cast<double>(little_endian_at(packed, at, 8)));
    return values;
  }
};

struct ReadHistogram {
  double min = 0, max = 0, num = 0, sum = 0, sum_squares = 0;
  std::vector<double> limits, counts;
};
struct ReadNode {
  std::string op, device;
  std::vector<std::string> inputs;
  std::map<std::string, std::string> attributes;  // an AttrValue each, as the wire has it
};
struct ReadEvent {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string file_version;
  bool is_session_start = false;
  std::map<std::string, ReadNode> graph;  // by name
  std::map<std::string, float> scalars;   // by tag, as all below
  std::map<std::string, std::string> texts;
  std::map<std::string, std::string> hparams;  // HParamsPluginData, as the wire has it
  std::map<std::string, ReadHistogram> histograms;
};

inline std::map<std::string, ReadNode> read_graph(const std::string& graph_def) {
  std::map<std::string, ReadNode> nodes;
  for (const std::string& bytes : WireFields(graph_def).all(1)) {
    const WireFields f(bytes);
    ReadNode& node = nodes[f.text(1)];
    node.op = f.text(2);
    node.inputs = f.all(3);
    node.device = f.text(4);
    for (const std::string& entry : f.all(5))
      node.attributes[WireFields(entry).text(1)] = WireFields(entry).text(2);
  }
  return nodes;
}

inline void read_value(const std::string& bytes, ReadEvent& event) {
  const WireFields f(bytes);
  const std::string tag = f.text(1), plugin = WireFields(WireFields(f.text(9)).text(1)).text(1);
  if (f.numbers.contains(2)) event.scalars[tag] = f.real32(2);
  if (f.bytes.contains(8) && plugin == "text") {
    const WireFields tensor(f.text(8));
    EXPECT_EQ(tensor.number(1), 7U) << "DT_STRING";
    event.texts[tag] = tensor.text(8);
  }
  if (plugin == "hparams") event.hparams[tag] = WireFields(WireFields(f.text(9)).text(1)).text(2);
  if (f.bytes.contains(5)) {
    const WireFields h(f.text(5));
    event.histograms[tag] = {h.real(1), h.real(2), h.real(3), h.real(4), h.real(5), h.reals(6), h.reals(7)};
  }
}

inline std::vector<ReadEvent> read_events(const std::string& file) {
  std::vector<ReadEvent> events;
  for (const std::string& record : records_by_the_rules(file)) {
    const WireFields f(record);
    ReadEvent& event = events.emplace_back();
    event.wall_time = f.real(1);
    event.step = static_cast<std::int64_t>(f.number(2));
    event.file_version = f.text(3);
    if (f.bytes.contains(4)) event.graph = read_graph(f.text(4));
    if (f.bytes.contains(7)) event.is_session_start = WireFields(f.text(7)).number(1) == 1;
    if (f.bytes.contains(5)) {
      for (const std::string& value : WireFields(f.text(5)).all(1)) read_value(value, event);
    }
  }
  return events;
}

}  // namespace varscope::testing
