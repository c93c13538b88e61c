#include "common/variables/scope_names.h"

#include <algorithm>

#include "common/base/error.h"

namespace varscope {
namespace {

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

std::string lower(std::string_view name) {
  std::string s(name);
  for (char& c : s) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return s;
}

}  // namespace

void check_scoped_name(std::string_view name, bool at_root, const char* what) {
  const auto inner = [](char c) {
    return is_word(c) || c == '_' || c == '.' || c == '\\' || c == '/' || c == '>' || c == '-';
  };
  const auto first = [&](char c) { return is_word(c) || c == '.' || (!at_root && (c == '_' || c == '-')); };
  if (name.empty()) fail(ErrorKind::argument, "a {} needs a name; \"\" is not one", what);
  if (!first(name[0]) || !std::all_of(name.begin(), name.end(), inner)) {
    fail(ErrorKind::argument,
         "\"{}\" is not a valid {} name: it must match [A-Za-z0-9.{}][A-Za-z0-9_.\\/>-]*", name, what,
         at_root ? "" : "_-");
  }
}

std::string saved_name_problem(std::string_view name) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (name.empty()) return "a name must not be empty";
  if (name.ends_with('/')) return "the name of a variable cannot end with '/'; only a scope's does";
  if (name == "__metadata__") return "\"__metadata__\" is no name for a variable: safetensors files use it";
  if (std::ranges::any_of(name, is_control)) return "a name cannot have control characters";
  return "";
}

std::string join_scope(std::string_view path, std::string_view name) {
  return path.empty() ? std::string(name) : std::string(path) + "/" + std::string(name);
}

std::string UniqueNames::take(std::string name) {
  const std::string base = lower(name);
  int i = in_use_[base]++;
  if (i == 0) return name;
  std::string key = base;
  while (in_use_.contains(key)) key = base + "_" + std::to_string(i++);
  in_use_[key] = 1;
  return name + "_" + std::to_string(i - 1);
}

void UniqueNames::mark(std::string_view name) { ++in_use_[lower(name)]; }

}  // namespace varscope
