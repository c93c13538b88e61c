#pragma once

#include <string>
#include <vector>

namespace varscope {

// Lines "varscope: warning: ..." on standard error, each whole.
void warn(const std::vector<std::string>& warnings);

// What a command was asked for, on standard output. Throws Error(io) when not all of it can be written: who
// reads it from a file must not take a part for the whole.
void print_result(const std::string& text);

}  // namespace varscope
