#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/transport/transport.h"

namespace varscope {

// Whether a launcher has started this process as one rank of a job (Open MPI's mpirun, Slurm's PMIx or PMI).
bool launched_by_mpi();
// The rank it gave this process, known before MPI is up; nothing without a launcher.
std::optional<int> launched_rank();

// Turns Open MPI's mpi_yield_when_idle off unless the user has set it: with it every poll that finds
// nothing is a sched_yield, which costs a time slice where another process wants the core. Our waits choose
// by what yields cost (Backoff). MpiJob calls it; it must be before MPI is initialised.
void set_mpi_defaults();

// MPI from start to end, and the few collective calls of start-up. Main thread only; at most one per
// process. Every collective must be called by all ranks in the same order; while it waits it leaves the
// core to others.
class MpiJob {
 public:
  // Initialises MPI with MPI_THREAD_FUNNELED. Collective over all ranks of the job.
  MpiJob(int* argc, char*** argv);
  // Finalises MPI, unless an exception is unwinding: then the caller says why and calls abort().
  ~MpiJob();
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  Rank rank() const;
  int size() const;
  std::string host() const;

  // Collective over the job. Rank 0's bytes reach everyone.
  void broadcast(std::string& bytes);
  // Collective over the job. One entry per rank, in rank order.
  std::vector<std::string> all_gather(const std::string& bytes);
  // Collective over the job. If any rank brings an error, every rank throws the lowest failing rank's, so
  // that all leave together. The message begins with "rank r: " unless that rank is the only one that could
  // have failed (rank 0).
  void agree(const std::optional<Error>& mine);
  void barrier();
  // Collective over the job.
  std::unique_ptr<Transport> make_transport();
  // Ends every rank of the job at once with this exit code.
  [[noreturn]] static void abort(int exit_code);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace varscope
