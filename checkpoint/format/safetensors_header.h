#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "checkpoint/format/named_tensor.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// What a safetensors file (docs/checkpoint_format.md, source 1) has before its data:
//
//   file   = length header data
//   length = u64, little-endian, bytes of the header; at most 100'000'000
//   header = a JSON object, padded with spaces:
//            name -> {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__" -> {text: text}
//   data   = the tensors, row-major, little-endian, without holes
inline constexpr const char* kSafetensorsMetadata = "__metadata__";

inline constexpr const char* kUnsignedSafetensors = "U64";  // NamedTensor::is_unsigned
// "F32", "BF16", ...
const char* safetensors_dtype(DType dtype);

// Length and header for tensors whose data follow in this order and begin at a multiple of `alignment`.
// Throws Error(argument) when two tensors have one name, or one is named "__metadata__".
std::string safetensors_header(std::span<const NamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata, std::uint64_t alignment);

// The header's text; the data begin at byte 8 + its size. Throws Error(checkpoint) when the file is too short
// for it.
std::string read_safetensors_header(ReadFile& file);

}  // namespace varscope
