#pragma once

#include <string>
#include <vector>

#include "common/placement/cluster.h"
#include "launch/job/job_setup.h"
#include "ps/record/record_files.h"

namespace varscope {

// The job of a start: the config of the options. A replay writes to a directory of its own, whatever the
// config says of job.run_dir: that of the recorded run and "-replay". Throws Error(config).
JobConfig load_job(const TrainOptions& options);

// For rank 0: fills in what is replayed, and from which checkpoint; run_id is left as it is for a run that is
// replayed from its start. Throws Error(checkpoint) where there is no record, Error(config) for a step that
// it cannot begin after.
void prepare_replay(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify);

// What a record says of its run, and a replay is compared by.
RecordHeader record_header(const StartPacket& start, const ClusterMap& cluster, const ModelFacts& facts);
// Throws Error(config) with all that is not as it was in the recorded run.
void check_replay(const RecordedRun& run, const RecordHeader& now);

// A line for the header of a run that is recorded.
std::string record_note(const JobConfig& job);
// Lines for the header of a replay.
std::vector<std::string> replay_notes(const RecordedRun& run);

}  // namespace varscope
