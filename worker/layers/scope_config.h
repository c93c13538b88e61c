#pragma once

#include <string>
#include <string_view>

#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/variables/variable_scope.h"

namespace varscope {

// What scopes hand down and variables may set for themselves, as YAML writes it: a name (`none`, `non_neg`)
// or a map with a type (`{type: l2, factor: 1e-4}`). Each throws Error(config) at the node.
Regularizer read_regularizer(const ConfigNode& node, std::string_view file, std::string_view path);
Constraint read_constraint(const ConfigNode& node, std::string_view file, std::string_view path);
// Empty for `none`.
Partitioner read_partitioner(const ConfigNode& node, std::string_view file, std::string_view path);

// With the place in the file in `made_at`.
Compression read_compression(const ConfigNode& node, std::string_view file, std::string_view path);

// The keys of a block of layers that its scope hands down; also the defaults in `model`.
struct ScopeKeys {
  ConfigNode initializer, regularizer, constraint, partitioner, compression;
  std::string dtype;      // empty: inherited
  std::string trainable;  // "", "true", "false"
  void describe(Keys& keys);
  ScopeOptions options(std::string_view file, std::string_view path) const;
};

// Throws Error(config) at the key for a scope such as "a/" or "a//b"; an empty name is none.
void check_scope_name(const ConfigNode& node, std::string_view key, std::string_view name,
                      std::string_view file, std::string_view path);

std::string explain_scope_keys(std::string_view path);
// What regularizers, constraints, partitioners and compressions are, with their keys.
std::string explain_scope_values();

}  // namespace varscope
