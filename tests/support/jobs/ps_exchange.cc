#include "tests/support/jobs/ps_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>

#include "checkpoint/restore/reader.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "ps/checkpointing/restore.h"
#include "tests/support/jobs/row_exchange.h"
#include "tests/support/jobs/run_ranks.h"
#include "tests/support/references/canonical_reference.h"
#include "tests/support/references/lone_optimizer.h"
#include "tests/support/references/plan_checks.h"
#include "worker/client/coded_pushes.h"

namespace varscope::testing {

void add_values(const VariableSpec& v, const std::byte* memory, ValuesHash& hash) {
  const std::vector<Slice> slices = slice_variable(v.shape, v.dtype);
  for (std::size_t i = 0; i < slices.size(); ++i) {
    const std::byte* begin = memory + static_cast<std::size_t>(slices[i].linear_begin()) * size_of(v.dtype);
    const auto n = static_cast<std::size_t>(slices[i].n_elements()) * size_of(v.dtype);
    hash.add(v.name, static_cast<std::int64_t>(i), digest_of(std::span(begin, n)));
  }
}

namespace {

// All that a variable has been.
template <class T>
class Versions {
 public:
  explicit Versions(const Exchange& e) : flush_(e.flush) {}
  // What `step` is computed with; `now`: the values after the step before.
  const std::vector<T>& read(std::int64_t step, std::span<const T> now) {
    after_.emplace_back(now.begin(), now.end());
    return after_[static_cast<std::size_t>(flush_.read_by(Clock(step), Clock(0)).value)];
  }

 private:
  FlushRule flush_;
  std::vector<std::vector<T>> after_;
};

template <class T>
void train_alone(const Exchange& e, int variable, int n_leaves, Tensor& value) {
  LoneOptimizer optimizer(e.optimizer, value);
  const double decay = e.variables[static_cast<std::size_t>(variable)].average_decay;
  std::vector<T> leaves(static_cast<std::size_t>(n_leaves));
  Versions<T> versions(e);
  for (int step = 1; step <= e.steps; ++step) {
    const auto v = value.as<T>(), g = optimizer.gradient().as<T>();
    const std::vector<T> read = versions.read(step, v);
    for (std::size_t i = 0; i < v.size(); ++i) {
      for (int leaf = 0; leaf < n_leaves; ++leaf) {
        leaves[static_cast<std::size_t>(leaf)] =
            synthetic_gradient<T>(variable, static_cast<std::int64_t>(i), leaf, step, read[i]);
      }
      g[i] = canonical_sum(leaves);
      if (decay >= 0) v[i] = static_cast<T>(decay) * v[i] + static_cast<T>(1 - decay) * g[i];
    }
    if (decay >= 0) continue;
    optimizer.update(step);
  }
}

// The gradients of one leaf of a compressed variable as they come out of the codec; `lost` stays.
void code_alone(const VariableSpec& v, const Codec& codec, std::span<float> g, std::vector<float>& lost) {
  for (const Slice& s : slice_variable(v.shape, v.dtype)) {
    const auto begin = static_cast<std::size_t>(s.linear_begin()),
               n = static_cast<std::size_t>(s.n_elements());
    std::vector<std::byte> bytes(encoded_bytes(codec.type, n, codec.ratio));
    const std::span<float> r = std::span(lost).subspan(begin, has_residual(codec.type) ? n : 0);
    if (encode_gradient(codec, g.subspan(begin, n), r, bytes))
      fail(ErrorKind::not_finite, "a gradient of \"{}\" is not finite", v.name);
    decode_gradient(codec, bytes, g.subspan(begin, n));
  }
}

// As train_alone(), where gradients or values are compressed.
void train_compressed_alone(const Exchange& e, int variable, int n_leaves, Tensor& value) {
  const VariableSpec& spec = e.variables[static_cast<std::size_t>(variable)];
  const Compression& c = spec.compression;
  LoneOptimizer optimizer(e.optimizer, value);
  const auto n = static_cast<std::size_t>(value.n_elements());
  std::vector<std::vector<float>> leaves(static_cast<std::size_t>(n_leaves), std::vector<float>(n)),
      lost = leaves;
  std::vector<float> seen(n), of_element(leaves.size());
  Versions<float> versions(e);
  for (int step = 1; step <= e.steps; ++step) {
    seen = versions.read(step, value.as<float>());
    if (c.values == ValueForm::bf16) round_values(seen);
    const double part = c.has_residual() ? e.flush.part_sent(Clock(step)) : 0;
    const bool is_full = !c.type || step <= c.last_full_step(e.steps) || part > 0;
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
      for (std::size_t i = 0; i < n; ++i) {
        leaves[leaf][i] = synthetic_gradient<float>(variable, static_cast<std::int64_t>(i),
                                                    static_cast<int>(leaf), step, seen[i]);
      }
      if (!is_full) code_alone(spec, c.codec(), leaves[leaf], lost[leaf]);
      for (std::size_t i = 0; i < n && is_full; ++i) {
        const float sent = (part > 0 ? static_cast<float>(part) : 1.0F) * lost[leaf][i];
        leaves[leaf][i] += sent;
        lost[leaf][i] -= sent;
      }
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) of_element[leaf] = leaves[leaf][i];
      optimizer.gradient().as<float>()[i] = canonical_sum(of_element);
    }
    optimizer.update(step);
  }
}

// What a worker's graph would do: one logical worker's gradients of one bucket, from the values in memory.
void compute_gradients(const Bucket& bucket, VariableMemory& memory, int buffer, int leaf, Clock clock,
                       const Exchange& e) {
  const int set = memory.set_of(e.flush.read_by(clock, Clock(e.first)));
  const auto fill = [&]<class T>(T) {
    for (const BucketSlice& s : bucket.slices) {
      const auto value = memory.value(s.variable, set).as<T>(),
                 gradient = memory.gradient(buffer, s.variable).as<T>();
      for (std::int64_t i = s.variable_begin; i < s.variable_begin + s.n_elements; ++i) {
        const auto at = static_cast<std::size_t>(i);
        gradient[at] = e.gradient
                           ? static_cast<T>(e.gradient(s.variable, i, leaf, static_cast<float>(value[at])))
                           : synthetic_gradient<T>(s.variable, i, leaf, clock.value, value[at]);
      }
    }
  };
  bucket.dtype == DType::float64 ? fill(double()) : fill(float());
}

}  // namespace

VariableTable exchange_table() {
  const Initializer random = Initializer::normal(0, 1);
  return VariableTable({make_spec("large/weights", DType::float32, Shape{600, 401}, random),
                        make_spec("large/biases", DType::float32, Shape{401}),
                        make_spec("small/weights", DType::float32, Shape{9, 7}, random),
                        make_spec("small/frozen", DType::float32, Shape{13}, random, false),
                        make_spec("double/weights", DType::float64, Shape{5000}, random),
                        make_spec("scale", DType::float32, Shape{}, Initializer::constant(1))});
}

Exchange default_exchange() {
  Exchange e;
  e.variables = exchange_table();
  e.optimizer.type = OptimizerType::adam;
  e.optimizer.learning_rate = 0.05;
  return e;
}

Digest reference_hash(const Exchange& e, int n_leaves) {
  ValuesHash hash(e.variables);
  for (std::size_t i = 0; i < e.variables.size(); ++i) {
    const VariableSpec& v = e.variables[i];
    Tensor value(v.dtype, v.shape);
    v.fill(value.view(), e.seed, 0);
    if (v.compression.exists()) {
      train_compressed_alone(e, static_cast<int>(i), n_leaves, value);
    } else if (v.is_pushed() && v.dtype == DType::float32)
      train_alone<float>(e, static_cast<int>(i), n_leaves, value);
    if (v.is_pushed() && v.dtype == DType::float64)
      train_alone<double>(e, static_cast<int>(i), n_leaves, value);
    add_values(v, value.view().bytes(), hash);
  }
  add_reference_rows(e, n_leaves, hash);
  return hash.finish();
}

ExchangeWorker::ExchangeWorker(Transport& transport, const ClusterMap& cluster, const Exchange& e,
                               WorkerId worker)
    : exchange_(e),
      plan_(BucketPlan::make(e.variables, cluster.n_servers())),
      rows_(RowPlan::make(e.variables, cluster.n_servers())),
      leaves_(cluster.leaves_of(worker)),
      sums_(LocalSumPlan::make(leaves_, cluster.logical_workers)),
      memory_(e.variables, sums_.n_buffers, static_cast<int>(e.flush.delay + 1)),
      coder_(plan_, memory_, leaves_.size()),
      client_(transport, cluster, plan_, rows_, worker, memory_,
              {.stall_timeout_s = e.worker_stall_s, .rule = {.delay = e.flush.delay}}) {
  if (!rows_.empty()) row_worker_ = std::make_unique<RowWorker>(client_, rows_, cluster, worker);
}

ExchangeWorker::~ExchangeWorker() = default;

void ExchangeWorker::let_go(Clock clock) {
  if (clock <= released_) return;
  flags_ = client_.wait_go(clock);
  released_ = clock;
}

bool ExchangeWorker::goes_encoded(const Bucket& bucket, Clock clock) const {
  return coder_.handles(bucket) && clock.value > bucket.compression.last_full_step(exchange_.steps) &&
         !(bucket.compression.has_residual() && exchange_.flush.part_sent(clock) > 0);
}

// One leaf's gradient, and what becomes of it.
void ExchangeWorker::compute(const Bucket& bucket, std::size_t leaf, Clock clock) {
  const int buffer = memory_.buffer_of(sums_.leaves[leaf].buffer, clock);
  compute_gradients(bucket, memory_, buffer, leaves_.begin + static_cast<int>(leaf), clock, exchange_);
  if (goes_encoded(bucket, clock)) {
    coder_.encode(bucket, leaf, buffer, clock);
    if (exchange_.forgets_residuals) std::ranges::fill(coder_.residual(bucket, leaf), 0.0F);
    return;
  }
  if (coder_.handles(bucket))
    coder_.add_residual(bucket, leaf, buffer, residual_part(clock, exchange_.flush));
  for (const auto& [into, from] : sums_.leaves[leaf].merges) {
    memory_.add_gradients(bucket, memory_.buffer_of(into, clock), memory_.buffer_of(from, clock));
  }
}

std::vector<Tensor> ExchangeWorker::values() const {
  std::vector<Tensor> all;
  for (std::size_t i = 0; i < exchange_.variables.size(); ++i) {
    const TensorView view = memory_.value(static_cast<int>(i), memory_.set_of(Clock(exchange_.steps)));
    all.emplace_back(view.dtype(), view.shape());
    std::memcpy(all.back().view().bytes(), view.bytes(), view.n_bytes());
  }
  return all;
}

// As after a forward pass: nothing is pushed before.
void ExchangeWorker::wait_to_read(Clock clock) {
  const Clock read = exchange_.flush.read_by(clock, Clock(exchange_.first));
  read.value + 1 == clock.value ? client_.wait_all() : client_.wait_all_of_version(read);
}

void ExchangeWorker::push_step(Clock clock, std::uint32_t extra_flags) {
  const int n = plan_.size();
  if (row_worker_ && wanted_ != clock)
    row_worker_->want(clock, exchange_.flush.read_by(clock, Clock(exchange_.first)));
  wait_to_read(clock);
  if (exchange_.before_step) exchange_.before_step(client_.worker(), clock);
  for (int k = 0; k < n; ++k) {  // workers take buckets in different orders
    const Bucket& bucket = plan_[BucketId((k + client_.worker().value) % n)];
    if (!bucket.is_pushed()) continue;
    for (std::size_t leaf = 0; leaf < sums_.leaves.size(); ++leaf) compute(bucket, leaf, clock);
    client_.progress();
    let_go(clock);
    if (goes_encoded(bucket, clock)) {
      client_.push(bucket.id, clock, flags_ | extra_flags, coder_);
    } else {
      client_.push(bucket.id, clock, flags_ | extra_flags);
    }
  }
  if (row_worker_) {
    let_go(clock);
    row_worker_->push(clock, flags_ | extra_flags);
  }
  StepReport report;
  for (int leaf = leaves_.begin; leaf < leaves_.end; ++leaf)
    report.leaves.push_back(
        {exchange_.loss ? exchange_.loss(clock) : leaf + 0.5, static_cast<double>(leaf), 2});
  client_.send_to_coordinator(make_header(MessageType::step_report, client_.worker().value, clock),
                              to_binary(report));
  // Some ask before their step is over, others when the next one begins.
  if (!row_worker_ || (exchange_.pulls_at_flushes && exchange_.flush.is_flush(clock)) ||
      clock.value % 3 == client_.worker().value % 2 || clock.value >= exchange_.steps)
    return;
  wanted_ = Clock(clock.value + 1);
  row_worker_->want(wanted_, exchange_.flush.read_by(wanted_, Clock(exchange_.first)));
}

Digest ExchangeWorker::run() {
  client_.pull_all(Clock(exchange_.first));
  client_.wait_all();
  memory_.spread_values(memory_.set_of(Clock(exchange_.first)));
  for (Clock clock(exchange_.first + 1); clock.value <= exchange_.steps; ++clock.value) {
    push_step(clock, exchange_.ack_last && clock.value == exchange_.steps ? kFlagAck : 0);
    if (!exchange_.pulls_at_flushes || !exchange_.flush.is_flush(clock)) continue;
    client_.wait_all();
    client_.pull_all(clock);
    client_.wait_all();
  }
  return finish();
}

Digest ExchangeWorker::finish() {
  client_.wait_all();
  if (exchange_.ack_last) {
    client_.pull_all(Clock(exchange_.steps));
    client_.wait_all();
  }
  client_.pull_full(Clock(exchange_.steps));
  client_.wait_all();
  ValuesHash hash(exchange_.variables);
  for (std::size_t i = 0; i < exchange_.variables.size(); ++i) {
    const int set = memory_.set_of(Clock(exchange_.steps));
    add_values(exchange_.variables[i], memory_.value(static_cast<int>(i), set).bytes(), hash);
  }
  while (exchange_.waits_for_last_save &&
         !PosixFs().exists(exchange_.checkpoint_dir + "/" + step_name(exchange_.steps))) {
    client_.progress();
    std::this_thread::yield();
  }
  client_.send_to_coordinator(
      make_header(MessageType::finished, client_.worker().value, Clock(exchange_.steps)), "");
  client_.wait_shutdown();
  return hash.finish();
}

ExchangeServer::ExchangeServer(Transport& transport, const ClusterMap& cluster, const Exchange& e,
                               ServerId server)
    : fs_(e.fs != nullptr ? *e.fs : posix_),
      plan_(BucketPlan::make(e.variables, cluster.n_servers())),
      rows_(RowPlan::make(e.variables, cluster.n_servers())) {
  ServerRank::Parts parts{.transport = transport,
                          .cluster = cluster,
                          .variables = e.variables,
                          .plan = plan_,
                          .id = server,
                          .optimizer = e.optimizer,
                          .fill = [&](ParameterShard& shard, TableShards& tables) { fill(shard, tables, e); },
                          .start_id = "test",
                          .stall_timeout_s = e.server_stall_s,
                          .limits = e.limits,
                          .histogram_every_steps = e.histogram_every_steps,
                          .rows = &rows_,
                          .seed = e.seed,
                          .rule = {.delay = e.flush.delay},
                          .first = Clock(e.first),
                          .flush = e.flush};
  if (!e.checkpoint_dir.empty()) {
    CheckpointConfig config;
    config.every_steps = e.every_steps;
    config.when_busy = e.when_busy;
    parts.saves.emplace(ServerRank::Saves{fs_, e.checkpoint_dir, config, e.snapshot});
  }
  if (server == ServerId(0)) {
    parts.control.emplace(ServerRank::Control{
        TrainPlan{.first = Clock(e.first), .last = Clock(e.steps), .steps_per_epoch = 2, .flush = e.flush},
        *this,
        {},
        {},
        e.on_nan});
  }
  server_.emplace(parts);
}

void ExchangeServer::fill(ParameterShard& shard, TableShards& tables, const Exchange& e) {
  if (e.first == 0) return shard.initialize(e.seed);
  const std::string path = e.checkpoint_dir + "/" + step_name(e.first);
  CheckpointReader::open(fs_, path).check_model(e.variables, Optimizer(e.optimizer).slot_names(),
                                                to_string(e.optimizer.type));
  restore_shard(shard, fs_, {path, Clock(e.first)});
  restore_tables(tables, fs_, {path, Clock(e.first)});
}

void ExchangeServer::on_checkpoint_failed(Clock clock, const std::string& why) {
  fmt::print(stderr, "the checkpoint of step {} was given up: {}\n", clock.value, why);
}

ExchangeResult run_over_loopback(const Exchange& e, int n_servers, int n_workers, int n_leaves,
                                 LoopbackFaults faults) {
  const ClusterMap cluster = assign_roles(
      std::vector<std::string>(static_cast<std::size_t>(n_servers + n_workers), "host"), n_servers, n_leaves);
  LoopbackHub hub(n_servers + n_workers, faults);
  ExchangeResult result;
  result.worker_hash = IdVector<WorkerId, Digest>(n_workers);
  std::mutex mutex;  // of the bytes
  // A rank that is stopped notices nothing.
  Exchange stopped = e;
  stopped.server_stall_s = stopped.worker_stall_s = 3600;
  const auto run_rank = [&](Rank rank) {
    const Exchange& mine = faults.silent_rank == rank ? stopped : e;
    const auto transport = hub.endpoint(rank);
    if (const auto worker = cluster.worker_at(rank)) {
      ExchangeWorker exchange(*transport, cluster, mine, *worker);
      const AbortOnFailure guard(hub);
      result.worker_hash[*worker] = exchange.run();
      if (worker->value == 0) result.values = exchange.values();
      const std::lock_guard lock(mutex);
      result.bytes_up += transport->stats().bytes_sent;
      return;
    }
    ExchangeServer server(*transport, cluster, mine, *cluster.server_at(rank));
    const AbortOnFailure guard(hub);
    server.run();
    {
      const std::lock_guard lock(mutex);
      result.bytes_down += transport->stats().bytes_sent;
    }
    if (!server.finished()) return;
    result.hash = server.finished()->values_hash;
    result.steps = server.steps();
    result.finish = server.finished();
    result.not_finite = server.not_finite();
    result.histograms = server.histograms();
  };
  result.error = run_ranks(hub, n_servers + n_workers, run_rank);
  return result;
}

}  // namespace varscope::testing
