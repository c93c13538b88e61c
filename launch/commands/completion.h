#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace varscope {

// What a shell sources to complete the command line of `app`, which is called `program`: commands, options,
// files, and keys of the config, which are read from the lines "key: ..." of `explained_keys`. Made of the
// App itself, so that it cannot go stale: an option's type (`type_name`) says what its value is; a `config`
// is a YAML file. `shell` is one of completion_shells(); throws Error(config) for another.
std::string completion_script(const CLI::App& app, const std::string& program, const std::string& shell,
                              const std::string& explained_keys);
const std::vector<std::string>& completion_shells();

}  // namespace varscope
