#pragma once

#include <map>
#include <memory>
#include <string>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// The safetensors format (docs/checkpoint_format.md, source 1), with whole tensors:
//
//   file   = length header data
//   length = u64, bytes of the header; at most 100'000'000
//   header = a JSON object, padded with spaces so that data begins at a multiple of 8:
//            name -> {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__" -> {text: text}
//   data   = the tensors, row-major, little-endian, without holes

// "F32", "BF16", ...
const char* safetensors_dtype(DType dtype);

// Writes all tensors of the source, in its order. Throws Error(checkpoint) for a tensor named "__metadata__".
void write_safetensors(Fs& fs, const std::string& path, TensorSource& source,
                       const std::map<std::string, std::string>& metadata);

// Throws Error(checkpoint) that begins with the path for anything but a valid file of dtypes that varscope
// has. The format has no checksums.
std::unique_ptr<TensorSource> open_safetensors(Fs& fs, const std::string& path);

}  // namespace varscope
