#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "serve/engine/request_rows.h"
#include "serve/http/protocol.h"
#include "tests/fuzz/fuzz.h"

// What must hold of a request that a decoder has let pass, and of the answer to it. What does not ends the
// process.
namespace varscope::testing {

inline void require(bool holds) {
  if (!holds) std::abort();
}

inline TableColumn column_of(std::string name, std::int64_t index) {
  TableColumn column;
  column.name = std::move(name);
  column.index = index;
  return column;
}

// Images [2, 2] that were bytes divided by 255.
inline ServableSchema image_schema() {
  ServableSchema schema;
  schema.spec.inputs = {{.name = "x", .shape = Shape{2, 2}}};
  schema.arrays = {{.shape = Shape{2, 2}, .scale = {1, 255}}};
  return schema;
}

// Numbers, one of which may be missing, words, and ids of rows.
inline ServableSchema table_schema() {
  TableInput numbers, words, ids;
  numbers.name = "n";
  numbers.columns = {column_of("age", 0), column_of("height", 1)};
  numbers.columns[1].takes_missing = true;
  words.name = "c";
  words.is_category = true;
  words.columns = {column_of("city", 2)};
  words.columns[0].vocabulary = {"Bonn", "Kiel"};
  ids.name = "u";
  ids.is_category = true;
  ids.columns = {column_of("user", 3)};
  ids.row_ids = IdType::int64;
  ids.missing_id = 7;
  ServableSchema schema;
  schema.table.emplace();
  schema.table->inputs = {numbers, words, ids};
  schema.table->label.columns = {column_of("answer", 4)};
  schema.table->label.classes = {"no", "yes"};
  return schema;
}

inline std::size_t n_elements(std::span<const std::int64_t> shape) {
  std::size_t n = 1;
  for (const std::int64_t extent : shape) {
    require(extent >= 0);
    n *= static_cast<std::size_t>(extent);
  }
  return n;
}

// The shape has as many elements as there are data, all of which can be read.
inline void check_tensor(const InputTensor& tensor) {
  require(!tensor.shape.empty());
  const std::size_t n = n_elements(tensor.shape);
  if (tensor.type == OipType::bytes) {
    require(tensor.texts.size() == n && tensor.data.empty());
  } else {
    require(tensor.data.size() == n * n_bytes_of(tensor.type) && tensor.texts.empty());
  }
  unsigned sum = 0;
  for (const std::byte byte : tensor.data) sum += std::to_integer<unsigned>(byte);
  for (const std::string_view text : tensor.texts) {
    for (const char c : text) sum += static_cast<unsigned char>(c);
  }
  [[maybe_unused]] volatile unsigned kept = sum;
  for (std::size_t i = 0; i < tensor.missing.size(); ++i) {
    const std::int64_t at = tensor.missing[i];
    require(at >= (i == 0 ? 0 : tensor.missing[i - 1] + 1) && at < static_cast<std::int64_t>(n));
  }
}

// As the engine goes on with a request. Returns whether the model takes it.
inline bool take_rows(const ServableSchema& schema, const InferRequest& request) {
  const RequestRows rows(schema);
  bool is_taken = false;
  expect_data_or_error([&] {
    const std::int64_t n = rows.check(request);
    RequestRows::Rows samples(rows);
    if (!samples.add(request, 0, n).empty()) return;
    require(samples.size() == n);
    (void)samples.view();
    is_taken = true;
  });
  return is_taken;
}

// An output of that shape, whose elements' bits are those of `bits`, over and over. A refusal stands for what
// is not finite where the answer is text, so there is none.
template <class T>
OutputTensor output_of(std::string name, OipType type, std::vector<std::int64_t> shape,
                       std::string_view bits) {
  OutputTensor out{std::move(name), type, std::move(shape), {}, {}};
  out.data.resize(n_elements(out.shape) * sizeof(T));
  for (std::size_t i = 0; i < out.data.size() && !bits.empty(); ++i)
    out.data[i] = static_cast<std::byte>(bits[i % bits.size()]);
  if constexpr (std::is_floating_point_v<T>) {
    for (std::size_t at = 0; at < out.data.size(); at += sizeof(T)) {
      T value;
      std::memcpy(&value, &out.data[at], sizeof(T));
      if (!std::isfinite(value)) std::memset(&out.data[at], 0, sizeof(T));
    }
  }
  return out;
}
inline OutputTensor output_of(std::string name, std::size_t which, std::vector<std::int64_t> shape,
                              std::string_view bits) {
  switch (which % 4) {
    case 0:
      return output_of<float>(std::move(name), OipType::fp32, std::move(shape), bits);
    case 1:
      return output_of<double>(std::move(name), OipType::fp64, std::move(shape), bits);
    case 2:
      return output_of<std::int32_t>(std::move(name), OipType::int32, std::move(shape), bits);
    default:
      return output_of<std::int64_t>(std::move(name), OipType::int64, std::move(shape), bits);
  }
}

template <class T>
void check_number(const nlohmann::json& json, const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  const T read = json.get<T>();
  require(std::memcmp(&read, &value, sizeof(T)) == 0);
}

// `json` is nested as the shape from `depth` on, and has the bits of the elements from `at` on.
inline void check_numbers(const nlohmann::json& json, const OutputTensor& out, std::size_t depth,
                          std::size_t& at) {
  if (depth < out.shape.size()) {
    require(json.is_array() && json.size() == static_cast<std::size_t>(out.shape[depth]));
    for (const nlohmann::json& one : json) check_numbers(one, out, depth + 1, at);
    return;
  }
  require(json.is_number() && at + n_bytes_of(out.type) <= out.data.size());
  const std::byte* bytes = &out.data[at];
  at += n_bytes_of(out.type);
  switch (out.type) {
    case OipType::fp32:
      return check_number<float>(json, bytes);
    case OipType::fp64:
      return check_number<double>(json, bytes);
    case OipType::int32:
      return check_number<std::int32_t>(json, bytes);
    default:
      return check_number<std::int64_t>(json, bytes);
  }
}

inline nlohmann::json parsed(std::string_view text) {
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  require(!json.is_discarded());
  return json;
}

// What a client is told: words that are there, and JSON whatever the request's bytes were.
inline void check_refusal(const std::string& what) {
  require(!what.empty());
  const HttpResponse response = error_response(400, what);
  require(parsed(response.body)["error"].is_string());
}

}  // namespace varscope::testing
