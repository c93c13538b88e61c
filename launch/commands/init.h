#pragma once

#include <string>

namespace varscope {

struct InitOptions {
  std::string file;       // CSV, plain or gzip
  std::string label;      // a column's name, or its number from 0 on
  std::string delimiter;  // as in the config; empty: what the first line shows
};

// A config for a table, that trains as it is: the schema guessed from what the cells are, and commented, a
// small model, metrics and an optimizer that suit the label. Reads the file once. Throws Error(data,
// config).
std::string init_config(const InitOptions& options);

}  // namespace varscope
