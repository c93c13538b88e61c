#pragma once

#include <string>
#include <vector>

#include "common/placement/cluster.h"
#include "launch/job/job_setup.h"
#include "ps/record/record_files.h"

namespace varscope {

// The job of a start: the config of the options. Of a replay it writes to a directory of its own:
// <run_dir>-replay, unless the config or an override names another one than the recorded run's. Throws
// Error(config).
JobConfig load_job(const TrainOptions& options);

// For rank 0: fills in what is replayed, and from which checkpoint; run_id is left as it is for a run that is
// replayed from its start. Throws Error(checkpoint) where there is no record, Error(config) for a step that
// it cannot begin after.
void prepare_replay(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify);

// What a record says of its run, and a replay is compared by.
RecordHeader record_header(const StartPacket& start, const ClusterMap& cluster, const ModelFacts& facts);
// Throws Error(config) with all that is not as it was in the recorded run.
void check_replay(const RecordedRun& run, const RecordHeader& now);

// Lines for the header of a replay.
std::vector<std::string> replay_notes(const RecordedRun& run);

}  // namespace varscope
