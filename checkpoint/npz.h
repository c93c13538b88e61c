#pragma once

#include <memory>
#include <string>

#include "checkpoint/fs.h"
#include "checkpoint/tensor_source.h"

namespace varscope {

// NumPy's .npz: a zip archive [1] with a member "<name>.npy" [2] per tensor, stored without compression.
//
//   npy     = "\x93NUMPY" 1 0 length dict data
//   length  = u16 (u32 in version 2), bytes of the dict, which is padded with spaces and ends in LF
//   dict    = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
//
// Written with zip64 fields always, as numpy does, so that one path serves every size. bfloat16, which NumPy
// does not have, is '<V2' (as ml_dtypes writes it).
//
// [1] https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
// [2] https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

// Reads each tensor twice: its checksum stands before it. Throws Error(checkpoint) for a name that a zip
// archive cannot have.
void write_npz(Fs& fs, const std::string& path, TensorSource& source);

// Throws Error(checkpoint) that begins with the path for anything but a valid archive of C-ordered,
// little-endian arrays of dtypes that varscope has, and for a wrong checksum; it reads all of the file.
// Compressed archives (numpy.savez_compressed) are refused.
std::unique_ptr<TensorSource> open_npz(Fs& fs, const std::string& path);

}  // namespace varscope
