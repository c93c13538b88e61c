#pragma once

#include <string>

#include "checkpoint/exchange/exchange_file.h"
#include "checkpoint/exchange/import.h"
#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// `varscope checkpoint export`: export_checkpoint(); `out` gets what was written. `model`: of
// export_checkpoint().
void export_tool(Fs& fs, const std::string& checkpoint, const std::string& file, ExchangeFormat file_format,
                 ExportSlots slots, ToolFormat format, std::string& out, const std::string& model = "");

// `varscope checkpoint import`: import_checkpoint(); `out` gets what was committed.
void import_tool(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat file_format,
                 const ImportPlan& plan, ToolFormat format, std::string& out);

}  // namespace varscope
