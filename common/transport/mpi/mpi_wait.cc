#include "common/transport/mpi/mpi_wait.h"

#include "common/base/backoff.h"
#include "common/transport/mpi/mpi_error.h"

namespace varscope {

void wait_for(MPI_Request& request, const char* call, MPI_Status* status, std::source_location where) {
  Backoff backoff;
  for (int done = 0;;) {
    check_mpi(MPI_Test(&request, &done, status), call, {}, where);
    if (done != 0) return;
    backoff.pause();
  }
}

}  // namespace varscope
