#pragma once

#include <memory>

#include <CLI/CLI.hpp>

namespace varscope {

// How --help spells options: as GNU's programs do, "-h, --help" and "--servers INT", with a sentence for what
// is required and what goes with what. tools/make_man reads it.
std::shared_ptr<CLI::Formatter> help_format();

}  // namespace varscope
