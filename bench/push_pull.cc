// Push and pull between one worker and one server, beside raw MPI between the same two ranks in the same run
// (docs/performance.md, P1 and P2). Start with: mpirun -n 2 --bind-to none push_pull [--json FILE] [--trials
// N]
//
// Every figure is a ratio of rates: ours over a ceiling that is measured just before and just after it. "raw"
// does nothing with the data; "raw + add" has the receiver add the whole message to its store before it
// answers, which is the least a server can do. A step is one push of each bucket, and the next begins when
// all answers are there, as the protocol of a synchronous job wants it: "x8" are the 8 buckets of one step.
// Raw MPI sends in the same steps.
#include <fmt/format.h>
#include <mpi.h>

#include <cstring>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/sum.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/transport/mpi/mpi_job.h"
#include "common/transport/wire.h"
#include "ps/server_rank.h"
#include "worker/client/ps_client.h"

namespace varscope::bench {
namespace {

constexpr int kServer = 0, kWorker = 1, kDepth = 8;

enum class Pattern { push, push8, push_pull, push_pull8 };
constexpr Pattern kPatterns[] = {Pattern::push, Pattern::push8, Pattern::push_pull, Pattern::push_pull8};
const char* name_of(Pattern p) {
  switch (p) {
    case Pattern::push:
      return "push";
    case Pattern::push8:
      return "push x8";
    case Pattern::push_pull:
      return "push+pull";
    case Pattern::push_pull8:
      return "push+pull x8";
  }
  return "";
}
// Buckets, and so messages in flight.
int depth_of(Pattern p) { return p == Pattern::push8 || p == Pattern::push_pull8 ? kDepth : 1; }
bool replies_with_value(Pattern p) { return p == Pattern::push_pull || p == Pattern::push_pull8; }

// The same traffic over bare MPI: steps of `depth` messages.
class Raw {
 public:
  Raw(MPI_Comm comm, int rank, std::size_t n_bytes) : comm_(comm), rank_(rank), n_(n_bytes) {
    for (int i = 0; i < kDepth; ++i) {
      buffers_.push_back(allocate_aligned(n_));
      std::memset(buffers_.back().get(), 0, n_);
      stores_.push_back(allocate_aligned(n_));
      std::memset(stores_.back().get(), 0, n_);
    }
  }
  void run(int depth, bool add, bool value, int n_messages) {
    rank_ == kWorker ? send(depth, value, n_messages) : serve(depth, add, value, n_messages);
  }

 private:
  void send(int depth, bool value, int n_messages) {
    std::vector<MPI_Request> replies(static_cast<std::size_t>(depth), MPI_REQUEST_NULL), sends = replies;
    for (int i = 0; i < n_messages; ++i) {
      const auto slot = static_cast<std::size_t>(i % depth);
      std::byte* reply = value ? stores_[slot].get() : &acks_[slot];
      MPI_Irecv(reply, value ? static_cast<int>(n_) : 1, MPI_BYTE, kServer, static_cast<int>(slot), comm_,
                &replies[slot]);
      MPI_Isend(buffers_[slot].get(), static_cast<int>(n_), MPI_BYTE, kServer, static_cast<int>(slot), comm_,
                &sends[slot]);
      if (i % depth < depth - 1) continue;
      MPI_Waitall(depth, replies.data(), MPI_STATUSES_IGNORE);
      MPI_Waitall(depth, sends.data(), MPI_STATUSES_IGNORE);
    }
  }
  void serve(int depth, bool add, bool value, int n_messages) {
    std::vector<MPI_Request> receives(static_cast<std::size_t>(depth), MPI_REQUEST_NULL), sends = receives;
    const auto post = [&](std::size_t slot) {
      MPI_Irecv(buffers_[slot].get(), static_cast<int>(n_), MPI_BYTE, kWorker, static_cast<int>(slot), comm_,
                &receives[slot]);
    };
    for (int i = 0; i < std::min(depth, n_messages); ++i) post(static_cast<std::size_t>(i));
    for (int i = 0; i < n_messages; ++i) {
      const auto slot = static_cast<std::size_t>(i % depth);
      MPI_Wait(&receives[slot], MPI_STATUS_IGNORE);
      MPI_Wait(&sends[slot], MPI_STATUS_IGNORE);
      if (add) {
        add_into(DType::float32, stores_[slot].get(), buffers_[slot].get(), n_);
      }
      if (i + depth < n_messages) post(slot);
      MPI_Isend(value ? stores_[slot].get() : &acks_[slot], value ? static_cast<int>(n_) : 1, MPI_BYTE,
                kWorker, static_cast<int>(slot), comm_, &sends[slot]);
    }
    MPI_Waitall(depth, sends.data(), MPI_STATUSES_IGNORE);
  }
  MPI_Comm comm_;
  int rank_;
  std::size_t n_;
  std::vector<AlignedBytes> buffers_, stores_;
  std::byte acks_[kDepth]{};
};

// The product: variables of n bytes, each a bucket of its own, SGD with rate 1.
class Ours {
 public:
  Ours(MpiJob& mpi, std::size_t n_bytes, int n_buckets) : transport_(mpi.make_transport()) {
    std::vector<VariableSpec> specs;
    for (int i = 0; i < n_buckets; ++i) {
      const std::string scope = fmt::format("bench{}", i);
      specs.push_back({scope + "/v", scope, DType::float32,
                       Shape{static_cast<std::int64_t>(n_bytes / sizeof(float))}, Initializer::constant(0),
                       true});
    }
    table_ = VariableTable(std::move(specs));
    cluster_.servers = {Rank(kServer)};
    cluster_.workers = {Rank(kWorker)};
    plan_ = BucketPlan::make(table_, 1);
    if (mpi.rank() == Rank(kServer)) {
      OptimizerConfig config;
      config.learning_rate = 1;
      server_.emplace(
          ServerRank::Parts{.transport = *transport_,
                            .cluster = cluster_,
                            .variables = table_,
                            .plan = plan_,
                            .id = ServerId(0),
                            .optimizer = config,
                            .fill = [](ParameterShard& shard, TableShards&) { shard.initialize(1); },
                            .start_id = "bench",
                            .stall_timeout_s = 600});
    } else {
      memory_.emplace(table_, 1);
      client_.emplace(*transport_, cluster_, plan_, rows_, WorkerId(0), *memory_, PsClient::Options{600, {}});
    }
  }
  void run(bool value, int n_steps) {
    if (server_) {
      server_->run();
      return;
    }
    for (int i = 0; i < n_steps; ++i) {
      ++clock_.value;
      for (const Bucket& bucket : plan_.buckets()) client_->push(bucket.id, clock_, value ? 0 : kFlagAck);
      client_->wait_all();
    }
  }
  void stop() {
    if (client_) transport_->send_message(Rank(kServer), make_header(MessageType::shutdown, 0, Clock(0)));
    transport_->flush(10);
  }

 private:
  std::unique_ptr<Transport> transport_;
  VariableTable table_;
  ClusterMap cluster_;
  BucketPlan plan_;
  std::optional<ServerRank> server_;
  std::optional<VariableMemory> memory_;
  RowPlan rows_;  // no tables
  std::optional<PsClient> client_;
  Clock clock_{0};
};

struct Row {
  Pattern pattern;
  std::size_t n_bytes;
  Spread raw, raw_add, ours;  // MB/s of values pushed
  Spread over_raw, over_add;  // ratios, taken trial by trial
};

// Whole steps.
int messages_of(std::size_t n_bytes, int depth) {
  const std::size_t wanted = (std::size_t{192} << 20) / n_bytes;
  return std::max(3 * depth, static_cast<int>(std::min<std::size_t>(wanted, 4000)) / depth * depth);
}

Row measure(MpiJob& mpi, Raw& raw, Ours& ours, Pattern pattern, std::size_t n_bytes, int trials) {
  const int depth = depth_of(pattern), n = messages_of(n_bytes, depth);
  const bool value = replies_with_value(pattern);
  const double megabytes = static_cast<double>(n_bytes) * n / 1e6;
  const auto rate = [&](auto&& work) {
    mpi.barrier();
    return megabytes / seconds_of(work);
  };
  const auto raw_rate = [&] { return rate([&] { raw.run(depth, false, value, n); }); };
  const auto add_rate = [&] { return rate([&] { raw.run(depth, true, value, n); }); };
  std::vector<double> raws, adds, mine, over_raw, over_add;
  for (int t = -1; t < trials; ++t) {  // trial -1 warms up
    const double raw_before = raw_rate(), add_before = add_rate();
    mpi.barrier();
    const std::int64_t started = now_ns();
    ours.run(value, n / depth);
    const double rate_ours = megabytes / (static_cast<double>(now_ns() - started) * 1e-9);
    if (mpi.rank() == Rank(kWorker)) ours.stop();
    const double add_after = add_rate(), raw_after = raw_rate();
    if (t < 0) continue;
    raws.push_back((raw_before + raw_after) / 2);
    adds.push_back((add_before + add_after) / 2);
    mine.push_back(rate_ours);
    over_raw.push_back(rate_ours / raws.back());
    over_add.push_back(rate_ours / adds.back());
  }
  return {pattern,
          n_bytes,
          Spread::of(raws),
          Spread::of(adds),
          Spread::of(mine),
          Spread::of(over_raw),
          Spread::of(over_add)};
}

nlohmann::json to_json(const Spread& s) { return {{"median", s.median}, {"min", s.min}, {"max", s.max}}; }

// Ends the program when a figure is none.
void print(const Row& r) {
  for (const auto& [column, s] : {std::pair("raw", r.raw), {"raw+add", r.raw_add}, {"varscope", r.ours}})
    require_positive(fmt::format("{} of {}", column, name_of(r.pattern)), s);
  fmt::print("{:<13} {:>9} {:>9.0f} {:>9.0f} {:>9.0f}   {:>5.2f}   {:>5.2f} [{:.2f} .. {:.2f}]\n",
             name_of(r.pattern),
             r.n_bytes >= (1 << 20) ? fmt::format("{} MiB", r.n_bytes >> 20)
                                    : fmt::format("{} KiB", r.n_bytes >> 10),
             r.raw.median, r.raw_add.median, r.ours.median, r.over_raw.median, r.over_add.median,
             r.over_add.min, r.over_add.max);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  int trials = 7;
  std::string json_file;
  std::size_t max_kib = 64 << 10;
  CLI::App app("Push and pull beside raw MPI");
  app.add_option("--trials", trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  app.add_option("--json", json_file, "Also write the figures to this file");
  app.add_option("--max-kib", max_kib, "Largest message, KiB")->check(CLI::Range(4, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  MpiJob mpi(&argc, &argv);
  if (mpi.size() != 2) {
    fmt::print(stderr, "push_pull: needs 2 ranks, has {}\n", mpi.size());
    return 2;
  }
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  const bool tells = mpi.rank() == Rank(kWorker);
  if (tells) {
    fmt::print("{:<13} {:>9} {:>9} {:>9} {:>9}   {:>5}   {:>5} [min .. max]\n", "pattern", "bytes", "raw",
               "raw+add", "varscope", "/raw", "/r+a");
    fmt::print("{:<13} {:>9} {:>9} {:>9} {:>9}\n", "", "", "MB/s", "MB/s", "MB/s");
  }
  nlohmann::json rows = nlohmann::json::array();
  for (std::size_t kib = 4; kib <= max_kib; kib *= 4) {
    const std::size_t n_bytes = kib << 10;
    Raw raw(comm, mpi.rank().value, n_bytes);
    Ours one(mpi, n_bytes, 1), many(mpi, n_bytes, kDepth);
    for (Pattern p : kPatterns) {
      const Row row = measure(mpi, raw, depth_of(p) == 1 ? one : many, p, n_bytes, trials);
      if (!tells) continue;
      print(row);
      rows.push_back({{"pattern", name_of(p)},
                      {"bytes", n_bytes},
                      {"raw_MBps", to_json(row.raw)},
                      {"raw_add_MBps", to_json(row.raw_add)},
                      {"varscope_MBps", to_json(row.ours)},
                      {"over_raw", to_json(row.over_raw)},
                      {"over_raw_add", to_json(row.over_add)}});
    }
  }
  if (tells && !json_file.empty()) {
    PosixFs fs;
    write_named_file(fs, json_file, rows.dump(2) + "\n");
  }
  MPI_Comm_free(&comm);
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("push_pull", varscope::bench::run, argc, argv);
}
