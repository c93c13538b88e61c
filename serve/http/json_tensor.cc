#include "serve/http/json_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "serve/http/protocol.h"

namespace varscope {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

// Where a text breaks off, which the fast parser does not say.
std::string where_it_breaks(std::string_view text) {
  class Place final : public nlohmann::json_sax<nlohmann::json> {
   public:
    std::size_t at = 0;
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(number_integer_t) override { return true; }
    bool number_unsigned(number_unsigned_t) override { return true; }
    bool number_float(number_float_t, const string_t&) override { return true; }
    bool string(string_t&) override { return true; }
    bool binary(binary_t&) override { return true; }
    bool start_object(std::size_t) override { return true; }
    bool key(string_t&) override { return true; }
    bool end_object() override { return true; }
    bool start_array(std::size_t) override { return true; }
    bool end_array() override { return true; }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) override {
      at = position;
      return false;
    }
  } place;
  if (nlohmann::json::sax_parse(text, &place)) return {};
  return fmt::format(" at byte {}", place.at);
}

// Its size() stops at the largest number of 24 bits.
std::int64_t length_of(const simdjson::dom::array& array) {
  constexpr std::size_t kMostCounted = 0xffffff;
  const std::size_t n = array.size();
  if (n < kMostCounted) return static_cast<std::int64_t>(n);
  return std::distance(array.begin(), array.end());
}

void walk(element json, std::size_t depth, const std::string& what, bool is_flat, JsonElements& out) {
  if (json.type() != element_type::ARRAY) {
    if (!is_flat && depth != out.shape.size())
      throw BadRequest{what + ": arrays and elements stand side by side"};
    out.values.push_back(json);
    return;
  }
  const simdjson::dom::array array = json.get_array();
  const std::int64_t n = length_of(array);
  if (depth == out.shape.size()) {
    if (!is_flat && !out.values.empty()) throw BadRequest{what + ": arrays and elements stand side by side"};
    out.shape.push_back(n);
  } else if (!is_flat && out.shape[depth] != n) {
    throw BadRequest{
        fmt::format("{}: one of its arrays has {} elements, and another one {}", what, out.shape[depth], n)};
  }
  for (const element e : array) walk(e, depth + 1, what, is_flat, out);
}

template <class T>
T number_in(element e, OipType type, const std::string& what, std::size_t i) {
  const auto bad = [&](const std::string& shown) {
    throw BadRequest{fmt::format("{}: element {} is {}, no {}", what, i, shown, to_string(type))};
  };
  const auto fit = [&](auto value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (value != 0 && value != 1) bad(std::to_string(value));
    } else if constexpr (std::is_integral_v<T>) {
      if (!std::in_range<T>(value)) bad(std::to_string(value));
    }
    return static_cast<T>(value);
  };
  switch (e.type()) {
    case element_type::INT64:
      return fit(e.get_int64().value_unsafe());
    case element_type::UINT64:
      return fit(e.get_uint64().value_unsafe());
    case element_type::DOUBLE: {
      const double value = e.get_double().value_unsafe();
      if constexpr (std::is_floating_point_v<T>) {
        const auto narrow = static_cast<T>(value);
        if (!std::isfinite(narrow)) bad(fmt::format("{}", value));
        return narrow;
      }
      if (value != std::floor(value) || std::abs(value) > 9e15) bad(fmt::format("{}", value));
      return fit(static_cast<std::int64_t>(value));
    }
    case element_type::BOOL:
      return static_cast<T>(e.get_bool().value_unsafe());
    default:
      bad(e.type() == element_type::STRING ? "a text" : "an object");
  }
  return T();
}

template <class T>
void take_numbers(const std::vector<element>& values, OipType type, const std::string& what,
                  std::vector<std::byte>& out, std::vector<std::int64_t>& missing) {
  out.resize(values.size() * sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value{};
    if (values[i].is_null()) {
      missing.push_back(static_cast<std::int64_t>(i));
    } else {
      value = number_in<T>(values[i], type, what, i);
    }
    std::memcpy(out.data() + i * sizeof(T), &value, sizeof(T));
  }
}

// A number where a text is due: as its shortest form.
std::string text_of_number(element e) {
  switch (e.type()) {
    case element_type::INT64:
      return std::to_string(e.get_int64().value_unsafe());
    case element_type::UINT64:
      return std::to_string(e.get_uint64().value_unsafe());
    case element_type::DOUBLE:
      return fmt::format("{}", e.get_double().value_unsafe());
    default:
      return e.get_bool().value_unsafe() ? "true" : "false";
  }
}

}  // namespace

simdjson::dom::element JsonParser::parse(std::string_view text) {
  if (parser_.allocate(std::max<std::size_t>(text.size(), 64), kMostDepth) != simdjson::SUCCESS)
    throw BadRequest{"the body is too large"};
  simdjson::dom::element json;
  const auto error = parser_.parse(text.data(), text.size()).get(json);
  if (error == simdjson::SUCCESS) return json;
  if (error == simdjson::DEPTH_ERROR)
    throw BadRequest{fmt::format("the body nests deeper than {} levels", kMostDepth)};
  throw BadRequest{
      fmt::format("the body is no JSON{}: {}", where_it_breaks(text), simdjson::error_message(error))};
}

void JsonParser::release() { parser_ = simdjson::dom::parser(); }

JsonElements elements_of(element json, const std::string& what, bool is_flat) {
  JsonElements out;
  walk(json, 0, what, is_flat, out);
  return out;
}

std::int64_t RequestMemory::keep_only_for(std::vector<InputTensor>& inputs) {
  const auto is_in_body = [&](const void* data) {
    const auto* const at = static_cast<const char*>(data);
    return !std::less<>()(at, body.data()) && std::less<>()(at, body.data() + body.size());
  };
  bool needs_body = false;
  auto copies = std::make_unique<std::string>();  // where a short one stays, too
  const auto each_text = [&](const auto& visit) {
    for (InputTensor& t : inputs) {
      for (std::string_view& text : t.texts) is_in_body(text.data()) ? void(needs_body = true) : visit(text);
    }
  };
  std::size_t n = 0;
  each_text([&](std::string_view text) { n += text.size(); });
  copies->reserve(n);
  each_text([&](std::string_view& text) {
    const std::size_t at = copies->size();
    *copies += text;
    text = {copies->data() + at, text.size()};
  });
  for (const InputTensor& t : inputs) needs_body = needs_body || is_in_body(t.data.data());
  parser.release();
  texts.clear();
  if (!needs_body) std::string().swap(body);
  texts.push_back(std::move(copies));
  return static_cast<std::int64_t>(body.capacity() + n);
}

void take_elements(const std::vector<element>& values, OipType type, const std::string& what,
                   RequestMemory& memory, InputTensor& tensor) {
  tensor.type = type;
  if (type == OipType::bytes) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::string_view text;
      if (values[i].is_null()) {
        tensor.missing.push_back(static_cast<std::int64_t>(i));
      } else if (values[i].get_string().get(text) != simdjson::SUCCESS) {
        if (values[i].is_object() || values[i].is_array())
          throw BadRequest{fmt::format("{}: element {} is no text", what, i)};
        memory.texts.push_back(std::make_unique<std::string>(text_of_number(values[i])));
        text = *memory.texts.back();
      }
      tensor.texts.push_back(text);
    }
    return;
  }
  memory.numbers.push_back(std::make_unique<std::vector<std::byte>>());
  std::vector<std::byte>& out = *memory.numbers.back();
  const auto take = [&]<class T>(T) { take_numbers<T>(values, type, what, out, tensor.missing); };
  switch (type) {
    case OipType::boolean:
      take(bool());
      break;
    case OipType::uint8:
      take(std::uint8_t());
      break;
    case OipType::uint16:
      take(std::uint16_t());
      break;
    case OipType::uint32:
      take(std::uint32_t());
      break;
    case OipType::uint64:
      take(std::uint64_t());
      break;
    case OipType::int8:
      take(std::int8_t());
      break;
    case OipType::int16:
      take(std::int16_t());
      break;
    case OipType::int32:
      take(std::int32_t());
      break;
    case OipType::int64:
      take(std::int64_t());
      break;
    case OipType::fp64:
      take(double());
      break;
    case OipType::fp32:
      take(float());
      break;
    default:
      throw BadRequest{fmt::format("{}: datatype {} cannot be sent as JSON: send it as binary data, or FP32",
                                   what, to_string(type))};
  }
  tensor.data = out;
}

}  // namespace varscope
