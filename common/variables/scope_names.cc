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
  const auto first = [&](char c) { return is_word(c) || c == '.' || (!at_root && inner(c) && c != '/'); };
  if (name.empty()) fail(ErrorKind::argument, "a {} needs a name; \"\" is not one", what);
  if (!first(name[0]) || !std::all_of(name.begin(), name.end(), inner)) {
    fail(ErrorKind::argument,
         "\"{}\" is not a valid {} name: it must match [A-Za-z0-9.{}][A-Za-z0-9_.\\/>-]*", name, what,
         at_root ? "" : "_\\>-");
  }
}

void check_inner_name(std::string_view name, bool at_root, const char* what) {
  check_scoped_name(name, at_root, what);
  if (name.ends_with('/')) {
    fail(ErrorKind::argument,
         "\"{}\" is not a valid {} name: it ends with '/', as names of scopes may; leave the '/' away", name,
         what);
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

std::string UniqueNames::next(const std::string& name, const IsTaken& is_taken) const {
  const std::string base = lower(name);
  const auto is_free = [&](const std::string& suffix) {
    return !in_use_.contains(base + suffix) && !(is_taken && is_taken(name + suffix));
  };
  if (is_free("")) return name;
  const auto found = in_use_.find(base);
  int i = found == in_use_.end() ? 1 : found->second;
  while (!is_free("_" + std::to_string(i))) ++i;
  return name + "_" + std::to_string(i);
}

void UniqueNames::use(const std::string& name, const std::string& free) {
  ++in_use_[lower(name)];
  if (free != name) in_use_[lower(free)] = 1;
}

std::string UniqueNames::take(const std::string& name) {
  std::string free = next(name);
  use(name, free);
  return free;
}

void UniqueNames::mark(std::string_view name) { ++in_use_[lower(name)]; }

}  // namespace varscope
