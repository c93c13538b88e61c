#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/placement/cluster.h"
#include "common/transport/mpi/mpi_job.h"

namespace varscope {

// Checks the files of checkpoints with the hands of all servers, for rank 0, which decides what to start
// from: server s of S reads every S-th file from the s-th on, which is its own shard where S is as it was
// saved. So a checkpoint is read as fast as the servers' hosts can, and what each of them loads next is in
// its memory. Main thread only; borrows both.
class SharedVerification {
 public:
  SharedVerification(MpiJob& mpi, Fs& fs) : mpi_(mpi), fs_(fs) {}

  // Collective over the job: rank 0 does its work, in which it may call what with_servers() returns, while
  // all others serve. Rank 0 throws what the work throws, after the others have been let go.
  void run(const std::function<void()>& work_of_rank_0);

  // For rank 0, within run(): what it returns is collective with those who serve, and finds the problems that
  // verify_files() would. It throws Error(checkpoint) that names rank and host when a server does not see the
  // same checkpoint at that path: that is no damage, and no reason to go back to an older one.
  VerifyFiles with_servers(const ClusterMap& cluster);

  // The manifest of the checkpoint at `path`, where this rank has verified files of it for rank 0.
  std::optional<Manifest> take_manifest(const std::string& path);

 private:
  struct Request;
  void serve();
  std::string answer(const Request& request, const Manifest* manifest);

  MpiJob& mpi_;
  Fs& fs_;
  std::string decoded_path_;
  std::optional<Manifest> decoded_;  // at decoded_path_
};

}  // namespace varscope
