#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace varscope::testing {

// A reader of safetensors that knows nothing of varscope: 8 bytes of length, a JSON object that begins with
// '{', then the data, which the tensors' offsets must cover without hole or overlap.
struct Safetensors {
  struct Tensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::size_t data_begin = 0;

  explicit Safetensors(const std::string& file) {
    std::size_t n = 0;
    for (std::size_t i = 8; i-- > 0;) n = n * 256 + static_cast<unsigned char>(file.at(i));
    require(n <= 100'000'000 && 8 + n <= file.size(), "header length");
    require(file[8] == '{', "header begins with {");
    data_begin = 8 + n;
    const std::string data = file.substr(data_begin);
    std::map<std::size_t, std::size_t> ranges;
    const nlohmann::json header = parse(file.substr(8, n));
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) metadata[key] = value.get<std::string>();
        continue;
      }
      require(entry.size() == 3, "three fields");
      Tensor t{entry.at("dtype"), entry.at("shape"), ""};
      const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
      require(begin <= end && end <= data.size(), "offsets inside the data");
      std::size_t due = item(t.dtype);
      for (const std::int64_t d : t.shape) due *= static_cast<std::size_t>(d);
      require(due == end - begin, "bytes of the shape");
      require(ranges.emplace(begin, end).second, "one tensor per offset");
      t.bytes = data.substr(begin, end - begin);
      tensors.emplace(name, std::move(t));
    }
    std::size_t at = 0;
    for (const auto& [begin, end] : ranges) {
      require(begin == at, "no holes");
      at = end;
    }
    require(at == data.size(), "nothing behind the last tensor");
  }

  static void require(bool good, const char* what) {
    if (!good) throw std::runtime_error(what);
  }
  static std::size_t item(const std::string& dtype) {
    const std::map<std::string, std::size_t> sizes = {{"F32", 4}, {"F64", 8},  {"I32", 4}, {"I64", 8},
                                                      {"U64", 8}, {"BF16", 2}, {"U8", 1}};
    return sizes.at(dtype);
  }
  // Duplicate keys are forbidden by the format, and parsers swallow them.
  static nlohmann::json parse(const std::string& text) {
    std::vector<std::set<std::string>> keys;
    return nlohmann::json::parse(text, [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
      if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
      if (event == nlohmann::json::parse_event_t::object_end) keys.pop_back();
      if (event == nlohmann::json::parse_event_t::key) {
        require(keys.back().insert(value.get<std::string>()).second, "unique keys");
      }
      return true;
    });
  }
};

}  // namespace varscope::testing
