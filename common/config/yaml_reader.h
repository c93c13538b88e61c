#pragma once

#include <string>
#include <string_view>

#include "common/config/config_node.h"

namespace varscope {

// Reads one YAML document into a ConfigNode with marks. Aliases and merge keys (`<<`) are expanded; a tree
// beyond the bounds of ConfigNode, a file above 1 MiB, a duplicate key, a second document, a tag other than
// YAML's own, and bytes that are not UTF-8 text are errors. Throws Error(config) "job.yaml:12:3: ..."; for a
// text, `origin` stands for the file name. Safe on hostile input; an empty document is a null node.
ConfigNode read_yaml_file(const std::string& path);
ConfigNode read_yaml_text(std::string_view text, const std::string& origin);

}  // namespace varscope
