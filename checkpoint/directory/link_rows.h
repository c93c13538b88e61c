#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/format/row_file.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// What one server's row file of a committed save was, and which older ones belong to it.
struct SavedRowFiles {
  int server = 0, n_servers = 1;
  std::int64_t step = 0;
  std::string path;  // of the checkpoint
  RowFileReport report;
};

// What comes of linking them into a new checkpoint.
struct LinkedRowFiles {
  std::optional<RowBase> base;  // nothing: all rows are to be written
  std::string why_not;          // then, in words for people: what is missing, or cannot be done
  bool can_link = true;         // false: there is no use in trying again
};

// Which pieces of a part's chain a save of changes keeps: so many, from the front; 0: all of the part is to
// be written. Its own piece takes the place of those behind, and has what changed since the last one kept.
using KeptPieces = std::function<std::size_t(const RowPartRecord&)>;

// Gives the row files that pieces are kept of new names in the directory `to` of a save that is being
// written, each that of its step (linked_row_file_name()). All or nothing. What is not a finite number may be
// in any piece, and only whole parts are searched for it: a table with some does not go on. Throws Error(io).
LinkedRowFiles link_row_files(Fs& fs, const SavedRowFiles& saved, const std::string& to,
                              const KeptPieces& n_kept);

}  // namespace varscope
