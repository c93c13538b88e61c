#pragma once

#include <string_view>

#include "common/config/config_node.h"

namespace varscope {

// Applies one `--set KEY=VALUE` to a configuration. KEY is a dotted path; a number steps into a list
// (`model.layers.0.units=64`) and missing sections on the way are made. VALUE is YAML (`[3, 3]`, `{type:
// adam}`); the new value replaces the old one whole, and later messages about it begin with
// `--set train.epochs=x: ` instead of a file position. Nothing after the `=` removes the key, which then has
// its default; `""` is the empty text. Throws Error(config) for a malformed override, which shows the right
// form, and for the removal of what is not there, unless it is a key that a job may have.
void apply_override(ConfigNode& root, std::string_view assignment);

}  // namespace varscope
