#include "worker/data/raw_ids.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "common/base/row_id.h"
#include "worker/data/csv_reader.h"

namespace varscope {
namespace {

// All of `text` as a number of T, without a "+" before it.
template <class T>
std::optional<std::uint64_t> whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<std::uint64_t>(value);
}

template <class T>
std::string range_of() {
  return fmt::format("{} to {}", std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
}

}  // namespace

std::optional<std::uint64_t> number_id_in(IdType type, std::string_view text) {
  text = trimmed_cell(text);
  if (text.starts_with('+') && !text.substr(1).starts_with('-')) text.remove_prefix(1);
  return type == IdType::uint64 ? whole<std::uint64_t>(text) : whole<std::int64_t>(text);
}

std::string no_id_text(IdType type, std::string_view text) {
  return fmt::format("expected an id of type {}, a whole number from {}, got {}", to_string(type),
                     type == IdType::uint64 ? range_of<std::uint64_t>() : range_of<std::int64_t>(),
                     shown_cell(text));
}

std::uint64_t word_id(std::string_view word, std::size_t column) { return string_row_id(word, column); }

bool is_id_weight(double weight) {
  return std::abs(weight) <= static_cast<double>(std::numeric_limits<float>::max());
}

std::string no_id_weight_text(double weight) {
  return fmt::format("the weight {} of an id is beyond float32, whose greatest is {:.7g}", weight,
                     static_cast<double>(std::numeric_limits<float>::max()));
}

}  // namespace varscope
