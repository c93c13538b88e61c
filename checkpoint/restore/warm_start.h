#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/assignment_map.h"

namespace varscope {

// The values that a new run takes from a checkpoint: which, found and checked before any is read. Only
// values: optimizer slots, step and schedule start anew. A table and a dense variable [rows, units] may stand
// for each other (checkpoint/restore/dense_rows.h); that all ids are rows is seen when they are read. A plain
// value.
class WarmStart {
 public:
  WarmStart() = default;  // takes nothing
  // `path` is for messages. Throws Error(checkpoint) with all captured variables whose shape or dtype
  // differs. Entries of the map that are not used are left to the caller.
  WarmStart(const std::string& path, const Manifest& manifest, const VariableTable& model,
            const AssignmentMap& map);

  std::size_t n_captured() const { return result_.sources.size(); }
  const std::vector<std::string>& uncaptured() const { return result_.uncaptured; }
  const std::vector<AssignmentMap::Unused>& unused() const { return result_.unused; }
  const std::vector<std::string>& extra() const { return extra_; }  // the checkpoint's that go nowhere

  // The variable as the checkpoint has it, to read its boxes by; nothing when its values do not come from
  // there.
  std::optional<VariableSpec> saved_as(const VariableSpec& variable) const;

 private:
  AssignmentMap::Result result_;
  std::vector<std::string> extra_;
};

}  // namespace varscope
