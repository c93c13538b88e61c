#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/reader.h"

namespace varscope {

// What of a checkpoint is not finite, values first: what its manifest says, or for one of an older format,
// which says nothing, what is found by reading all of it. Throws Error(checkpoint, io).
std::vector<NotFiniteTensor> not_finite_tensors(CheckpointReader& reader);

// "checkpoint c/step-000000040 is not finite: nan in hidden/weights (12 elements, from element 0 on)"; ""
// for a finite one.
std::string not_finite_warning(CheckpointReader& reader);
// The same by its manifest alone: "" also where that does not know.
std::string not_finite_warning(const std::string& path, const Manifest& manifest);

// Whether all of it is finite. One of an older format is read; where it cannot be, it is none to go on from.
bool is_finite(Fs& fs, const std::string& path, const Manifest& manifest);
// The newest checkpoint of the directory that can be used and is_finite(). The bytes of others than those
// of older formats are not verified.
std::optional<CheckpointName> newest_finite_checkpoint(Fs& fs, const std::string& dir);

}  // namespace varscope
