#pragma once

#include <string>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// What `varscope checkpoint list` and `inspect` print; they need no cluster and take no lock. As JSON the
// same facts are one object (docs/checkpoint_tools.md).

// A line per checkpoint, newest first: name, step, time, bytes, state, parent, metrics of its evaluation;
// then what was set aside, and steps back.
std::string list_text(Fs& fs, const std::string& path, ToolFormat format = ToolFormat::text);

// The facts of one checkpoint, a table of its variables with minimum, maximum and Euclidean norm of their
// values, rows and bytes of its sparse tables, and as the last line "values hash  <hex>". Throws as
// CheckpointReader does.
std::string inspect_text(Fs& fs, const std::string& path, ToolFormat format = ToolFormat::text);

}  // namespace varscope
