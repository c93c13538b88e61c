#pragma once

#include <memory>
#include <string>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// NumPy's .npz: a zip archive (common/files/zip_archive.h) with a member "<name>.npy" (npy.h) per tensor,
// stored without compression, as numpy.savez writes it.

// Reads each tensor twice: its checksum stands before it. Throws Error(checkpoint) for a name that a zip
// archive cannot have.
void write_npz(Fs& fs, const std::string& path, TensorSource& source);

// Throws Error(checkpoint) that begins with the path for anything but a valid archive of C-ordered,
// little-endian arrays of dtypes that varscope has or that may be widened, and for a wrong checksum; it reads
// all of the file. Compressed archives (numpy.savez_compressed) are refused.
std::unique_ptr<TensorSource> open_npz(Fs& fs, const std::string& path, Widen how, ReadNotes& notes);

}  // namespace varscope
