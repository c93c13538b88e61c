#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/tools/export_import.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope::testing {

// What an independent reader found in a file.
struct FoundTensor {
  std::string dtype;  // as the format spells it
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using FoundTensors = std::map<std::string, FoundTensor>;

inline std::uint64_t little(const std::string& bytes, std::size_t at, int n) {
  std::uint64_t value = 0;
  for (int i = n; i-- > 0;)
    value = value << 8 | static_cast<unsigned char>(bytes.at(at + static_cast<std::size_t>(i)));
  return value;
}

// The file has the values of the model, and its slots as "<variable>/<slot>" if there are any with a slash.
inline void expect_tensors(const FoundTensors& found, const Model& model, bool with_slots,
                           const std::map<DType, std::string>& dtypes) {
  std::size_t due = 0;
  for (const auto& [key, tensor] : model.values) {
    const auto& [variable, slot] = key;
    if (!slot.empty() && (!with_slots || tensor.n_elements() == 0)) continue;
    ++due;
    const std::string name = slot.empty() ? variable : variable + "/" + slot;
    ASSERT_TRUE(found.contains(name)) << name;
    const FoundTensor& f = found.at(name);
    EXPECT_EQ(f.dtype, dtypes.at(tensor.dtype())) << name;
    EXPECT_EQ(Shape(f.shape), tensor.shape()) << name;
    EXPECT_EQ(f.bytes, std::string(reinterpret_cast<const char*>(tensor.view().bytes()), tensor.n_bytes()))
        << name;
  }
  EXPECT_EQ(found.size(), due);
}

inline std::string export_to(Fs& fs, const std::string& checkpoint, const std::string& file,
                             ExportSlots slots = ExportSlots::include) {
  std::string out;
  export_tool(fs, checkpoint, file, exchange_format(file, ""), slots, ToolFormat::text, out);
  return out;
}

// The tensors as our own reader has them.
inline std::map<std::string, std::string> contents(TensorSource& source) {
  std::map<std::string, std::string> all;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    std::string& bytes = all[source.tensors()[i].name];
    stream_tensor(source, i, [&](std::span<const std::byte> piece) {
      bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    });
  }
  return all;
}

// Changes, cuts and extends a valid file in many ways: `read` must return or throw Error, and never crash or
// take memory for what the file does not have. Returns how many of them it refused.
template <class Read>
int fuzz_file(const std::string& file, int rounds, Read&& read) {
  const std::string good = slurp(file);
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = good;
    const std::size_t near = random() % 2 == 0 ? std::min<std::size_t>(bytes.size(), 300) : bytes.size();
    const std::size_t from = random() % 2 == 0 ? 0 : bytes.size() - near;  // headers stand in front or behind
    switch (random() % 4) {
      case 0:
        bytes.resize(random() % bytes.size());
        break;
      case 1:
        bytes[from + random() % near] = static_cast<char>(random());
        break;
      case 2:  // an extreme number
        for (std::size_t i = from + random() % near, n = 1 + random() % 8; n > 0 && i < bytes.size();
             --n, ++i)
          bytes[i] = static_cast<char>(round % 3 == 0 ? 0x7f : round % 3 == 1 ? 0xff : 0);
        break;
      default:
        bytes.insert(from + random() % near, std::string(1 + random() % 9, static_cast<char>(random())));
        break;
    }
    spit(file, bytes);
    const std::string error = error_of(read);
    if (error != "no error") ++refused;
  }
  spit(file, good);
  return refused;
}

}  // namespace varscope::testing
