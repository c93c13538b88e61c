#pragma once

#include "common/transport/run_requests.h"
#include "launch/job/job_setup.h"

namespace varscope {

class MpiJob;

// `varscope train` with one process: a server thread for each of cluster.servers and one worker, over
// LoopbackTransport. Checkpoints are read and written through `fs`. Throws the error of the rank that failed
// first.
RunEnd train_in_one_process(const TrainOptions& options, const LayerRegistry& layers, Fs& fs);

// `varscope train` as one rank of an MPI job. Collective over the job until training starts; errors found
// until then are agreed on and thrown by all ranks; later ones are thrown by the rank that meets them, which
// must end the job. Sets `started` when agreement ends.
RunEnd train_in_mpi_job(const TrainOptions& options, const LayerRegistry& layers, Fs& fs, MpiJob& mpi,
                        bool& started);

}  // namespace varscope
