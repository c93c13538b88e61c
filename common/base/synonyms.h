#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// What other programs call a thing that is called otherwise here: "lr", "mse", "batch_size", "Linear".
// Returns the first of the candidates that this word is another name for, or an empty text. Case, `-` and `_`
// do not count.
std::string synonym_of(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace varscope
