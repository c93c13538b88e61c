#pragma once

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "launch/job/job_setup.h"

namespace varscope {

// Whether recurrent layers carry their state from step to step: then it stays on its worker. `is_sequential`:
// a step's samples follow those of the step before, as in a text (Dataset::streams).
bool carries_state(const Graph& graph, bool is_sequential);
// The same of a model with its data.
bool carries_state(const WorkerModel& model);

// The rule that the config asks for. `carries_state`: what automatic dealing depends on. REQUIRES: the job
// has passed check_rule_of_model.
StepRule step_rule_of(const JobConfig& job, bool carries_state);

// How the buckets of such a job are cut: where each push is applied by itself a chunk is what is applied.
inline ChunkRule chunk_rule(const StepRule& rule) {
  return rule.is_bsp() ? ChunkRule::bytes : ChunkRule::whole_slices;
}

// What of a model does not go with the job's mode: constraints by norm of dense variables outside bsp; state
// that is carried on where parts of steps go to whoever asks; with backup workers such a state, and
// compression with residuals. `graph`: that of training. Throws Error(config), with the place of the layer or
// key, the variable and what to do.
void check_rule_of_model(const JobConfig& job, const Graph& graph, bool is_sequential);

// Whether cluster.backup_workers and these roles go together: fewer than workers, and one logical worker
// each. Throws Error(config) at the key.
void check_backups_of_cluster(const JobConfig& job, const ClusterMap& cluster);

}  // namespace varscope
