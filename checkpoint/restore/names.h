#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/variables/variable_table.h"

namespace varscope {

// The variable under another name: `name` is that of the whole (VariableSpec::full_name()), and parts follow
// it. Shape, dtype and place stay; the scope becomes that of the name.
VariableSpec renamed(VariableSpec variable, const std::string& name);

// The names of the whole variables of a table, in its order.
std::vector<std::string> whole_names(const VariableTable& table);

// Which variables of a model its checkpoints hold, and under which names. Variables are meant as wholes, by
// full_name(). A plain value.
class CheckpointNames {
 public:
  // All variables, under their own names.
  CheckpointNames() = default;
  // `selected`: only these; unset: all. `new_names`: those that have another name in the checkpoint, by their
  // name in the model. REQUIRES: no two variables get the same name.
  CheckpointNames(std::optional<std::set<std::string>> selected, std::map<std::string, std::string> new_names)
      : selected_(std::move(selected)), new_names_(std::move(new_names)) {}

  bool holds(const VariableSpec& variable) const {
    return !selected_ || selected_->contains(variable.full_name());
  }
  // In the checkpoint, of a variable of the model.
  const std::string& name_of(const std::string& variable) const;

  // The variable as checkpoints have it, and all of a table, also those that are not held.
  VariableSpec in_checkpoint(const VariableSpec& variable) const;
  VariableTable in_checkpoint(const VariableTable& model) const;
  // What a checkpoint of this model holds.
  VariableTable held(const VariableTable& model) const;

 private:
  std::optional<std::set<std::string>> selected_;
  std::map<std::string, std::string> new_names_;
};

}  // namespace varscope
