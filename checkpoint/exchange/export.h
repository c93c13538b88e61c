#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/exchange/exchange_file.h"
#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

struct Exported {
  std::int64_t step = 0;
  std::size_t n_tensors = 0;
  std::uint64_t n_bytes = 0;  // of the tensors
  std::vector<std::string> warnings = {};
};
// Writes all variables of a checkpoint, each whole, under its full name. Every byte is verified on the way. A
// file of that name is replaced, once the new one is on the disk. Throws as CheckpointReader does, and
// Error(io).
Exported export_checkpoint(Fs& fs, const std::string& checkpoint, const std::string& file,
                           ExchangeFormat format, ExportSlots slots);

}  // namespace varscope
