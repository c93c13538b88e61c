#pragma once

#include <mpi.h>

#include <source_location>

namespace varscope {

// Waits until the request has completed, as MPI_Wait does, but leaves the core to others meanwhile as Backoff
// does: MPI_Wait spins. Throws Error(mpi) that names `call`, which made the request. Main thread.
void wait_for(MPI_Request& request, const char* call, MPI_Status* status = MPI_STATUS_IGNORE,
              std::source_location where = std::source_location::current());

}  // namespace varscope
