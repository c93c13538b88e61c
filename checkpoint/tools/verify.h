#pragma once

#include <string>

#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// `varscope checkpoint verify`: checks every byte of one checkpoint, or of all in a directory; `out` gets a
// line per checkpoint and per problem. Takes no lock. Returns 0 or ExitCode::difference. Throws
// Error(checkpoint) when there is no checkpoint at all.
int verify_tool(Fs& fs, const std::string& path_or_dir, std::string& out,
                ToolFormat format = ToolFormat::text);

}  // namespace varscope
