#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/restore/names.h"
#include "checkpoint/restore/restore_plan.h"
#include "checkpoint/restore/warm_start.h"
#include "launch/job/job_setup.h"
#include "ps/store/parameter_shard.h"
#include "ps/tables/table_shards.h"

namespace varscope {

// What checkpoint.variables and checkpoint.rename say of this model. Throws Error(config) at the place in the
// file for an entry that matches no variable, with the name that was probably meant, and for two variables of
// one name.
CheckpointNames checkpoint_names(const JobConfig& job, const VariableTable& model);

// Throws Error(config) for entries of warm_start.map that say nothing sensible, whatever the checkpoint has.
void check_warm_start_map(const JobConfig& job);

// Where a run's first values come from: the initializers, the checkpoint it resumes from, or one that
// warm_start names. All that could be wrong is found here, from the config and the manifest, before a server
// has touched its state. The same on every rank; immutable.
class StartValues {
 public:
  StartValues() = default;
  // Reads the manifest of the checkpoint, if there is one, unless it is given: `decoded`. Throws one
  // Error(checkpoint) with everything that the checkpoint and the job differ in: variables, optimizer, order
  // of the data; Error(config) at the entries of warm_start.map that are not used.
  StartValues(Fs& fs, const StartPacket& start, const ModelFacts& facts,
              std::optional<Manifest> decoded = {});

  // Of the checkpoint that the run resumes from, not of a warm start.
  const Manifest* resumed() const { return is_resumed_ ? &*manifest_ : nullptr; }
  const CheckpointNames& names() const { return names_; }

  // Sets all values, slots and clocks of a server. Throws Error(checkpoint, io).
  void load(ParameterShard& shard, TableShards& tables, Fs& fs) const;

  // For the header of the run, and for standard error: what is not as the user may take for granted.
  const std::vector<std::string>& notes() const { return notes_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  // What data.train is not that it was, where the run goes on all the same.
  const std::vector<std::string>& other_data() const { return other_data_; }

 private:
  void plan_resume(const StartPacket& start, const ModelFacts& facts);
  void plan_warm_start(Fs& fs, const StartPacket& start, const ModelFacts& facts);
  std::vector<NotFiniteTensor> not_finite_values(const VariableTable& model) const;
  void note_names(const VariableTable& model);
  std::optional<VariableSpec> saved_as(const VariableSpec& variable) const;
  std::uint64_t seed_of_rows() const;

  std::uint64_t seed_ = 1;
  std::string path_;  // of the checkpoint; empty: initial values only
  CheckpointNames names_;
  std::optional<Manifest> manifest_;  // of it
  bool is_resumed_ = false;           // the run goes on from it; else it is a warm start's
  std::set<std::string> missing_;     // resumed: by the names in the checkpoint
  WarmStart warm_start_;
  std::vector<std::string> notes_, warnings_, other_data_;
};

}  // namespace varscope
