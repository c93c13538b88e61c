#include "common/transport/mpi/mpi_job.h"

#include <mpi.h>

#include <cstdlib>
#include <exception>

#include "common/transport/mpi/mpi_error.h"
#include "common/transport/mpi/mpi_transport.h"
#include "common/transport/mpi/mpi_wait.h"

namespace varscope {

bool launched_by_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

std::optional<int> launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* rank = std::getenv(name)) return std::atoi(rank);
  }
  return std::nullopt;
}

void set_mpi_defaults() { setenv("OMPI_MCA_mpi_yield_when_idle", "0", 0); }

struct MpiJob::State {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;
  int exceptions = std::uncaught_exceptions();
};

MpiJob::MpiJob(int* argc, char*** argv) : state_(std::make_unique<State>()) {
  set_mpi_defaults();
  int provided = 0;
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Comm_idup(MPI_COMM_WORLD, &state_->comm, &request), "MPI_Comm_idup");
  wait_for(request, "MPI_Comm_idup");
  check_mpi(MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(state_->comm, &state_->rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(state_->comm, &state_->size), "MPI_Comm_size");
}

MpiJob::~MpiJob() {
  if (std::uncaught_exceptions() > state_->exceptions) return;
  MPI_Comm_free(&state_->comm);
  MPI_Finalize();
}

Rank MpiJob::rank() const { return Rank(state_->rank); }
int MpiJob::size() const { return state_->size; }

std::string MpiJob::host() const {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  check_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  return {name, static_cast<std::size_t>(length)};
}

void MpiJob::broadcast(std::string& bytes) {
  auto n = static_cast<int>(bytes.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(&n, 1, MPI_INT, 0, state_->comm, &request), "MPI_Ibcast");
  wait_for(request, "MPI_Ibcast");
  bytes.resize(static_cast<std::size_t>(n));
  check_mpi(MPI_Ibcast(bytes.data(), n, MPI_BYTE, 0, state_->comm, &request), "MPI_Ibcast");
  wait_for(request, "MPI_Ibcast");
}

std::vector<std::string> MpiJob::all_gather(const std::string& bytes) {
  const auto n = static_cast<int>(bytes.size());
  const auto ranks = static_cast<std::size_t>(state_->size);
  std::vector<int> lengths(ranks), offsets(ranks);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(&n, 1, MPI_INT, lengths.data(), 1, MPI_INT, state_->comm, &request),
            "MPI_Iallgather");
  wait_for(request, "MPI_Iallgather");
  int total = 0;
  for (std::size_t r = 0; r < ranks; ++r) {
    offsets[r] = total;
    total += lengths[r];
  }
  std::string all(static_cast<std::size_t>(total), '\0');
  check_mpi(MPI_Iallgatherv(bytes.data(), n, MPI_BYTE, all.data(), lengths.data(), offsets.data(), MPI_BYTE,
                            state_->comm, &request),
            "MPI_Iallgatherv");
  wait_for(request, "MPI_Iallgatherv");
  std::vector<std::string> parts;
  parts.reserve(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    parts.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(lengths[r])));
  }
  return parts;
}

void MpiJob::agree(const std::optional<Error>& mine) {
  std::string text;
  if (mine) text = std::string(1, static_cast<char>('0' + static_cast<int>(mine->kind()))) + mine->what();
  const std::vector<std::string> all = all_gather(text);
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].empty()) continue;
    const std::string who = r == 0 ? "" : fmt::format("rank {}: ", r);
    throw Error(static_cast<ErrorKind>(all[r][0] - '0'), who + all[r].substr(1));
  }
}

void MpiJob::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(state_->comm, &request), "MPI_Ibarrier");
  wait_for(request, "MPI_Ibarrier");
}

std::unique_ptr<Transport> MpiJob::make_transport() { return std::make_unique<MpiTransport>(state_->comm); }

void MpiJob::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace varscope
