#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace varscope {

// Lines "varscope: warning: ..." on standard error, each whole.
void warn(const std::vector<std::string>& warnings);

// What a command was asked for, on standard output. Throws Error(io) when not all of it can be written: who
// reads it from a file must not take a part for the whole.
enum class ResultTo : std::uint8_t { output, error };
void print_result(const std::string& text, ResultTo to = ResultTo::output);

// Where words about a file that a command writes belong: on standard error where the file is standard output
// itself (/dev/stdout, or what that was redirected to), which must hold nothing but the file's bytes. Ask
// before the file is written.
ResultTo result_beside(const std::string& file);

}  // namespace varscope
