#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace varscope {

// The name of a scope. Throws Error(argument), calling the thing a `what`, unless `name` matches
// [A-Za-z0-9.][A-Za-z0-9_.\/>-]*; not at the root it may also start with '_', '\', '>' or '-'.
void check_scoped_name(std::string_view name, bool at_root, const char* what);

// The same for what stands in a scope, a variable or an operation: neither may it end with '/'.
void check_inner_name(std::string_view name, bool at_root, const char* what);

// Why a variable cannot bear this name in a checkpoint; "" when it can. Other programs' names are free: but
// one that ends with '/' would be a scope in a warm start, "__metadata__" belongs to safetensors, and control
// characters cannot be read in what the tools print.
std::string saved_name_problem(std::string_view name);

// "path/name", or "name" where the path is empty.
std::string join_scope(std::string_view path, std::string_view name);

// The names of operations and name scopes that are taken, as TensorFlow's Graph.unique_name counts them:
// without regard to case. Not thread-safe.
class UniqueNames {
 public:
  using IsTaken = std::function<bool(const std::string&)>;
  // The name itself if it is free, else the first free "<name>_<i>", i from 1, in the caller's case. The
  // search goes on where that of the same name has stopped before. `is_taken` knows further names.
  std::string next(const std::string& name, const IsTaken& is_taken = {}) const;
  // From now on `free`, which next(name) gave, is taken.
  void use(const std::string& name, const std::string& free);
  std::string take(const std::string& name);  // next and use
  // Takes exactly this name, whether it is free or not.
  void mark(std::string_view name);

 private:
  std::map<std::string, int> in_use_;  // lower-case name -> how often asked for
};

}  // namespace varscope
