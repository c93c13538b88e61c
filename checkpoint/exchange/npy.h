#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/exchange/stored_type.h"
#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// One array in NumPy's format .npy [1]: a header, then the data.
//
//   header  = "\x93NUMPY" 1 0 length dict
//   length  = u16 (u32 in versions 2 and 3), bytes of the dict, which is padded with spaces and ends in LF
//   dict    = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
//
// bfloat16, which NumPy does not have, is '<V2' (as ml_dtypes writes it).
//
// [1] https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

// The header, a multiple of 64 bytes long.
std::string npy_header(const NamedTensor& tensor);

// The array in the `n_bytes` bytes of a file from `begin` on, which the caller has checked against the file's
// size; `begin` moves behind its header, to the data, and `type` gets how they are stored. Throws
// Error(checkpoint) for anything but C-ordered, little-endian data of a dtype that varscope has or that may
// be widened, and of just that many bytes.
NamedTensor read_npy(ReadFile& file, const std::string& name, std::uint64_t n_bytes, Widen how,
                     std::uint64_t& begin, StoredType& type);

}  // namespace varscope
