#include "tests/support/jobs/push_exchange.h"

#include <fmt/format.h>

#include <cerrno>
#include <mutex>

#include "checkpoint/restore/reader.h"
#include "common/transport/wire.h"
#include "ps/checkpointing/restore.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/unsynced_fs.h"
#include "tests/support/jobs/push_worker.h"
#include "tests/support/jobs/run_ranks.h"
#include "tests/support/references/plan_checks.h"

namespace varscope::testing {
namespace {

class CountingServer : private RunObserver {
 public:
  CountingServer(Transport& transport, const ClusterMap& cluster, const PushExchange& e, ServerId server,
                 PushResult& result)
      : exchange_(e),
        result_(result),
        plan_(BucketPlan::make(e.variables, cluster.n_servers(), e.chunks)),
        rows_(RowPlan::make(e.variables, cluster.n_servers())) {
    OptimizerConfig sgd;
    sgd.type = OptimizerType::sgd;
    sgd.learning_rate = 1;
    ServerRank::Parts parts{
        .transport = transport,
        .cluster = cluster,
        .variables = e.variables,
        .plan = plan_,
        .id = server,
        .optimizer = sgd,
        .fill = [this](ParameterShard& shard, TableShards& tables) { fill(shard, tables); },
        .start_id = fmt::format("from{}", e.first),
        .limits = e.limits,
        .rows = &rows_,
        .rule = e.rule_of_servers.value_or(e.rule),
        .first = Clock(e.first)};
    if (!e.checkpoint_dir.empty())
      parts.saves.emplace(ServerRank::Saves{fs_, e.checkpoint_dir, e.checkpoint});
    if (e.full_disk == server) fs_.fail_nth(FsOp::create, 1, ENOSPC);
    if (server == ServerId(0)) {
      const TrainPlan train{Clock(e.first), Clock(e.steps), 0, e.evaluates_every};
      parts.control.emplace(ServerRank::Control{train, *this});
    }
    server_.emplace(parts);
  }
  void run() { server_->run(); }

 private:
  void fill(ParameterShard& shard, TableShards& tables) {
    if (exchange_.first == 0) return shard.initialize(1);
    const std::string path = exchange_.checkpoint_dir + "/" + step_name(exchange_.first);
    restore_shard(shard, fs_, {path, Clock(exchange_.first)});
    restore_tables(tables, fs_, {path, Clock(exchange_.first)});
  }
  // On the coordinator's thread: server 0 alone writes these parts of the result.
  void on_step(const StepSummary& s) override { result_.reported.push_back(s.clock.value); }
  void on_finish(const FinishSummary& f) override { result_.finish = f; }
  void on_checkpoint(const CheckpointSummary& c) override {
    result_.cuts.push_back(c.clock.value);
    if (exchange_.on_saved) exchange_.on_saved(c.clock.value);
  }
  void on_checkpoint_failed(Clock clock, const std::string& why) override {
    result_.failed_saves.push_back(fmt::format("{}: {}", clock.value, why));
  }

  const PushExchange& exchange_;
  PushResult& result_;
  UnsyncedFs disk_;
  FaultFs fs_{disk_};
  BucketPlan plan_;
  RowPlan rows_;
  std::optional<ServerRank> server_;
};

// One variable of a checkpoint, slice by slice or not: all of it must hold the same.
void check_variable(CheckpointReader& reader, const VariableSpec& v, const TicketSpace& space,
                    std::int64_t step, std::vector<std::string>& wrong) {
  for (const Slice& slice : slice_variable(v.shape, v.dtype)) {
    Tensor values(v.dtype, slice.extent);
    reader.read(v.name, "", slice, values.view());
    std::string why;
    const auto holds =
        count_tickets(std::as_const(values).as<double>(), slice.linear_begin(), space.n_leaves, why);
    if (!holds) wrong.push_back(fmt::format("{} {}: {}", v.name, slice.spec(), why));
    for (int leaf = 0; holds && leaf < space.n_leaves; ++leaf) {
      const auto& has = (*holds)[static_cast<std::size_t>(leaf)];
      if (has && *has != space.up_to(step, leaf))
        wrong.push_back(
            fmt::format("{} {}: leaf {} holds {:#x} of step {}", v.name, slice.spec(), leaf, *has, step));
    }
  }
}

void check_rows(CheckpointReader& reader, const VariableSpec& v, const TicketSpace& space, std::int64_t step,
                std::vector<std::string>& wrong) {
  const RowLayout layout = reader.row_layout(v.name);
  std::vector<std::byte> rows;
  std::uint64_t n_found = 0, n_expected = 0;
  for (int part = 0; part < v.table->parts; ++part) {
    reader.read_rows(v.name, part, rows);
    for (std::size_t at = 0; at < rows.size(); at += layout.row_bytes(), ++n_found) {
      const std::uint64_t id = RowLayout::id_of(rows.data() + at);
      std::vector<double> values(static_cast<std::size_t>(layout.units()));
      std::memcpy(values.data(), rows.data() + at + RowLayout::kValuesAt, layout.value_bytes());
      std::string why;
      const auto holds = count_tickets(values, 0, space.n_leaves, why);
      if (!holds) wrong.push_back(fmt::format("row {} of {}: {}", id, v.name, why));
      for (int leaf = 0; holds && leaf < space.n_leaves; ++leaf) {
        const StepSet has = (*holds)[static_cast<std::size_t>(leaf)].value_or(0);
        if (has != row_tickets(space, id, leaf, step))
          wrong.push_back(
              fmt::format("row {} of {}: leaf {} holds {:#x} of step {}", id, v.name, leaf, has, step));
      }
    }
  }
  for (std::uint64_t id = 0; id < kCountingRows; ++id) {
    StepSet any = 0;
    for (int leaf = 0; leaf < space.n_leaves; ++leaf) any |= row_tickets(space, id, leaf, step);
    n_expected += any != 0 ? 1 : 0;
  }
  if (n_found != n_expected)
    wrong.push_back(fmt::format("{} has {} rows, expected {}", v.name, n_found, n_expected));
}

}  // namespace

VariableTable counting_variables() {
  return VariableTable({make_spec("large/weights", DType::float64, Shape{70'000}),
                        make_spec("small/weights", DType::float64, Shape{1300}),
                        make_spec("small/frozen", DType::float64, Shape{13}, Initializer::constant(7), false),
                        make_spec("last/biases", DType::float64, Shape{11})});
}

VariableSpec counting_table(const std::string& name, int n_leaves, int parts) {
  VariableSpec spec = make_spec(name, DType::float64, Shape{0, 2 * n_leaves});
  spec.table = TableSpec{IdType::uint64, parts};
  return spec;
}

bool touches_row(std::int64_t step, int leaf, std::uint64_t id) {
  return id == 0 ||
         (static_cast<std::uint64_t>(step) * 3 + static_cast<std::uint64_t>(leaf) * 5 + id) % 4 == 0;
}

StepSet row_tickets(const TicketSpace& space, std::uint64_t id, int leaf, std::int64_t step) {
  StepSet steps = 0;
  for (std::int64_t t = 1; t <= step; ++t) {
    if (touches_row(t, leaf, id)) steps |= StepSet{1} << (t - 1);
  }
  return steps & space.up_to(step, leaf);
}

PushResult run_pushes(const PushExchange& e, int n_servers, int n_workers, int n_leaves) {
  const int n_ranks = n_servers + n_workers;
  const ClusterMap cluster =
      assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_ranks), "host"), n_servers, n_leaves);
  LoopbackHub hub(n_ranks, e.faults);
  PushedTickets pushed(n_leaves, steps_up_to(e.first));
  PushResult result;
  std::mutex mutex;
  result.error = run_ranks(
      hub, n_ranks,
      [&](Rank rank) {
        const auto transport = hub.endpoint(rank);
        if (const auto worker = cluster.worker_at(rank)) {
          PushWorker mine(*transport, cluster, e, *worker, pushed);
          const AbortOnFailure guard(hub);
          mine.run();
          const std::lock_guard lock(mutex);
          return result.reads.add(mine.findings());
        }
        CountingServer server(*transport, cluster, e, *cluster.server_at(rank), result);
        const AbortOnFailure guard(hub);
        server.run();
      },
      e.limit_s);
  return result;
}

std::vector<std::string> check_cut(const PushExchange& e, std::int64_t step, int n_leaves) {
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, e.checkpoint_dir + "/" + step_name(step));
  const TicketSpace space{n_leaves, e.steps, e.last_is_short};
  std::vector<std::string> wrong = reader.verify();
  if (reader.manifest().step != step)
    wrong.push_back(fmt::format("the manifest is of step {}", reader.manifest().step));
  for (const VariableSpec& v : e.variables.variables()) {
    if (v.table) {
      check_rows(reader, v, space, step, wrong);
    } else if (v.is_pushed()) {
      check_variable(reader, v, space, step, wrong);
    }
  }
  return wrong;
}

}  // namespace varscope::testing
