#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/variables/table_spec.h"

namespace varscope {

// The 64 bits of an id that is written as a number: whole, within the range of int64 or uint64, spaces around
// it and a sign allowed. No bit is lost. Nothing for anything else, such as "1.0", "-1" of uint64, or 2^63 of
// int64. REQUIRES that the type is no string.
std::optional<std::uint64_t> number_id_in(IdType type, std::string_view text);

// "expected an id of type uint64, a whole number from 0 to 18446744073709551615, got \"-1\""
std::string no_id_text(IdType type, std::string_view text);

// The id of a word in column k of an input of strings: its XXH3-64 with seed k, so that equal words of two
// columns are two ids; in column 0 the plain XXH3-64.
std::uint64_t word_id(std::string_view word, std::size_t column);

// The weight of an id in a bag: a number that is finite as float32 too. no_id_weight_text() says so of
// another one.
bool is_id_weight(double weight);
std::string no_id_weight_text(double weight);

}  // namespace varscope
