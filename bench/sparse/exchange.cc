// Rows between a worker and a server, two ranks of MPI, beside the same bytes over bare MPI (E3), and what
// goes over the wire by count (E13). The program starts itself under mpirun; rank 0 is the server.
#include <fmt/format.h>
#include <mpi.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "bench/figure_text.h"
#include "bench/program.h"
#include "bench/sparse/bench_table.h"
#include "bench/sparse/figures.h"
#include "common/base/error.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/mpi/mpi_job.h"
#include "common/transport/wire.h"
#include "ps/server_rank.h"
#include "worker/client/ps_client.h"

namespace varscope::bench {
namespace {

constexpr int kServer = 0, kWorker = 1;
constexpr std::size_t kValueBytes = kUnits * sizeof(float);
constexpr Goal kSpeedGoal{Bound::at_least, 0.5}, kBytesGoal{Bound::at_most, 1.1},
    kMessagesGoal{Bound::at_most, 4};

// The same rows by bare MPI: ids to the server, values back, gradients to the server. It knows where each row
// is: it gathers and scatters with memcpy.
class RawExchange {
 public:
  RawExchange(MPI_Comm comm, int rank, const Requests& rows, std::uint64_t n_rows)
      : comm_(comm),
        rank_(rank),
        ids_(ids_of(rows)),
        values_(kRequest * kUnits),
        gradients_(kRequest * kUnits) {
    if (rank != kServer) return;
    plain_.emplace(n_rows, kValueBytes);
    addresses_ = plain_->addresses(rows);
  }
  void run(std::size_t n_steps) {
    for (std::size_t i = 0; i < n_steps; ++i)
      rank_ == kServer ? serve(i % ids_.size()) : ask(ids_[i % ids_.size()]);
    char done = 0;  // the server has scattered
    rank_ == kServer ? MPI_Send(&done, 1, MPI_BYTE, kWorker, 0, comm_)
                     : MPI_Recv(&done, 1, MPI_BYTE, kServer, 0, comm_, MPI_STATUS_IGNORE);
  }

 private:
  void ask(const std::vector<std::uint64_t>& ids) {
    const int n = static_cast<int>(ids.size() * kValueBytes);
    MPI_Request values = MPI_REQUEST_NULL;
    MPI_Irecv(values_.data(), n, MPI_BYTE, kServer, 0, comm_, &values);
    MPI_Send(ids.data(), static_cast<int>(ids.size() * sizeof(std::uint64_t)), MPI_BYTE, kServer, 0, comm_);
    MPI_Wait(&values, MPI_STATUS_IGNORE);
    MPI_Send(gradients_.data(), n, MPI_BYTE, kServer, 0, comm_);
  }
  void serve(std::size_t step) {
    const std::vector<std::byte*>& rows = addresses_[step];
    const int n = static_cast<int>(rows.size() * kValueBytes);
    MPI_Recv(received_ids_.data(), static_cast<int>(kRequest * sizeof(std::uint64_t)), MPI_BYTE, kWorker, 0,
             comm_, MPI_STATUS_IGNORE);
    plain_->each(rows, [&](std::size_t i, const std::byte* row) {
      std::memcpy(&values_[i * kUnits], row, kValueBytes);
    });
    MPI_Request sent = MPI_REQUEST_NULL;
    MPI_Isend(values_.data(), n, MPI_BYTE, kWorker, 0, comm_, &sent);
    MPI_Recv(gradients_.data(), n, MPI_BYTE, kWorker, 0, comm_, MPI_STATUS_IGNORE);
    plain_->each(
        rows, [&](std::size_t i, std::byte* row) { std::memcpy(row, &gradients_[i * kUnits], kValueBytes); });
    MPI_Wait(&sent, MPI_STATUS_IGNORE);
  }

  MPI_Comm comm_;
  int rank_;
  Requests ids_;
  std::vector<float> values_, gradients_;
  std::vector<std::uint64_t> received_ids_ = std::vector<std::uint64_t>(kRequest);
  std::optional<PlainRows> plain_;
  std::vector<std::vector<std::byte*>> addresses_;
};

// The product: a table with all rows there, updated by rowwise_adagrad.
class RowsExchange {
 public:
  RowsExchange(MpiJob& mpi, const Requests& rows, std::uint64_t n_rows)
      : transport_(mpi.make_transport()),
        variables_({bench_variable()}),
        buckets_(BucketPlan::make(variables_, 1)),
        plan_(RowPlan::make(variables_, 1)),
        ids_(ids_of(rows)),
        values_(kRequest * kUnits),
        gradients_(kRequest * kUnits, 0.01F) {
    cluster_.servers = {Rank(kServer)};
    cluster_.workers = {Rank(kWorker)};
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(kRequest); ++i) positions_.push_back(i);
    if (mpi.rank() == Rank(kServer)) {
      serve(n_rows);
    } else {
      memory_.emplace(variables_, 1);
      client_.emplace(*transport_, cluster_, buckets_, plan_, WorkerId(0), *memory_,
                      PsClient::Options{600, {}});
    }
  }
  void run(std::size_t n_steps) {
    if (server_) {
      server_->run();
      return;
    }
    for (std::size_t i = 0; i < n_steps; ++i) {
      const std::vector<std::uint64_t>& ids = ids_[i % ids_.size()];
      read(ids, false);
      const RowClient::Contribution all{std::span(positions_).first(ids.size()),
                                        reinterpret_cast<const std::byte*>(gradients_.data())};
      client_->rows().push(TableId(0), Clock(++clock_), 0, std::span(&all, 1));
    }
  }
  // What has been pushed is applied; the server's run() ends.
  void stop() {
    if (!client_) return;
    read({id_of(0)}, true);
    transport_->send_message(Rank(kServer), make_header(MessageType::shutdown, 0, Clock(0)));
    transport_->flush(10);
  }
  const TransportStats& stats() const { return transport_->stats(); }

 private:
  void serve(std::uint64_t n_rows) {
    server_.emplace(ServerRank::Parts{.transport = *transport_,
                                      .cluster = cluster_,
                                      .variables = variables_,
                                      .plan = buckets_,
                                      .id = ServerId(0),
                                      .optimizer = rowwise_adagrad(),
                                      .fill =
                                          [n_rows](ParameterShard&, TableShards& tables) {
                                            const std::vector<float> values(kUnits, 0.1F);
                                            for (std::uint64_t i = 0; i < n_rows; ++i)
                                              tables[TableId(0)]->restore_values(
                                                  id_of(i),
                                                  reinterpret_cast<const std::byte*>(values.data()));
                                          },
                                      .start_id = "bench",
                                      .stall_timeout_s = 600,
                                      .rows = &plan_});
  }
  void read(const std::vector<std::uint64_t>& ids, bool is_read) {
    const std::span<const std::uint64_t> of_server(ids);
    client_->rows().want(TableId(0), Clock(clock_), std::span(&of_server, 1),
                         reinterpret_cast<std::byte*>(values_.data()), is_read);
    client_->wait_rows(TableId(0));
  }

  std::unique_ptr<Transport> transport_;
  VariableTable variables_;
  BucketPlan buckets_;
  RowPlan plan_;
  Requests ids_;
  std::vector<float> values_, gradients_;
  std::vector<std::int32_t> positions_;
  ClusterMap cluster_;
  std::optional<ServerRank> server_;
  std::optional<VariableMemory> memory_;
  std::optional<PsClient> client_;
  std::int64_t clock_ = 0;
};

struct Counts {
  double bytes = 0, messages = 0;
};
Counts counts_of(const TransportStats& s) {
  const std::uint64_t messages = s.messages_sent + s.messages_received;
  return {static_cast<double>(s.bytes_sent + s.bytes_received + messages * sizeof(MessageHeader)),
          static_cast<double>(messages + s.data_sends + s.data_receives)};
}

// Of what a step must move: ids, values and gradients of its rows, in whole chunks.
double chunks_of(std::size_t n_rows) {
  const auto chunks = [](std::size_t n_bytes) { return (n_bytes + kWireChunkBytes - 1) / kWireChunkBytes; };
  return static_cast<double>(chunks(n_rows * sizeof(std::uint64_t)) + 2 * chunks(n_rows * kValueBytes));
}

// Of one worker and step, over what its rows make necessary.
SparseFigures wire_figures(const Counts& total, std::size_t n_steps, const Requests& rows) {
  double n_rows = 0, chunks = 0;
  for (std::size_t i = 0; i < n_steps; ++i) {
    n_rows += static_cast<double>(rows[i % rows.size()].size());
    chunks += chunks_of(rows[i % rows.size()].size());
  }
  const double least = n_rows * (8 + 8 * kUnits);
  return {plain_figure("E13", "bytes of a step, over 8 + 8 units for each row", "x", {total.bytes / least},
                       kBytesGoal),
          plain_figure("E13", "messages of a step, beyond chunks", "",
                       {(total.messages - chunks) / static_cast<double>(n_steps)}, kMessagesGoal)};
}

}  // namespace

int exchange_as_rank(const SparseOptions& options, int argc, char** argv) {
  MpiJob mpi(&argc, &argv);
  if (mpi.size() != 2) fail(ErrorKind::argument, "E3 needs 2 ranks, has {}", mpi.size());
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  const std::uint64_t n_rows = options.is_small ? 64 << 10 : 4 << 20;
  const std::size_t n_steps = options.is_small ? 4 : 400;
  const Requests rows = draw_requests(Draw::uniform, n_rows, options.is_small ? 4 : 64);
  RawExchange raw(comm, mpi.rank().value, rows, n_rows);
  RowsExchange ours(mpi, rows, n_rows);
  double pulled = 0;
  for (std::size_t i = 0; i < n_steps; ++i)
    pulled += static_cast<double>(rows[i % rows.size()].size()) * 1e-6;
  Counts counts;
  const auto run_ours = [&] {
    mpi.barrier();
    const Counts before = counts_of(ours.stats());
    const double seconds = seconds_of([&] { ours.run(n_steps); });
    const Counts after = counts_of(ours.stats());
    counts = {after.bytes - before.bytes, after.messages - before.messages};
    if (mpi.rank() == Rank(kWorker)) ours.stop();
    return pulled / seconds;
  };
  const auto run_raw = [&] {
    mpi.barrier();
    return pulled / seconds_of([&] { raw.run(n_steps); });
  };
  SparseFigures figures{compare(options.trials, "E3", "8,192 rows pulled and pushed, over MPI + memcpy",
                                "M rows/s", kSpeedGoal, run_ours, run_raw)};
  for (SparseFigure& f : wire_figures(counts, n_steps, rows)) figures.push_back(std::move(f));
  if (mpi.rank() == Rank(kWorker))
    for (const SparseFigure& f : figures) fmt::print("{}\n", figure_json(f).dump());
  std::fflush(stdout);
  MPI_Comm_free(&comm);
  mpi.barrier();
  return 0;
}

SparseFigures measure_exchange(const SparseOptions& options) {
  const ScratchDir dir;
  set_mpi_environment();
  Args command = {options.mpirun,   "--quiet",   "-n",       "2",
                  "/proc/self/exe", "--as-rank", "--trials", std::to_string(options.trials)};
  command[4] = own_program();
  if (options.is_small) command.emplace_back("--smoke");
  run_command(command, dir / "output");
  SparseFigures figures;
  std::ifstream in(dir / "output");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("{")) figures.push_back(figure_of(nlohmann::json::parse(line)));
  if (figures.size() != 3)
    fail(ErrorKind::argument, "E3, E13: {} figures of 3 came from mpirun", figures.size());
  return figures;
}

}  // namespace varscope::bench
