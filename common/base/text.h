#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// Edits that turn a into b: insert, delete, replace, swap two neighbours. Case counts.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate that was probably meant, or an empty text: one that the word is another name for
// (common/base/synonyms.h), or the nearest. Case, `-` and `_` do not count; at most one edit
// for each three characters, and not for words so short that anything is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

// "; did you mean \"x\"?" for the candidate that was probably meant, or an empty text.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

// What follows `mark` in the last line of the text, without its line feed; that line is taken away. Nothing
// where it does not begin so.
std::optional<std::string> take_last_line(std::string& text, std::string_view mark);

// "a, b, c"
std::string comma_list(const std::vector<std::string>& words);

// "1,234,567"
std::string with_commas(std::int64_t n);
// "1 server", "1,000 servers"
std::string counted(std::int64_t n, std::string_view what);
// "2.5 s", "1m 05s", "3h 07m", "2.8e+06 hours"; less than nothing and NaN count as nothing.
std::string duration_text(double seconds);
// "512 B", "12.3 MiB"
std::string bytes_text(std::int64_t n);

}  // namespace varscope
