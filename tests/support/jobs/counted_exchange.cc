#include "tests/support/jobs/counted_exchange.h"

#include <atomic>
#include <thread>

#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "tests/support/jobs/row_exchange.h"
#include "tests/support/jobs/run_ranks.h"
#include "tests/support/references/lone_optimizer.h"

namespace varscope::testing {
namespace {

// The canonical sum in which some leaves are absent, by recursion; nothing where all of them are.
template <class T>
std::optional<T> sum_of_present(const std::vector<std::optional<T>>& leaves, std::size_t first,
                                std::size_t width) {
  if (first >= leaves.size()) return std::nullopt;
  if (width == 1) return leaves[first];
  const auto left = sum_of_present(leaves, first, width / 2),
             right = sum_of_present(leaves, first + width / 2, width / 2);
  if (!left || !right) return left ? left : right;
  return *left + *right;
}

CountedWorkers counted_of(const CountedExchange& e, Clock step) {
  CountedWorkers counted(e.n_workers);
  for (WorkerId w : counted.ids()) {
    if (!e.is_late(step, w)) counted.add(w);
  }
  return counted;
}

template <class T>
void train_counted(const CountedExchange& e, int variable, Tensor& value) {
  const VariableSpec& spec = e.exchange.variables[static_cast<std::size_t>(variable)];
  LoneOptimizer optimizer(e.exchange.optimizer, value);
  std::size_t width = 1;
  while (width < static_cast<std::size_t>(e.n_workers)) width *= 2;
  for (int step = 1; step <= e.exchange.steps; ++step) {
    const CountedWorkers counted = counted_of(e, Clock(step));
    const CountedPush push = counted_push(e, Clock(step), counted);
    const auto v = value.as<T>(), g = optimizer.gradient().as<T>();
    std::vector<std::optional<T>> leaves(static_cast<std::size_t>(e.n_workers));
    for (std::size_t i = 0; i < v.size(); ++i) {
      for (WorkerId w : counted.ids()) {
        leaves[static_cast<std::size_t>(w.value)].reset();
        if (counted.has(w))
          leaves[static_cast<std::size_t>(w.value)] =
              synthetic_gradient<T>(variable, static_cast<std::int64_t>(i), w.value, step, v[i]);
      }
      g[i] = *sum_of_present(leaves, 0, width);
      g[i] *= static_cast<T>(spec.average_decay >= 0 ? push.average_scale : push.gradient_scale);
      if (spec.average_decay >= 0)
        v[i] = static_cast<T>(spec.average_decay) * v[i] + static_cast<T>(1 - spec.average_decay) * g[i];
    }
    if (spec.average_decay >= 0) continue;
    optimizer.update(step);
  }
}

StepRule rule_of(const CountedExchange& e) { return {.backups = e.n_backups}; }

// What the ranks of a run share. Thread-safe.
struct Shared {
  std::atomic<int> newest_step{0};  // that a worker has reported
};

class CountedWorker {
 public:
  CountedWorker(Transport& transport, const ClusterMap& cluster, const CountedExchange& e, WorkerId worker,
                Shared& shared)
      : e_(e),
        shared_(shared),
        plan_(BucketPlan::make(e.exchange.variables, cluster.n_servers())),
        rows_(RowPlan::make(e.exchange.variables, cluster.n_servers())),
        memory_(e.exchange.variables, 1),
        client_(transport, cluster, plan_, rows_, worker, memory_, {.rule = rule_of(e)}) {
    if (!rows_.empty()) row_worker_.emplace(client_, rows_, cluster, worker);
  }

  Digest run() {
    Clock clock(e_.exchange.first);
    client_.pull_all(clock);
    if (e_.sleeper == client_.worker()) sleep();
    while (clock.value < e_.exchange.steps) clock = step(Clock(clock.value + 1));
    client_.wait_all();
    ValuesHash hash(e_.exchange.variables);
    for (std::size_t i = 0; i < e_.exchange.variables.size(); ++i)
      if (!e_.exchange.variables[i].is_table())
        add_values(e_.exchange.variables[i], memory_.value(static_cast<int>(i)).bytes(), hash);
    client_.send_to_coordinator(make_header(MessageType::finished, client_.worker().value, clock), "");
    client_.wait_shutdown();
    return hash.finish();
  }
  int n_dropped() const { return n_dropped_; }
  int n_catch_ups() const { return n_catch_ups_; }

 private:
  void want(Clock clock) {
    row_worker_->want(clock, Clock(clock.value - 1));
    wanted_ = clock;
  }

  void sleep() {
    while (shared_.newest_step < e_.sleeps_until) std::this_thread::yield();
  }

  Clock step(Clock clock) {
    // Some of those that are late have asked for rows all the same.
    const bool asks = !e_.is_late(clock, client_.worker()) || clock.value % 2 == 0;
    if (row_worker_ && wanted_ != clock && asks) want(clock);
    if (!e_.is_late(clock, client_.worker())) {
      client_.wait_all();
      for (const Bucket& bucket : plan_.buckets()) compute(bucket, clock);
      client_.send_to_coordinator(make_header(MessageType::gradient_done, client_.worker().value, clock), {});
    }
    const PsClient::StepGo go = client_.wait_newest_go(clock);
    if (go.step == clock && go.counted.has(client_.worker())) {
      push(go);
      // Some ask before their step is over, others when the next one begins.
      if (row_worker_ && clock.value % 3 == client_.worker().value % 2 && clock.value < e_.exchange.steps)
        want(Clock(clock.value + 1));
      return clock;
    }
    n_dropped_ += static_cast<int>(go.step.value - clock.value) + 1;
    ++n_catch_ups_;
    client_.wait_all();
    client_.pull_pushed(go.step);
    return go.step;
  }

  void push(const PsClient::StepGo& go) {
    const std::string body = counted_push(e_, go.step, go.counted).to_bytes();
    const int n = plan_.size(), at = client_.worker().value;
    for (int k = 0; k < n; ++k) {  // workers take buckets in different orders
      const Bucket& bucket = plan_[BucketId((k + at) % n)];
      if (bucket.is_pushed()) client_.push(bucket.id, go.step, go.flags, body);
      client_.progress();
    }
    if (row_worker_) row_worker_->push(go.step, go.flags, body);
    StepReport report;
    report.leaves = {{0.5 + at, 1, e_.samples(go.step, client_.worker())}};
    client_.send_to_coordinator(make_header(MessageType::step_report, at, go.step), to_binary(report));
    int newest = shared_.newest_step;
    while (newest < go.step.value &&
           !shared_.newest_step.compare_exchange_weak(newest, static_cast<int>(go.step.value)))
      continue;
  }

  void compute(const Bucket& bucket, Clock clock) {
    const auto fill = [&]<class T>(T) {
      for (const BucketSlice& s : bucket.slices) {
        if (!bucket.is_pushed()) continue;
        const auto value = memory_.value(s.variable).as<T>(),
                   gradient = memory_.gradient(0, s.variable).as<T>();
        for (std::int64_t i = s.variable_begin; i < s.variable_begin + s.n_elements; ++i) {
          const auto at = static_cast<std::size_t>(i);
          gradient[at] = synthetic_gradient<T>(s.variable, i, client_.worker().value, clock.value, value[at]);
        }
      }
    };
    bucket.dtype == DType::float64 ? fill(double()) : fill(float());
  }

  const CountedExchange& e_;
  Shared& shared_;
  BucketPlan plan_;
  RowPlan rows_;
  VariableMemory memory_;
  PsClient client_;
  std::optional<RowWorker> row_worker_;  // where there are tables
  Clock wanted_{-1};
  int n_dropped_ = 0, n_catch_ups_ = 0;
};

struct Heard final : RunObserver {
  void on_step(const StepSummary& s) override { steps.push_back(s); }
  void on_finish(const FinishSummary& f) override { finish = f; }
  std::vector<StepSummary> steps;
  std::optional<FinishSummary> finish;
};

void serve(Transport& transport, const ClusterMap& cluster, const CountedExchange& e, ServerId id,
           Heard& heard, LoopbackHub& hub) {
  PosixFs fs;
  const BucketPlan plan = BucketPlan::make(e.exchange.variables, cluster.n_servers());
  const RowPlan rows = RowPlan::make(e.exchange.variables, cluster.n_servers());
  ServerRank::Parts parts{
      .transport = transport,
      .cluster = cluster,
      .variables = e.exchange.variables,
      .plan = plan,
      .id = id,
      .optimizer = e.exchange.optimizer,
      .fill = [&](ParameterShard& shard, TableShards&) { shard.initialize(e.exchange.seed); },
      .start_id = "test",
      .limits = e.exchange.limits,
      .rows = &rows,
      .seed = e.exchange.seed,
      .rule = rule_of(e)};
  RecordHeader header{.program_version = "test",
                      .start_id = "test",
                      .servers = e.n_servers,
                      .workers = e.n_workers,
                      .logical_workers = e.n_workers,
                      .rule = parts.rule};
  if (!e.record_dir.empty()) parts.record.emplace(ServerRank::Record{fs, e.record_dir, header, {}});
  if (!e.replay_dir.empty())
    parts.replay.emplace(ServerRank::Replay{fs, recorded_run(fs, e.replay_dir, Clock(0))});
  if (id == ServerId(0)) {
    parts.control.emplace(ServerRank::Control{
        TrainPlan{.first = Clock(0), .last = Clock(e.exchange.steps), .steps_per_epoch = 2}, heard});
    parts.control->samples = e.samples;
  }
  ServerRank server(parts);
  const AbortOnFailure guard(hub);
  server.run();
}

}  // namespace

CountedPush counted_push(const CountedExchange& e, Clock step, const CountedWorkers& counted) {
  double weight = 0, counted_weight = 0, samples = 0, counted_samples = 0;
  for (WorkerId w : counted.ids()) {
    const auto n = static_cast<double>(e.samples(step, w));
    weight += n * (1 + w.value);
    samples += n;
    if (!counted.has(w)) continue;
    counted_weight += n * (1 + w.value);
    counted_samples += n;
  }
  return {weight / counted_weight, samples / counted_samples, counted};
}

Digest counted_reference_hash(const CountedExchange& e) {
  ValuesHash hash(e.exchange.variables);
  for (std::size_t i = 0; i < e.exchange.variables.size(); ++i) {
    const VariableSpec& v = e.exchange.variables[i];
    if (v.is_table()) continue;
    Tensor value(v.dtype, v.shape);
    v.fill(value.view(), e.exchange.seed, 0);
    if (v.is_pushed() && v.dtype == DType::float32) train_counted<float>(e, static_cast<int>(i), value);
    if (v.is_pushed() && v.dtype == DType::float64) train_counted<double>(e, static_cast<int>(i), value);
    add_values(v, value.view().bytes(), hash);
  }
  const RowPlan rows = RowPlan::make(e.exchange.variables, 1);
  for (const RowPlan::Table& table : rows.tables()) {
    ReferenceTable reference(e.exchange, table);
    for (int step = 1; step <= e.exchange.steps && table.trainable; ++step) {
      const CountedPush push = counted_push(e, Clock(step), counted_of(e, Clock(step)));
      reference.apply(step, reference.gradients(step, e.n_workers, &push.counted), push.gradient_scale);
    }
    reference.add_to(hash);
  }
  return hash.finish();
}

CountedResult run_counted(const CountedExchange& e) {
  const int n_ranks = e.n_servers + e.n_workers;
  const ClusterMap cluster =
      assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_ranks), "host"), e.n_servers, 0);
  LoopbackHub hub(n_ranks);
  Shared shared;
  CountedResult result;
  result.worker_hash = IdVector<WorkerId, Digest>(e.n_workers);
  result.n_dropped = result.n_catch_ups = IdVector<WorkerId, int>(e.n_workers, 0);
  Heard heard;  // of server 0; the others tell nothing
  result.error = run_ranks(hub, n_ranks, [&](Rank rank) {
    const auto transport = hub.endpoint(rank);
    if (const auto server = cluster.server_at(rank))
      return serve(*transport, cluster, e, *server, heard, hub);
    const WorkerId w = *cluster.worker_at(rank);
    CountedWorker worker(*transport, cluster, e, w, shared);
    const AbortOnFailure guard(hub);
    result.worker_hash[w] = worker.run();
    result.n_dropped[w] = worker.n_dropped();
    result.n_catch_ups[w] = worker.n_catch_ups();
  });
  result.finish = heard.finish;
  result.steps = heard.steps;
  return result;
}

}  // namespace varscope::testing
