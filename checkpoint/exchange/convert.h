#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"

namespace varscope {

// Files of other programs with whole tensors: `varscope checkpoint export` and `import`.
enum class ExchangeFormat : std::uint8_t { safetensors, npz, tf };
// By the suffix: .safetensors, .npz, and .index or .ckpt for TensorFlow; `asked`, when not "", wins. Throws
// Error(config) that lists the formats.
ExchangeFormat exchange_format(const std::string& file, const std::string& asked);

// Writes all variables of a checkpoint, each whole, under its full name. Every byte is verified on the way. A
// file of that name is replaced, once the new one is on the disk. `out` gets what was written. Throws as
// CheckpointReader does, and Error(io).
void export_tool(Fs& fs, const std::string& checkpoint, const std::string& file, ExchangeFormat file_format,
                 ExportSlots slots, ToolFormat format, std::string& out);

struct ImportPlan {
  std::int64_t step = 0;
  std::string optimizer = "sgd";
  std::vector<std::string> slots;  // of that optimizer
  std::string program_version;
};
// Commits the file's tensors as the checkpoint of a step in the directory `dir` (one server, no workers). A
// tensor "<variable>/<slot>" of one of plan.slots, with the variable's shape and dtype, is that slot; slots
// of floating-point variables that the file does not have are 0. There is no place in the data: such a
// checkpoint can be evaluated, exported and compared, but a run cannot be resumed from it. Takes the lock of
// `dir`.
void import_tool(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat file_format,
                 const ImportPlan& plan, ToolFormat format, std::string& out);

}  // namespace varscope
