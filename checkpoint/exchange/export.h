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
  std::string model_file = {};  // where one was written beside the file
};
// Writes all variables of a checkpoint, each whole, under its full name, and its tables as TableTensors has
// them, for which a TensorFlow bundle has no place. Every byte is verified on the way.
// A file of that name is replaced, once the new one is on the disk. `model`: what model the values are of,
// a JSON text, or empty. safetensors keeps it as "varscope.model" of its __metadata__, the others in
// model_file_of(file). Throws as CheckpointReader does, and Error(io).
Exported export_checkpoint(Fs& fs, const std::string& checkpoint, const std::string& file,
                           ExchangeFormat format, ExportSlots slots, const std::string& model = "");

// "out/m.model.json" beside "out/m.npz".
std::string model_file_of(const std::string& file);

}  // namespace varscope
