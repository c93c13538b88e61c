#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/exchange/stored_type.h"
#include "checkpoint/exchange/tensor_source.h"
#include "common/files/random_bytes.h"

namespace varscope {

// One array in NumPy's format .npy (common/files/npy_header.h). bfloat16, which NumPy does not have, is '<V2'
// (as ml_dtypes writes it).

// The header, a multiple of 64 bytes long.
std::string npy_header(const NamedTensor& tensor);

// The array in the `n_bytes` bytes of a file from `begin` on, which the caller has checked against the file's
// size; `begin` moves behind its header, to the data, and `type` gets how they are stored. Throws
// Error(checkpoint), or Error(data) for a malformed header, for anything but C-ordered, little-endian data of
// a dtype that varscope has or that may be widened, and of just that many bytes.
NamedTensor read_npy(const RandomBytes& bytes, const std::string& name, std::uint64_t n_bytes, Widen how,
                     std::uint64_t& begin, StoredType& type);

}  // namespace varscope
