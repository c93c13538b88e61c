#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "bench/figures.h"

namespace varscope::bench {

// All of a figure, and back. Throws nlohmann::json::exception for what is none.
nlohmann::json figure_json(const Figure& figure);
Figure figure_of(const nlohmann::json& json);

// The table's head, and a line of it: what, ours, what it is held against, the ratio with least and greatest,
// the target, and whether it is met. Ends the program for a figure that is none (require_positive).
std::string head_text();
std::string line_text(const Figure& figure);

// Where this program is.
std::string own_program();

}  // namespace varscope::bench
