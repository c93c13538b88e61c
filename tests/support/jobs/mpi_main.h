#pragma once

#include "common/transport/mpi/mpi_job.h"

namespace varscope::testing {

// The job that mpi_main.cc started, for tests under mpirun. In such a test use ASSERT only where the whole
// job should die: with several ranks a fatal failure aborts it, because the others may wait for this one in a
// collective call.
MpiJob& mpi_job();

inline int mpi_rank() { return mpi_job().rank().value; }
inline int mpi_size() { return mpi_job().size(); }

}  // namespace varscope::testing
