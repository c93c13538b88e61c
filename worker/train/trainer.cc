#include "worker/train/trainer.h"

#include <algorithm>
#include <cstring>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "worker/graph/numerics.h"
#include "worker/ops/metric_ops.h"
#include "worker/ops/normalization.h"

namespace varscope {
Trainer::Trainer(const Parts& parts)
    : parts_(parts),
      executor_(parts.model.graph, parts.model.loss, parts.train.largest_part(),
                {.also = parts.model.also()}),
      states_(parts.model.graph, static_cast<int>(parts.sum_plan.leaves.size()), parts.train.largest_part(),
              static_cast<std::uint64_t>(parts.job.job.seed)),
      tables_({parts.model.graph, executor_, parts.variables, parts.client, parts.sum_plan}),
      coder_(parts.client.plan(), parts.memory,
             parts.rule.is_bsp() ? static_cast<int>(parts.sum_plan.leaves.size()) : 1),
      coded_pushes_({parts.client, coder_, parts.flush, planned_steps(parts)}),
      server_rows_(parts.client, parts.variables),
      pending_(parts.client.plan().size()),
      read_(parts.first) {
  const std::size_t n_batches = tables_.empty() ? 1 : parts.sum_plan.leaves.size();
  for (std::size_t i = 0; i < n_batches; ++i)
    batches_.emplace_back(parts.train.spec(), parts.job.model.dtype, parts.train.largest_part());
  const BucketPlan& plan = parts_.client.plan();
  for (std::size_t i = 0; i < parts_.variables.size(); ++i) {
    const auto at = static_cast<std::size_t>(parts_.variables[i]->index());
    table_index_.resize(std::max(table_index_.size(), at + 1), -1);
    table_index_[at] = static_cast<int>(i);
  }
  for (const Executor::ForwardStep& step : executor_.forward_steps()) {
    std::vector<BucketId> buckets;
    for (const Variable* v : step.reads) {
      if (v->is_local()) continue;
      for (BucketId id : plan.of_variable(table_index(*v))) buckets.push_back(id);
    }
    reads_.push_back(std::move(buckets));
  }
  for (const Bucket& bucket : plan.buckets()) {
    std::vector<int> variables;
    variables.reserve(bucket.slices.size());
    for (const BucketSlice& s : bucket.slices) variables.push_back(s.variable);
    std::sort(variables.begin(), variables.end());
    const auto end = std::unique(variables.begin(), variables.end());
    pending_[bucket.id].n_variables = static_cast<int>(end - variables.begin());
  }
  const ClipConfig& clip = parts_.job.optimizer.clip;
  if (!parts_.rule.is_bsp() && clip.needs_norms())
    clip_.emplace(PushClip::Parts{clip, parts_.job.train.on_nan, plan, parts_.memory, tables_, parts_.warn});
  bind_memory(0, parts_.first);
  if (parts_.check_numerics) executor_.check_numerics();
  if (parts_.profile) executor_.profile();
  check_statistics(parts_.model.graph, parts_.job.train.batch, parts_.cluster.logical_workers);
  load_locals();
  if (parts_.test == nullptr) return;
  evaluator_.emplace(parts_.job, *parts_.evaluation, *parts_.test);
  evaluator_->set_rows(server_rows_);
  if (parts_.check_numerics) evaluator_->executor().check_numerics();
}

// The values that step `clock` reads, and the gradient buffer of a leaf of the sum plan.
void Trainer::bind_memory(int buffer, Clock clock) {
  const int set = parts_.memory.set_of(read_), gradients = parts_.memory.buffer_of(buffer, clock);
  for (std::size_t i = 0; i < parts_.variables.size(); ++i) {
    const Variable& v = *parts_.variables[i];
    const int index = static_cast<int>(i);
    executor_.bind(v, parts_.memory.value(index, set), parts_.memory.gradient(gradients, index));
  }
}

RunEnd Trainer::run() {
  meet(parts_.first, parts_.evaluate_first ? Evaluates::yes : Evaluates::no);
  const Clock done = parts_.rule.is_bsp() ? run_steps() : run_tickets();
  const bool is_stopped = (flags_ & kFlagStop) != 0;
  if (parts_.train.is_stream() && parts_.test != nullptr && !is_stopped) evaluate(done);
  parts_.client.wait_all();
  if (parts_.check_numerics) check_values(done);
  parts_.client.send_to_coordinator(make_header(MessageType::finished, parts_.client.worker().value, done),
                                    state_text(done));
  parts_.client.wait_shutdown();
  return is_stopped ? RunEnd::stopped : RunEnd::finished;
}

// All workers read the same values. Evaluations read them in full.
void Trainer::meet(Clock clock, Evaluates evaluates) {
  parts_.rule.is_bsp() ? parts_.client.pull_all(clock) : parts_.client.pull_all_full(clock);
  parts_.client.wait_all();
  parts_.memory.spread_values(parts_.memory.set_of(clock));  // what is never pushed comes once
  start_times();
  if (evaluates == Evaluates::yes) evaluate(clock);
  parts_.client.round_values(clock);
}

// Returns the last step.
Clock Trainer::run_steps() {
  Clock done = parts_.first;
  bool was_evaluated = true;
  while ((flags_ & kFlagStop) == 0 && goes_on(done, was_evaluated)) {
    if (parts_.rule.has_backups()) {
      done = train_counted_step(Clock(done.value + 1));
    } else {
      ++done.value;
      train_step(done);
    }
    was_evaluated = evaluates_after(done);
    if (was_evaluated) evaluate(done);
  }
  return done;
}

// Whether there is a step after this one.
bool Trainer::goes_on(Clock done, bool was_evaluated) {
  if (done >= parts_.last) return false;
  const Clock next(done.value + 1);
  if (parts_.job.train.stop && was_evaluated && !may_train(next)) return false;
  return await_data(next);
}

void Trainer::take_feeds() {
  for (const FedFile& file : parts_.client.take_feeds()) parts_.train.add(file);
}

// Waits until the step's samples are known. False where the run ends before this step. Server 0 sends a file
// before the go of its first step: a go without a file is that of no step.
bool Trainer::await_data(Clock clock) {
  take_feeds();
  while (!parts_.train.knows(clock)) {
    parts_.client.wait_feed();
    take_feeds();
    if (!parts_.train.knows(clock) && parts_.client.is_let_go()) {
      if (may_train(clock))
        fail(ErrorKind::protocol, "step {} was let go, but no file has come for it", clock.value);
      return false;
    }
  }
  const std::int64_t started = now_ns();
  parts_.train.prepare(clock);
  data_ns_ += now_ns() - started;
  return true;
}

// Where evaluations decide whether training goes on, a step begins when it is let go, not before.
bool Trainer::may_train(Clock clock) {
  if (parts_.rule.has_backups()) return may_compute(clock);
  flags_ = parts_.client.wait_go(clock);
  released_ = true;
  start_times();
  return (flags_ & kFlagEnd) == 0;
}

// After the last update, which no forward pass has read.
void Trainer::check_values(Clock clock) const {
  for (std::size_t i = 0; i < parts_.variables.size(); ++i) {
    const auto bad = find_not_finite(parts_.memory.value(static_cast<int>(i), parts_.memory.set_of(clock)));
    if (!bad) continue;
    fail(ErrorKind::not_finite, "step {}: the update made {} at element {} of variable \"{}\"", clock.value,
         bad->what, bad->element, parts_.variables[i]->name());
  }
}

void check_statistics(const Graph& graph, std::int64_t batch, std::int64_t logical_workers) {
  const std::int64_t samples = std::max<std::int64_t>(1, batch / logical_workers);
  for (std::size_t i = 0; i < graph.size(); ++i) {
    const Graph::Node& node = graph.node(NodeId(static_cast<int>(i)));
    for (std::size_t input = 0; input < node.inputs.size(); ++input) {
      if (node.kind != Graph::Kind::op || !node.op->is_statistic(input)) continue;
      const Shape x = with_batch(graph.node(node.inputs.front()).type.shape, samples);
      const std::int64_t rows = x.n_elements() / x[x.rank() - 1];
      if (rows >= ops::kLeastBatchNormRows) continue;
      fail(ErrorKind::config,
           "{}: node \"{}\" ({}) takes its statistics from the rows of one logical worker, and needs at "
           "least 2; train.batch {} in {} logical workers leaves {}: raise the one or lower the other "
           "(cluster.logical_workers)",
           node.made_at, node.name, node.op->type(), batch, logical_workers, rows);
    }
  }
}

std::string Trainer::profile() const { return profile_text(parts_.model.graph, executor_.times()); }

bool Trainer::evaluates_after(Clock clock) const {
  const std::int64_t every = parts_.job.train.eval_every_epochs;
  if (parts_.test == nullptr || every == 0 || parts_.train.is_stream()) return false;
  const std::optional<std::int64_t> per_epoch = parts_.train.steps_per_pass();
  return clock == parts_.last ||
         (per_epoch && clock.value % *per_epoch == 0 && clock.value / *per_epoch % every == 0);
}

void Trainer::train_step(Clock clock) {
  read_ = parts_.flush.read_by(clock, parts_.first);
  if (parts_.train.begins_pass(clock)) states_.reset();
  if (!tables_.empty() && wanted_ != clock) want_rows(clock);
  std::vector<BatchSums> sums = run_logical_workers(clock);
  if (!tables_.empty()) {
    wait_go(clock);
    tables_.push(clock, flags_);
  }
  report_step(clock, std::move(sums));
  released_ = false;
  if (!tables_.empty() && asks_early(clock)) want_rows(Clock(clock.value + 1));
}

std::vector<BatchSums> Trainer::run_logical_workers(Clock clock) {
  for (PendingBucket& b : pending_) b.n_missing = b.n_variables;
  if (measures_norms(clock)) coder_.start_norms();
  std::vector<BatchSums> sums;
  sums.reserve(parts_.sum_plan.leaves.size());
  for (std::size_t i = 0; i < parts_.sum_plan.leaves.size(); ++i)
    sums.push_back(run_logical_worker(i, clock));
  return sums;
}

// Of this worker's logical worker among those of all. Where leaves stay with their worker it is known before
// the first ticket: what they carry over a text is read back then.
int Trainer::global_number(std::size_t logical_worker) const {
  const int begin =
      parts_.rule.is_dynamic() ? ticket_.leaf_begin : parts_.cluster.leaves_of(parts_.client.worker()).begin;
  return begin + static_cast<int>(logical_worker);
}

BatchSums Trainer::run_logical_worker(std::size_t logical_worker, Clock clock) {
  const int v = global_number(logical_worker);
  const std::int64_t n = parts_.train.part(clock, v).size();
  const std::int64_t n_all = parts_.rule.is_bsp() ? parts_.train.batch_size(clock) : ticket_.n_samples;
  bind_memory(parts_.sum_plan.leaves[logical_worker].buffer, clock);
  if (n == 0) {
    ask_for_next(logical_worker);
    // A last short batch may leave a logical worker without samples: its gradient is zero, and is pushed like
    // any other.
    parts_.rule.delay > 0 ? wait_to_read_all(clock) : parts_.client.wait_all();
    parts_.memory.zero_gradients(
        parts_.memory.buffer_of(parts_.sum_plan.leaves[logical_worker].buffer, clock));
    for (const Variable* variable : parts_.variables) {
      if (variable->spec().is_pushed()) finish_variable(*variable, logical_worker, clock);
    }
    tables_.finish(logical_worker);
    return {};
  }
  Batch& batch = batches_[tables_.empty() ? 0 : logical_worker];
  if (tables_.empty()) read(batch, v, clock);
  executor_.set_batch(n);
  feed(batch.view(n));
  tables_.bind(executor_, logical_worker);
  executor_.set_run({static_cast<std::uint64_t>(parts_.job.job.seed), clock.value, v,
                     static_cast<double>(n) / static_cast<double>(n_all)});
  states_.bind(executor_, static_cast<int>(logical_worker));
  forward(logical_worker == 0);
  if (is_left_behind()) return {};
  const BatchSums sums = sums_of_batch(n);
  // As many as there are, without weights.
  const double all = parts_.rule.is_bsp() ? parts_.train.batch_weight(clock) : ticket_.weight;
  backward(logical_worker, clock, 1.0 / (all * static_cast<double>(parts_.model.loss_divisor)));
  tables_.finish(logical_worker);
  // Samples that are no sequences have nothing to carry over.
  if (parts_.train.is_sequential()) states_.advance(static_cast<int>(logical_worker));
  return sums;
}

// The step's n samples of logical worker v.
void Trainer::read(Batch& batch, int v, Clock clock) {
  const std::int64_t started = now_ns();
  parts_.train.prepare(clock);
  if (parts_.train.is_stream() && batch.spec() != parts_.train.spec())
    batch = Batch(parts_.train.spec(), parts_.job.model.dtype, parts_.train.largest_part());
  parts_.train.next(clock, v, batch);
  data_ns_ += now_ns() - started;
}

void Trainer::feed(const BatchView& samples) {
  weight_ = samples.total_weight();
  for (const auto& [node, values] : parts_.model.feeds(samples)) executor_.feed(node, values);
}

// A step's samples come first: servers are asked once for the rows of all.
void Trainer::want_rows(Clock clock) {
  tables_.clear();
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    const int v = global_number(i);
    const std::int64_t n = parts_.train.part(clock, v).size();
    if (n == 0) continue;
    read(batches_[i], v, clock);
    const std::int64_t started = now_ns();
    tables_.add(i, parts_.model.feeds(batches_[i].view(n)));
    data_ns_ += now_ns() - started;
  }
  tables_.want(parts_.flush.read_by(clock, parts_.first));
  wanted_ = clock;
}

// After step `clock` the rows of the next one are asked for at once, while servers still apply this one: they
// answer when they have. An evaluation in between comes first, and may be the end.
bool Trainer::asks_early(Clock clock) {
  take_feeds();
  const bool is_last = clock >= parts_.last || (flags_ & kFlagStop) != 0;
  return parts_.job.cluster.early_requests && !is_last && !evaluates_after(clock) &&
         parts_.train.knows(Clock(clock.value + 1));
}

void Trainer::wait_go(Clock clock) {
  if (released_) return;
  flags_ = parts_.client.wait_go(clock);
  released_ = true;
}

void Trainer::forward(bool wait_for_values) {
  std::size_t i = 0;
  for (const Executor::ForwardStep& step : executor_.forward_steps()) {
    if (wait_for_values) {
      for (BucketId id : reads_[i]) wait_to_read(id);
    }
    ++i;
    executor_.forward(step);
    parts_.client.progress();
    if (is_left_behind()) return;
  }
}

void Trainer::wait_to_read(BucketId id) {
  parts_.rule.is_bsp() ? parts_.client.wait_version(id, read_)
                       : parts_.client.wait_for_step(id, ticket_.step);
}

// With a delay the pushes of steps in between are still under way, but not across a flush. What has been
// waited for of step clock - 1 - delay has also left the gradient buffers, which this step takes.
void Trainer::wait_to_read_all(Clock clock) {
  if (!parts_.rule.is_bsp()) return parts_.client.wait_all_for_step(ticket_.step);
  read_.value + 1 == clock.value ? parts_.client.wait_all() : parts_.client.wait_all_of_version(read_);
}

BatchSums Trainer::sums_of_batch(std::int64_t rows) {
  const std::optional<NodeId> correct = parts_.model.correct;
  double penalty = 0;
  for (const NodeId id : parts_.model.penalties) penalty += executor_.value(id).as<double>()[0];
  return {parts_.model.shown_loss(executor_.value(parts_.model.loss).as<double>()[0], penalty),
          correct ? ops::count_of(executor_.value(*correct)) : 0, rows * parts_.model.targets_per_sample,
          weight_ * static_cast<double>(parts_.model.targets_per_sample)};
}

void Trainer::backward(std::size_t logical_worker, Clock clock, double scale) {
  // A variable that forward did not read may still be on its way.
  if (logical_worker == 0) wait_to_read_all(clock);
  ask_for_next(logical_worker);
  executor_.start_backward(scale);
  for (const Executor::BackwardStep& step : executor_.backward_steps()) {
    executor_.backward(step);
    for (const Variable* v : step.finished) finish_variable(*v, logical_worker, clock);
    parts_.client.progress();
    if (is_left_behind()) return;
  }
}

// Only the last logical worker's gradient completes a bucket; the earlier ones are summed when their backward
// is over, or encoded.
void Trainer::finish_variable(const Variable& variable, std::size_t logical_worker, Clock clock) {
  const bool is_last = logical_worker + 1 == parts_.sum_plan.leaves.size();
  const bool is_awaited = is_last || !parts_.sum_plan.leaves[logical_worker].merges.empty();
  for (BucketId id : parts_.client.plan().of_variable(table_index(variable))) {
    if (!is_awaited && !is_coded_by_leaf(parts_.client.plan()[id])) continue;
    PendingBucket& pending = pending_[id];
    if (--pending.n_missing > 0) continue;
    pending.n_missing = pending.n_variables;
    finish_bucket(parts_.client.plan()[id], logical_worker, clock);
  }
}

void Trainer::finish_bucket(const Bucket& bucket, std::size_t logical_worker, Clock clock) {
  if (is_coded_by_leaf(bucket)) code_gradient(bucket, logical_worker, clock);
  const bool is_encoded = leaf_goes_encoded(bucket, clock);
  for (const LocalSumPlan::Merge& m : parts_.sum_plan.leaves[logical_worker].merges) {
    if (!is_encoded) {
      parts_.memory.add_gradients(bucket, parts_.memory.buffer_of(m.into, clock),
                                  parts_.memory.buffer_of(m.from, clock));
    }
  }
  if (logical_worker + 1 < parts_.sum_plan.leaves.size()) return;
  if (clip_) return;  // until all buckets are finished
  if (!parts_.rule.is_bsp()) return push_of_ticket(bucket);
  if (parts_.rule.has_backups()) return;  // until it is known whether it counts
  wait_go(clock);
  if (is_encoded) return parts_.client.push(bucket.id, clock, flags_, coder_);
  parts_.client.push(bucket.id, clock, flags_);
}

void Trainer::report_step(Clock clock, std::vector<BatchSums> sums) {
  const bool is_bsp = parts_.rule.is_bsp();
  if (is_bsp) wait_go(clock);  // a model without trainable variables pushes nothing
  // Any step of a stream may be the last one for a while, and be saved after it has ended.
  const bool has_state = (is_bsp ? (flags_ & kFlagCut) != 0 : ticket_.is_cut) || parts_.train.is_stream();
  StepReport report{std::move(sums), {}, has_state ? state_text(clock) : ""};
  report.compression = parts_.client.take_traffic();
  report.compression.residuals = coder_.take_norms();
  WorkerTimes& t = report.times;
  t.wait_ns = parts_.client.take_wait_ns();
  t.gate_ns = parts_.client.take_gate_ns();
  t.communicate_ns = parts_.client.take_communicate_ns();
  t.data_ns = std::exchange(data_ns_, 0);
  // All of it since the last report, or the parts would not add up to the whole.
  const std::int64_t now = now_ns();
  const std::int64_t all = now - std::exchange(reported_ns_, now);
  t.compute_ns = std::max<std::int64_t>(0, all - t.wait_ns - t.communicate_ns - t.data_ns);
  MessageHeader header = make_header(MessageType::step_report, parts_.client.worker().value, clock);
  header.leaf_begin = global_number(0);
  header.flags = parts_.requests != nullptr ? parts_.requests->take() : 0;
  parts_.client.send_to_coordinator(header, to_binary(report));
}

std::string Trainer::state_text(Clock clock) const {
  const SourcePosition next = parts_.train.position(clock);
  WorkerState state{parts_.client.worker().value,
                    clock.value,
                    next.epoch,
                    next.next,
                    next.samples,
                    static_cast<std::uint64_t>(parts_.job.job.seed),
                    save_locals(clock)};
  return to_text(state);
}

// After step `clock`. At the end of an epoch the states start anew: nothing to save.
std::vector<LocalRows> Trainer::save_locals(Clock clock) const {
  std::vector<LocalRows> rows;
  const bool ends_pass = parts_.train.begins_pass(Clock(clock.value + 1));
  if (states_.empty() || !parts_.train.is_sequential() || ends_pass) return rows;
  for (std::size_t i = 0; i < parts_.sum_plan.leaves.size(); ++i) {
    const Range part = parts_.train.part(clock, global_number(i));
    states_.save(static_cast<int>(i), part.begin, part.size(), rows);
  }
  return rows;
}

void Trainer::load_locals() {
  if (states_.empty() || !parts_.train.is_sequential() || parts_.first.value == 0) return;
  if (parts_.train.begins_pass(Clock(parts_.first.value + 1))) return;
  for (std::size_t i = 0; i < parts_.sum_plan.leaves.size(); ++i) {
    const Range part = parts_.train.part(parts_.first, global_number(i));
    states_.load(static_cast<int>(i), part.begin, part.size(), parts_.locals);
  }
}

// The test set's batches, dealt out in turn; the coordinator sums them in their order.
void Trainer::evaluate(Clock clock) {
  const std::int64_t started = now_ns();
  parts_.client.wait_all();
  if (parts_.rule.is_bsp()) parts_.client.pull_full(clock);  // else they have come in full
  parts_.client.wait_all();
  for (std::size_t i = 0; i < parts_.variables.size(); ++i) {
    evaluator_->executor().bind(*parts_.variables[i],
                                parts_.memory.value(static_cast<int>(i), parts_.memory.set_of(clock)));
  }
  server_rows_.set_clock(clock);
  EvalReport report = evaluator_->run(parts_.client.worker().value, parts_.cluster.n_workers(),
                                      [this] { parts_.client.progress(); });
  parts_.client.round_values(clock);
  report.eval_ns = now_ns() - started;
  parts_.client.send_to_coordinator(
      make_header(MessageType::eval_report, parts_.client.worker().value, clock), to_binary(report));
  start_times();
}

// What has been spent until now belongs to no step.
void Trainer::start_times() {
  parts_.client.take_wait_ns();
  parts_.client.take_gate_ns();
  parts_.client.take_communicate_ns();
  data_ns_ = 0;
  reported_ns_ = now_ns();
}

}  // namespace varscope
