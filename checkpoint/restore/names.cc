#include "checkpoint/restore/names.h"

#include <fmt/format.h>

namespace varscope {

VariableSpec renamed(VariableSpec variable, const std::string& name) {
  const std::string old = variable.full_name();
  if (name == old) return variable;
  if (variable.is_part()) {
    const bool is_below = variable.name.starts_with(old + "/");
    variable.name =
        name + (is_below ? variable.name.substr(old.size()) : fmt::format("/part_{}", variable.part.index));
    variable.part.full_name = name;
  } else {
    variable.name = name;
  }
  const std::size_t slash = name.rfind('/');
  variable.scope = slash == std::string::npos ? "" : name.substr(0, slash);
  return variable;
}

std::vector<std::string> whole_names(const VariableTable& table) {
  std::vector<std::string> names;
  std::set<std::string_view> seen;
  for (const VariableSpec& v : table.variables()) {
    if (seen.insert(v.full_name()).second) names.push_back(v.full_name());
  }
  return names;
}

const std::string& CheckpointNames::name_of(const std::string& variable) const {
  const auto it = new_names_.find(variable);
  return it == new_names_.end() ? variable : it->second;
}

VariableSpec CheckpointNames::in_checkpoint(const VariableSpec& variable) const {
  return renamed(variable, name_of(variable.full_name()));
}

VariableTable CheckpointNames::in_checkpoint(const VariableTable& model) const {
  std::vector<VariableSpec> all;
  for (const VariableSpec& v : model.variables()) all.push_back(in_checkpoint(v));
  return VariableTable(std::move(all));
}

VariableTable CheckpointNames::held(const VariableTable& model) const {
  std::vector<VariableSpec> all;
  for (const VariableSpec& v : model.variables()) {
    if (holds(v)) all.push_back(in_checkpoint(v));
  }
  return VariableTable(std::move(all));
}

}  // namespace varscope
