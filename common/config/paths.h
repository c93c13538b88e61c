#pragma once

#include <string>

#include "common/config/config_node.h"

namespace varscope {

// Files and folders in a job's tree, at the keys that are paths (Rule::is_path): job.run_dir, checkpoint.dir,
// the files of data, warm_start.from.

// Puts in place what a shell would: `~` and `~user` at the beginning by that home folder, $NAME and ${NAME}
// by the environment's variable; $$ is a dollar sign. What is put in is not looked at again. For rank 0,
// once: other hosts may have other environments. Throws Error(config) at the value for a variable that is not
// set, a user that does not exist, and a dollar sign that begins no name.
void expand_paths(ConfigNode& root, const std::string& file);

// The reverse for a text that expand_paths will read: dollar signs twice.
void escape_paths(ConfigNode& root);

}  // namespace varscope
