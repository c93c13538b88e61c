#pragma once

#include <map>
#include <memory>
#include <string>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// A safetensors file (checkpoint/format/safetensors_header.h) of whole tensors. Its data begin at a multiple
// of 8.

// Writes all tensors of the source, in its order. Throws Error(checkpoint) for a tensor named "__metadata__".
void write_safetensors(Fs& fs, const std::string& path, TensorSource& source,
                       const std::map<std::string, std::string>& metadata);

// Throws Error(checkpoint) that begins with the path for anything but a valid file of dtypes that varscope
// has or that may be widened, and for two tensors of one name. The format has no checksums.
std::unique_ptr<TensorSource> open_safetensors(Fs& fs, const std::string& path, Widen how, ReadNotes& notes);

}  // namespace varscope
