#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// A TensorFlow V2 checkpoint ("bundle") with the prefix P, as tf.train.load_checkpoint(P) reads it:
//
//   P.index                 a table (tf_table.h): "" -> Header, name -> Entry (tf_bundle.proto)
//   P.data-00000-of-00001   the tensors, row-major, little-endian, back to back
//
// dtypes: float32 1, float64 2, int32 3, uint8 4, int64 9, bfloat16 14.

// Data first, then the index: a bundle without its index does not exist. Throws Error(checkpoint) for a
// tensor without a name.
void write_tf_bundle(Fs& fs, const std::string& prefix, TensorSource& source);

// `path` is the prefix or the name of the index. Any number of shards. Texts (TensorFlow describes Python
// objects in them) are left out, their names go into `notes`. Throws Error(checkpoint) that begins with the
// file for damage (all bytes are checked), big-endian bundles, variables that were saved in slices, and those
// of types that varscope does not have, unless they can and may be widened.
std::unique_ptr<TensorSource> open_tf_bundle(Fs& fs, const std::string& path, Widen how, ReadNotes& notes);

}  // namespace varscope
