#include "worker/trainer.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/error.h"
#include "common/serialize.h"
#include "common/wire.h"

namespace varscope {
namespace {

std::int64_t largest_batch(const Trainer::Parts& p) {
  const std::int64_t leaf = (p.job.train.batch + p.cluster.logical_workers - 1) / p.cluster.logical_workers;
  return p.test == nullptr ? leaf : std::max(leaf, std::min(p.job.train.eval_batch, p.test->size()));
}

Shape batched(const Shape& sample, std::int64_t n) {
  std::vector<std::int64_t> dims{n};
  dims.insert(dims.end(), sample.dims().begin(), sample.dims().end());
  return Shape(std::move(dims));
}

}  // namespace

Trainer::Trainer(const Parts& parts)
    : p_(parts),
      steps_per_epoch_(steps_per_epoch(parts.train.size(), parts.job.train.batch)),
      executor_(parts.model.graph, parts.model.loss, largest_batch(parts), {.also = {parts.model.correct}}),
      x_(parts.job.model.dtype, batched(parts.train.sample_shape(), largest_batch(parts))),
      y_(Dataset::kLabelDType, Shape{largest_batch(parts)}),
      pending_(static_cast<std::size_t>(parts.client.plan().size())) {
  const BucketPlan& plan = p_.client.plan();
  for (std::size_t i = 0; i < p_.variables.size(); ++i) {
    const auto at = static_cast<std::size_t>(p_.variables[i]->index());
    table_index_.resize(std::max(table_index_.size(), at + 1), -1);
    table_index_[at] = static_cast<int>(i);
  }
  for (const Executor::ForwardStep& step : executor_.forward_steps()) {
    std::vector<BucketId> buckets;
    for (const Variable* v : step.reads) {
      const int index = table_index(*v);
      for (BucketId id : plan.of_variable(index)) buckets.push_back(id);
    }
    reads_.push_back(std::move(buckets));
  }
  for (const Bucket& bucket : plan.buckets()) {
    std::vector<int> variables;
    for (const BucketSlice& s : bucket.slices) variables.push_back(s.variable);
    std::sort(variables.begin(), variables.end());
    const auto end = std::unique(variables.begin(), variables.end());
    pending_[static_cast<std::size_t>(bucket.id.value)].n_variables =
        static_cast<int>(end - variables.begin());
  }
  bind_gradients(0);
}

void Trainer::bind_gradients(int buffer) {
  for (std::size_t i = 0; i < p_.variables.size(); ++i) {
    const Variable& v = *p_.variables[i];
    const int index = static_cast<int>(i);
    executor_.bind(v, p_.memory.value(index), p_.memory.gradient(buffer, index));
  }
}

void Trainer::run() {
  p_.client.pull_all(p_.first);
  p_.client.wait_all();
  p_.client.take_wait_ns();
  for (Clock clock(p_.first.value + 1); clock <= p_.last; ++clock.value) {
    train_step(clock);
    if (evaluates_after(clock)) evaluate(clock);
  }
  p_.client.wait_all();
  p_.client.send_to_coordinator(make_header(MessageType::finished, p_.client.worker().value, p_.last),
                                state_text(p_.last));
  p_.client.wait_shutdown();
}

bool Trainer::evaluates_after(Clock clock) const {
  const std::int64_t every = p_.job.train.eval_every_epochs;
  if (p_.test == nullptr || every == 0) return false;
  return clock == p_.last ||
         (clock.value % steps_per_epoch_ == 0 && clock.value / steps_per_epoch_ % every == 0);
}

void Trainer::train_step(Clock clock) {
  step_started_ns_ = now_ns();
  const BatchRange batch = batch_at(clock.value - 1, p_.train.size(), p_.job.train.batch);
  if (order_.epoch() != batch.epoch) {
    order_ = EpochOrder(static_cast<std::uint64_t>(p_.job.job.seed), batch.epoch, p_.train.size(),
                        p_.job.train.shuffle ? Shuffle::yes : Shuffle::no);
  }
  released_ = false;
  for (PendingBucket& b : pending_) b.n_missing = b.n_variables;
  std::vector<BatchSums> leaves;
  for (std::size_t leaf = 0; leaf < p_.sum_plan.leaves.size(); ++leaf)
    leaves.push_back(run_leaf(leaf, batch, clock));
  report_step(clock, std::move(leaves));
}

BatchSums Trainer::run_leaf(std::size_t leaf, const BatchRange& batch, Clock clock) {
  const int v = p_.cluster.leaves_of(p_.client.worker()).begin + static_cast<int>(leaf);
  const Range part = logical_range(batch.begin, batch.end, v, p_.cluster.logical_workers);
  bind_gradients(p_.sum_plan.leaves[leaf].buffer);
  if (part.size() == 0) {
    // A last short batch may leave a logical worker without samples: its gradient is zero, and is pushed like
    // any other.
    p_.client.wait_all();
    p_.memory.zero_gradients(p_.sum_plan.leaves[leaf].buffer);
    for (const Variable* variable : p_.variables) {
      if (variable->spec().is_pushed()) finish_variable(*variable, leaf, clock);
    }
    return {};
  }
  fill(p_.train, order_.part(part.begin, part.end));
  forward(leaf == 0);
  const BatchSums sums = sums_of_batch(part.size());
  backward(leaf, clock, 1.0 / static_cast<double>(batch.size()));
  return sums;
}

void Trainer::fill(const Dataset& data, std::span<const std::int64_t> indices) {
  const std::int64_t started = now_ns();
  const auto n = static_cast<std::int64_t>(indices.size());
  const TensorView x(x_.dtype(), batched(data.sample_shape(), n), x_.view().bytes());
  const TensorView y(y_.dtype(), Shape{n}, y_.view().bytes());
  data.fill(indices, x, y);
  executor_.set_batch(n);
  executor_.feed(p_.model.x, x);
  executor_.feed(p_.model.y, y);
  data_ns_ += now_ns() - started;
}

void Trainer::forward(bool wait_for_values) {
  std::size_t i = 0;
  for (const Executor::ForwardStep& step : executor_.forward_steps()) {
    if (wait_for_values) {
      for (BucketId id : reads_[i]) p_.client.wait(id);
    }
    ++i;
    executor_.forward(step);
    p_.client.progress();
  }
}

BatchSums Trainer::sums_of_batch(std::int64_t samples) {
  return {executor_.value(p_.model.loss).as<double>()[0],
          executor_.value(p_.model.correct).as<std::int64_t>()[0], samples};
}

void Trainer::backward(std::size_t leaf, Clock clock, double scale) {
  if (leaf == 0) p_.client.wait_all();  // a variable that forward did not read may still be on its way
  executor_.start_backward(scale);
  for (const Executor::BackwardStep& step : executor_.backward_steps()) {
    executor_.backward(step);
    for (const Variable* v : step.finished) finish_variable(*v, leaf, clock);
    p_.client.progress();
  }
}

// Only the last logical worker's gradient completes a bucket; the earlier ones are summed when their backward
// is over.
void Trainer::finish_variable(const Variable& variable, std::size_t leaf, Clock clock) {
  const bool last_leaf = leaf + 1 == p_.sum_plan.leaves.size();
  if (!last_leaf && p_.sum_plan.leaves[leaf].merges.empty()) return;
  for (BucketId id : p_.client.plan().of_variable(table_index(variable))) {
    PendingBucket& pending = pending_[static_cast<std::size_t>(id.value)];
    if (--pending.n_missing > 0) continue;
    pending.n_missing = pending.n_variables;
    finish_bucket(p_.client.plan()[id], leaf, clock);
  }
}

void Trainer::finish_bucket(const Bucket& bucket, std::size_t leaf, Clock clock) {
  for (const LocalSumPlan::Merge& m : p_.sum_plan.leaves[leaf].merges)
    p_.memory.add_gradients(bucket, m.into, m.from);
  if (leaf + 1 < p_.sum_plan.leaves.size()) return;
  if (!released_) {
    flags_ = p_.client.wait_go(clock);
    released_ = true;
  }
  p_.client.push(bucket.id, clock, flags_);
}

void Trainer::report_step(Clock clock, std::vector<BatchSums> leaves) {
  if (!released_) flags_ = p_.client.wait_go(clock);  // a model without trainable variables pushes nothing
  StepReport report{std::move(leaves), {}, (flags_ & kFlagCut) != 0 ? state_text(clock) : ""};
  WorkerTimes& t = report.times;
  t.wait_ns = p_.client.take_wait_ns();
  t.communicate_ns = p_.client.take_communicate_ns();
  t.data_ns = std::exchange(data_ns_, 0);
  t.compute_ns = now_ns() - step_started_ns_ - t.wait_ns - t.communicate_ns - t.data_ns;
  p_.client.send_to_coordinator(make_header(MessageType::step_report, p_.client.worker().value, clock),
                                to_binary(report));
}

std::string Trainer::state_text(Clock clock) const {
  const BatchRange next = batch_at(clock.value, p_.train.size(), p_.job.train.batch);
  WorkerState state{p_.client.worker().value,
                    clock.value,
                    next.epoch,
                    next.begin,
                    p_.train.size(),
                    static_cast<std::uint64_t>(p_.job.job.seed)};
  return to_text(state);
}

// The test set in chunks of eval_batch, dealt out in turn; the coordinator sums them in chunk order.
void Trainer::evaluate(Clock clock) {
  const std::int64_t started = now_ns();
  const std::int64_t n = p_.test->size(), size = std::min(p_.job.train.eval_batch, n);
  EvalReport report;
  report.n_chunks = (n + size - 1) / size;
  p_.client.wait_all();
  std::vector<std::int64_t> indices;
  for (std::int64_t chunk = p_.client.worker().value; chunk < report.n_chunks;
       chunk += p_.cluster.n_workers()) {
    const std::int64_t begin = chunk * size, end = std::min(n, begin + size);
    indices.resize(static_cast<std::size_t>(end - begin));
    std::iota(indices.begin(), indices.end(), begin);
    fill(*p_.test, indices);
    forward(false);
    report.chunks.push_back(chunk);
    report.sums.push_back(sums_of_batch(end - begin));
  }
  report.eval_ns = now_ns() - started;
  p_.client.take_wait_ns();
  p_.client.take_communicate_ns();
  data_ns_ = 0;
  p_.client.send_to_coordinator(make_header(MessageType::eval_report, p_.client.worker().value, clock),
                                to_binary(report));
}

}  // namespace varscope
