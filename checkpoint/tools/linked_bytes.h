#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// What removing checkpoints gives back: a file that others have as a link goes with its last name.
struct FreedBytes {
  std::uint64_t freed = 0;  // of files that have no names elsewhere
  std::uint64_t stay = 0;   // of files that have
};
// Of all of these together, every file in their directories: also MANIFEST, manifest.json and what has come
// later. Of what cannot be looked at, what the manifests say.
FreedBytes freed_bytes(Fs& fs, const std::vector<const CheckpointEntry*>& removed);

}  // namespace varscope
