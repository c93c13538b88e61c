#include "tests/support/jobs/recorded_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "checkpoint/storage/fs.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "common/transport/wire.h"
#include "ps/checkpointing/restore.h"
#include "ps/server_rank.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/jobs/run_ranks.h"
#include "tests/support/references/plan_checks.h"
#include "worker/client/coded_pushes.h"
#include "worker/client/ps_client.h"
#include "worker/client/variable_memory.h"

namespace varscope::testing {
namespace {

constexpr std::uint64_t kRows = 11;
constexpr int kUnits = 3;

}  // namespace

// Those of exchange_table(), of which a bucket has several chunks, and a table.
VariableTable recorded_variables(const RecordedExchange& e) {
  std::vector<VariableSpec> all = exchange_table().variables();
  all[0].shape = e.weights.value_or(Shape{1400, 201});
  if (e.is_counting) all[0] = make_spec("large/weights", DType::float32, all[0].shape);
  for (VariableSpec& v : all) {
    if (v.dtype == DType::float32 && v.shape.rank() == 2) v.compression = e.compression;
  }
  VariableSpec rows = make_spec("rows/table", DType::float32, Shape{0, kUnits}, Initializer::normal(0, 1));
  rows.table = TableSpec{IdType::uint64, 4};
  all.push_back(rows);
  return VariableTable(std::move(all));
}

namespace {

OptimizerConfig optimizer(const RecordedExchange& e) {
  OptimizerConfig config;
  if (e.is_counting || e.compression.exists()) {
    config.type = e.is_counting ? OptimizerType::sgd : OptimizerType::momentum;
    config.learning_rate = e.is_counting ? 1 : 0.05;
    return config;
  }
  config.type = OptimizerType::adam;
  config.learning_rate = 0.05;
  config.staleness_discount = StalenessDiscount::inverse;
  return config;
}

bool is_without_samples(const RecordedExchange& e, std::int64_t step, int leaf) {
  return step % 4 == 0 && (e.is_counting ? leaf < e.n_leaves / 2 : leaf == 0);
}

// What workers have read; threads share it.
class Reads {
 public:
  void add(std::int64_t step, int leaf, const std::string& digest) {
    const std::lock_guard lock(mutex_);
    reads_[{step, leaf}] = digest;
  }
  std::vector<std::string> all() const {
    std::vector<std::string> all;
    for (const auto& [ticket, digest] : reads_) all.push_back(digest);
    return all;
  }

  std::map<std::int64_t, std::set<std::string>> evaluated() const {
    std::map<std::int64_t, std::set<std::string>> all;
    for (const auto& [ticket, digest] : reads_) {
      if (ticket.second < 0) all[ticket.first].insert(digest);
    }
    return all;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::int64_t, int>, std::string> reads_;
};

class Worker {
 public:
  Worker(Transport& transport, const ClusterMap& cluster, const RecordedExchange& e, WorkerId worker,
         Reads& reads)
      : e_(e),
        cluster_(cluster),
        reads_(reads),
        variables_(recorded_variables(e)),
        plan_(BucketPlan::make(variables_, e.n_servers, ChunkRule::whole_slices)),
        row_plan_(RowPlan::make(variables_, e.n_servers)),
        memory_(variables_, 1),
        coder_(plan_, memory_, 1),
        client_(transport, cluster, plan_, row_plan_, worker, memory_,
                {.rule = e.rule, .first = Clock(e.first)}),
        pushes_({client_, coder_, e.flush, e.steps}),
        random_(e.seed * 100 + static_cast<std::uint64_t>(worker.value)) {}

  void add_to(RecordedResult& result) const {
    result.weights = weights_;
    result.kept_back = std::max(result.kept_back, kept_back_);
    result.most_kept_back = std::max(result.most_kept_back, most_kept_back_);
  }

  void run() {
    client_.pull_all_full(Clock(e_.first));
    client_.wait_all();
    client_.round_values(Clock(e_.first));
    client_.ask_for_ticket();
    std::int64_t done = e_.first;
    while (true) {
      if (!next_go_) next_go_ = client_.wait_ticket();
      const MessageHeader go = *std::exchange(next_go_, std::nullopt);
      done = go.clock;
      if ((go.flags & kFlagEnd) != 0) break;
      if ((go.flags & kFlagDrain) == 0) {
        compute(go);
      } else {
        if (!drain(Clock(go.clock))) break;
        client_.ask_for_ticket();
      }
    }
    client_.wait_all();
    client_.send_to_coordinator(make_header(MessageType::finished, client_.worker().value, Clock(done)),
                                state_text(done));
    client_.wait_shutdown();
  }

 private:
  void pause() {
    for (std::uint64_t n = random_() % 4 == 0 ? random_() % 40 : 0; n > 0; --n) {
      if (n % 3 == 0) client_.progress();
      std::this_thread::yield();
    }
  }
  std::string state_text(std::int64_t step) const {
    return to_text(WorkerState{.worker = client_.worker().value, .clock = step});
  }
  bool is_short(std::int64_t step, int leaf) const { return is_without_samples(e_, step, leaf); }
  // Over the ticket's leaves that have samples.
  template <class T>
  T counted_mean(const MessageHeader& go, std::int64_t element) const {
    const int n = e_.rule.is_dynamic() ? 1 : cluster_.leaves_of(client_.worker()).size();
    T sum = 0;
    int n_with_samples = 0;
    for (int leaf = go.leaf_begin; leaf < go.leaf_begin + n; ++leaf) {
      if (is_short(go.clock, leaf)) continue;
      sum += static_cast<T>(counted_gradient(element, leaf, go.clock));
      ++n_with_samples;
    }
    return n_with_samples > 0 ? sum / static_cast<T>(n_with_samples) : T(0);
  }
  double kept_back(const Bucket& bucket) {
    double most = 0;
    for (const float r : coder_.residual(bucket, 0)) most = std::max(most, static_cast<double>(std::abs(r)));
    return coder_.handles(bucket) ? most : 0;
  }

  void compute(const MessageHeader& go) {
    const int n = e_.rule.is_dynamic() ? 1 : cluster_.leaves_of(client_.worker()).size();
    const Clock step(go.clock);
    if (!e_.rule.is_dynamic()) client_.ask_for_ticket();
    int n_with_samples = 0, n_of_step = 0;
    for (int leaf = 0; leaf < e_.n_leaves; ++leaf) {
      const bool is_mine = leaf >= go.leaf_begin && leaf < go.leaf_begin + n;
      n_of_step += is_short(step.value, leaf) ? 0 : 1;
      n_with_samples += is_mine && !is_short(step.value, leaf) ? 1 : 0;
    }
    share_ = static_cast<double>(n_with_samples) / n_of_step;
    want(Clock(step.value - 1), go, false);
    client_.wait_all_for_step(step);
    read(go);
    pause();
    if (e_.rule.is_dynamic()) client_.ask_for_ticket();
    for (int k = 0; k < plan_.size(); ++k) {  // workers take buckets in different orders
      const Bucket& bucket = plan_[BucketId((k + client_.worker().value) % plan_.size())];
      if (!bucket.is_pushed()) continue;
      fill_gradients(bucket, go);
      if (random_() % 3 == 0) pause();
      pushes_.push(bucket, step, push_of(go, n));
      if (e_.forgets_residuals) coder_.clear_residual(bucket);
      most_kept_back_ = std::max(most_kept_back_, kept_back(bucket));
    }
    push_rows(go, n);
    report(go, n);
  }

  PushOfTicket push_of(const MessageHeader& go, int n) {
    if (!next_go_) next_go_ = client_.take_go();
    const bool is_last = next_go_ && (next_go_->flags & (kFlagDrain | kFlagEnd)) != 0;
    return {go.leaf_begin,
            {.next_step = is_last    ? PushDetails::kNone
                          : next_go_ ? next_go_->clock
                                     : PushDetails::kNotKnown,
             .held_after = go.sequence,
             .share = share_,
             .n_leaves = n}};
  }

  void want(Clock clock, const MessageHeader& go, bool is_read) {
    const RowPlan::Table& table = row_plan_[TableId(0)];
    client_.wait_rows(table.id);
    ids_.clear();
    for (std::uint64_t id = 0; id < kRows; ++id) {
      if (is_read || (id + static_cast<std::uint64_t>(go.clock * 3 + go.leaf_begin)) % 3 != 0)
        ids_.push_back(id);
    }
    std::ranges::sort(ids_, {},
                      [&](std::uint64_t id) { return std::pair(table.server_of(id).value, mix_row_id(id)); });
    rows_.assign(ids_.size() * kUnits, 0);
    std::vector<std::span<const std::uint64_t>> of_servers;
    auto begin = ids_.cbegin();
    for (ServerId s : cluster_.servers.ids()) {
      const auto end =
          std::find_if(begin, ids_.cend(), [&](std::uint64_t id) { return table.server_of(id) != s; });
      of_servers.emplace_back(begin, end);
      begin = end;
    }
    client_.rows().want(table.id, clock, of_servers, reinterpret_cast<std::byte*>(rows_.data()), is_read);
  }

  void read(const MessageHeader& go) {
    Digester digester;
    for (std::size_t v = 0; v < variables_.size(); ++v) {
      if (variables_[v].is_table()) continue;
      const auto values = std::as_const(memory_).value(static_cast<int>(v));
      digester.update(std::span(values.bytes(), values.n_bytes()));
    }
    digester.update(std::as_bytes(std::span(rows_)));
    reads_.add(go.clock, go.leaf_begin, digester.finish().hex());
  }

  template <class T>
  void fill(int variable, const BucketSlice& slice, const MessageHeader& go) {
    const auto values = std::as_const(memory_).value(variable).as<T>();
    const auto gradient = memory_.gradient(0, variable).template as<T>();
    for (std::int64_t i = slice.variable_begin; i < slice.variable_begin + slice.n_elements; ++i) {
      const auto at = static_cast<std::size_t>(i);
      gradient[at] = e_.is_counting ? counted_mean<T>(go, i)
                                    : synthetic_gradient(variable, i, go.leaf_begin, go.clock, values[at]);
    }
  }
  void fill_gradients(const Bucket& bucket, const MessageHeader& go) {
    for (const BucketSlice& slice : bucket.slices) {
      bucket.dtype == DType::float32 ? fill<float>(slice.variable, slice, go)
                                     : fill<double>(slice.variable, slice, go);
    }
  }

  void push_rows(const MessageHeader& go, int n) {
    const RowPlan::Table& table = row_plan_[TableId(0)];
    std::vector<float> gradients(rows_.size());
    std::vector<std::int32_t> positions;
    for (std::size_t i = 0; i < ids_.size() && share_ > 0; ++i)
      positions.push_back(static_cast<std::int32_t>(i));
    for (std::size_t i = 0; i < rows_.size(); ++i)
      gradients[i] = synthetic_gradient(99, static_cast<std::int64_t>(i), go.leaf_begin, go.clock, rows_[i]);
    const RowClient::Contribution contribution{positions, reinterpret_cast<std::byte*>(gradients.data()),
                                               nullptr};
    const PushOfTicket push = push_of(go, n);
    client_.rows().push(table.id, Clock(go.clock), 0, std::span(&contribution, 1), &push);
  }

  void report(const MessageHeader& go, int n) {
    StepReport report;
    for (int leaf = 0; leaf < n; ++leaf)
      report.leaves.push_back({.loss = 1.0 + leaf, .correct = 0, .samples = 1});
    if ((go.flags & kFlagCut) != 0) report.state = state_text(go.clock);
    MessageHeader header = make_header(MessageType::step_report, client_.worker().value, Clock(go.clock));
    header.leaf_begin = go.leaf_begin;
    client_.send_to_coordinator(header, to_binary(report));
  }

  bool drain(Clock clock) {
    client_.wait_all();
    pushes_.push_rest(clock);
    for (const Bucket& bucket : plan_.buckets()) kept_back_ = std::max(kept_back_, kept_back(bucket));
    want(clock, {}, true);
    client_.wait_all();
    client_.send_to_coordinator(make_header(MessageType::drained, client_.worker().value, clock), {});
    const MessageHeader go = client_.wait_ticket();
    client_.pull_all_full(clock);
    want(clock, {}, true);
    client_.wait_all();
    if (e_.evaluates_every > 0 && clock.value % e_.evaluates_every == 0) {
      MessageHeader as_of = go;
      as_of.leaf_begin = -1 - client_.worker().value;
      read(as_of);
    }
    const auto weights = std::as_const(memory_).value(0).as<float>();
    weights_.assign(weights.begin(), weights.end());
    client_.round_values(clock);
    return (go.flags & kFlagEnd) == 0;
  }

  const RecordedExchange& e_;
  const ClusterMap& cluster_;
  Reads& reads_;
  VariableTable variables_;
  BucketPlan plan_;
  RowPlan row_plan_;
  VariableMemory memory_;
  GradientCoder coder_;
  PsClient client_;
  CodedPushes pushes_;
  std::vector<float> weights_;
  double kept_back_ = 0, most_kept_back_ = 0;
  std::mt19937_64 random_;
  std::optional<MessageHeader> next_go_;
  double share_ = 0;
  std::vector<std::uint64_t> ids_;
  std::vector<float> rows_;
};

class Server final : private RunObserver {
 public:
  Server(Transport& transport, const ClusterMap& cluster, const RecordedExchange& e, ServerId id,
         RecordedResult& result)
      : e_(e),
        result_(result),
        variables_(recorded_variables(e)),
        plan_(BucketPlan::make(variables_, e.n_servers, ChunkRule::whole_slices)),
        row_plan_(RowPlan::make(variables_, e.n_servers)) {
    ServerRank::Parts parts{
        .transport = transport,
        .cluster = cluster,
        .variables = variables_,
        .plan = plan_,
        .id = id,
        .optimizer = optimizer(e),
        .fill = [this](ParameterShard& shard, TableShards& tables) { fill(shard, tables); },
        .start_id = fmt::format("start{}", e.first),
        .rows = &row_plan_,
        .rule = e.rule,
        .first = Clock(e.first),
        .flush = e.flush};
    const std::string checkpoints = e.run_dir + "/checkpoints";
    if (e.replay) {
      parts.replay.emplace(ServerRank::Replay{fs_, *e.replay});
    } else {
      const RecordHeader header{.program_version = "1",
                                .start_id = parts.start_id,
                                .servers = e.n_servers,
                                .workers = e.n_workers,
                                .logical_workers = e.n_leaves,
                                .rule = e.rule};
      parts.record.emplace(ServerRank::Record{fs_, e.run_dir, header, {}});
      CheckpointConfig config;
      config.every_steps = e.saves_every;
      config.when_busy = WhenBusy::queue;
      config.at_end = false;
      if (e.saves_every > 0) parts.saves.emplace(ServerRank::Saves{fs_, checkpoints, config});
    }
    if (id == ServerId(0)) {
      const Clock last = e.replay ? e.replay->last : Clock(e.steps);
      parts.control.emplace(
          ServerRank::Control{TrainPlan{Clock(e.first), last, 0, e.evaluates_every, false, e.flush}, *this});
    }
    server_.emplace(parts);
  }
  void run() { server_->run(); }

 private:
  void fill(ParameterShard& shard, TableShards& tables) {
    if (e_.first == 0) return shard.initialize(5);
    const RestoreSource from{e_.run_dir + "/checkpoints/" + step_name(e_.first), Clock(e_.first)};
    restore_shard(shard, fs_, from);
    restore_tables(tables, fs_, from);
  }
  void on_finish(const FinishSummary& finish) override { result_.hash = finish.values_hash.hex(); }
  void on_checkpoint(const CheckpointSummary& c) override { result_.saved.push_back(c.clock.value); }

  const RecordedExchange& e_;
  RecordedResult& result_;
  PosixFs fs_;
  VariableTable variables_;
  BucketPlan plan_;
  RowPlan row_plan_;
  std::optional<ServerRank> server_;
};

}  // namespace

float counted_gradient(std::int64_t element, int leaf, std::int64_t step) {
  // Half of the elements have one value, half another: so means of signs are sums of powers of two, too.
  const float size = element % 2 == 0 ? 1 : 3;
  const bool is_negative = (leaf + step) % 3 == 0;
  return (is_negative ? -size : size) * static_cast<float>(1 << ((leaf + step) % 3));
}

double counted_sum(const RecordedExchange& e, std::int64_t element) {
  double sum = 0;
  for (std::int64_t step = e.first + 1; step <= e.steps; ++step) {
    int n = 0;
    double of_step = 0;
    for (int leaf = 0; leaf < e.n_leaves; ++leaf) {
      if (is_without_samples(e, step, leaf)) continue;
      ++n;
      of_step += static_cast<double>(counted_gradient(element, leaf, step));
    }
    sum += of_step / n;
  }
  return sum;
}

RecordedResult run_exchange(const RecordedExchange& e) {
  const int n_ranks = e.n_servers + e.n_workers;
  const ClusterMap cluster = assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_ranks), "host"),
                                          e.n_servers, e.n_leaves);
  LoopbackHub hub(n_ranks, {.seed = e.seed, .max_delay_polls = e.most_delay, .silent_rank = {}});
  RecordedResult result;
  Reads reads;
  std::mutex mutex;
  const auto run = [&](Rank rank) {
    const std::unique_ptr<Transport> transport = hub.endpoint(rank);
    try {
      if (const auto s = cluster.server_at(rank)) {
        Server server(*transport, cluster, e, *s, result);
        const AbortOnFailure guard(hub);
        server.run();
      } else {
        Worker worker(*transport, cluster, e, *cluster.worker_at(rank), reads);
        const AbortOnFailure guard(hub);
        worker.run();
        const std::lock_guard lock(mutex);
        worker.add_to(result);
        result.bytes_up += transport->stats().bytes_sent;
      }
    } catch (const Aborted&) {
      return;  // the error of another rank is being reported
    } catch (const std::exception& failure) {
      {
        const std::lock_guard lock(mutex);
        if (result.error.empty()) result.error = failure.what();
      }
      hub.abort();
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(n_ranks));
    for (int r = 0; r < n_ranks; ++r) threads.emplace_back([&run, r] { run(Rank(r)); });
  }
  result.reads = reads.all();
  result.evaluated = reads.evaluated();
  return result;
}

}  // namespace varscope::testing
