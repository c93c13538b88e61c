#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

inline constexpr const char* kLatestName = "LATEST";
inline constexpr const char* kLockName = "LOCK";
inline constexpr const char* kLineageName = "LINEAGE";
inline constexpr const char* kPinnedName = "PINNED";  // inside a checkpoint: retention never removes it
inline constexpr const char* kTrashName = ".trash";
inline constexpr const char* kSupersededPrefix = "superseded-";

// Where the save of this id is written until it is committed.
std::string temporary_path(const std::string& dir, const std::string& id);

struct LoadedManifest {
  Manifest manifest;
  Digest digest;  // of the file MANIFEST, as in LATEST
};
// Reads and checks <path>/MANIFEST alone. Throws Error(checkpoint), or Error(io) when it cannot be read.
LoadedManifest load_manifest(Fs& fs, const std::string& path);

// One line for each file of the manifest that is missing or of another size; reads no contents.
std::vector<std::string> file_problems(Fs& fs, const std::string& path, const Manifest& manifest);

// " (the save of step 12000 wrote it)" for a row file that is linked from an older checkpoint, "" for any
// other: behind what is wrong with it.
std::string writer_text(const std::string& file);

// Why the name of the directory contradicts the manifest; "" when it does not, or when it is not named
// step-<step>.
std::string name_problem(const std::string& path, const Manifest& manifest);

// What has the name of a checkpoint.
struct CheckpointName {
  std::string name;  // "step-000012000"
  std::string path;
  std::int64_t step = 0;  // from the name
};
// All in a directory, newest first, without a look into any. A directory that does not exist holds none.
std::vector<CheckpointName> list_checkpoints(Fs& fs, const std::string& dir);

// The directory of checkpoints that a path means: itself, or, of a run's directory, `checkpoints` in it.
std::string directory_of_checkpoints(Fs& fs, const std::string& path);

enum class CheckpointState : std::uint8_t { committed, damaged };

// And what a look into it has found.
struct CheckpointEntry : CheckpointName {
  CheckpointState state = CheckpointState::committed;
  std::string reason = {};  // why it is damaged
  // Damaged for all we know: something of it could not be read, which may pass. Retention lets it be.
  bool unreadable = false;
  bool pinned = false;                    // or the system cannot tell
  std::optional<Manifest> manifest = {};  // when it could be read
  Digest manifest_digest = {};
};

// Reads one's manifest. Committed means: the manifest is whole and of this step, and every file has its size;
// whether the bytes are right, only a verification tells. What the system says about it is its reason; throws
// nothing for it.
CheckpointEntry look_at(Fs& fs, CheckpointName name);
// A look at all of list_checkpoints(): decodes all of their manifests.
std::vector<CheckpointEntry> scan_checkpoints(Fs& fs, const std::string& dir);

// The hint LATEST: "<name> <digest of MANIFEST in hexadecimal>\n".
std::string latest_text(const std::string& name, const Digest& manifest);
// Why LATEST does not name the newest one; "" when it does. Only ever a warning.
std::string latest_problem(Fs& fs, const std::string& dir, const CheckpointEntry& newest);
// The same for a scan; "" when it found none.
std::string latest_problem(Fs& fs, const std::string& dir, const std::vector<CheckpointEntry>& entries);

// The file LINEAGE, a JSON object per line (docs/checkpoint_format.md); "" when there is none. A last line
// that was cut off is not returned. Throws Error(io).
std::string lineage_text(Fs& fs, const std::string& dir);

}  // namespace varscope
