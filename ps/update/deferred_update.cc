#include "ps/update/deferred_update.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/placement/cluster.h"
#include "common/transport/wire.h"
#include "ps/update/update_kernels.h"

namespace varscope {
namespace {

bool needs_gradient_memory(const Bucket& bucket, const ClipConfig& clip) {
  return bucket.trainable && clip.needs_norms();
}

std::byte* element(std::byte* memory, const Bucket& bucket, std::int64_t index) {
  return memory + index * static_cast<std::int64_t>(size_of(bucket.dtype));
}

}  // namespace

DeferredUpdate::Wait::Wait(const NormPlan& norms, Transport& transport, const ClusterMap& cluster,
                           const ParameterShard& shard, NormKind kind, FiniteWatch& watch)
    : plan(norms), exchange(transport, cluster, plan, shard.server(), kind) {
  if (shard.server() == ServerId(0))
    reducer.emplace(transport, cluster, shard.variables(), plan, kind, watch);
  n_terms = std::ranges::count(plan.terms(), shard.server(), &NormTerm::server);
  n_left = n_terms;
}

DeferredUpdate::DeferredUpdate(Transport& transport, const ClusterMap& cluster, const BucketPlan& plan,
                               const Optimizer& optimizer, ParameterShard& shard, Updater& updater,
                               FiniteWatch& watch)
    : plan_(plan),
      shard_(shard),
      updater_(updater),
      watch_(watch),
      buckets_(plan.size()),
      gradients_(NormPlan::of_gradients(shard.variables(), optimizer.config().clip, cluster.n_servers()),
                 transport, cluster, shard, kNormsOfGradients, watch),
      values_(NormPlan::of_values(shard.variables(), cluster.n_servers()), transport, cluster, shard,
              kNormsOfValues, watch) {
  for (const NormTerm& term : gradients_.plan.terms()) {
    const bool is_table = shard.variables()[static_cast<std::size_t>(term.variable)].is_table();
    if (is_table && term.server == shard.server() && (tables_.empty() || tables_.back() != term.variable))
      tables_.push_back(term.variable);
  }
  for (BucketId id : shard.buckets()) {
    const Bucket& bucket = plan[id];
    BucketState& state = state_of(id);
    if (needs_gradient_memory(bucket, optimizer.config().clip)) {
      state.gradient = allocate_aligned(static_cast<std::size_t>(bucket.n_bytes()));
      std::memset(state.gradient.get(), 0, static_cast<std::size_t>(bucket.n_bytes()));  // touches the pages
    }
    for (std::size_t i = 0; i < bucket.slices.size(); ++i) {
      const BucketSlice& slice = bucket.slices[i];
      if (values_.plan.find(slice.variable, slice.index) != nullptr)
        state.held_slices.push_back(static_cast<int>(i));
    }
  }
}

std::int64_t DeferredUpdate::gradient_bytes(const BucketPlan& plan, const ClipConfig& clip, ServerId server) {
  std::int64_t n = 0;
  for (BucketId id : plan.of_server(server)) {
    if (needs_gradient_memory(plan[id], clip)) n += plan[id].n_bytes();
  }
  return n;
}

void DeferredUpdate::keep(BucketId id, int chunk, const std::byte* sum) {
  const WireChunk part = plan_[id].wire_chunk(chunk);
  std::memcpy(state_of(id).gradient.get() + part.begin, sum, static_cast<std::size_t>(part.n_bytes));
}

void DeferredUpdate::round_ended(BucketId id) {
  if (!keeps_gradient(id)) return add_sum_tasks(id);
  for (std::size_t i = 0; i < plan_[id].slices.size(); ++i)
    tasks_.push_back({Work::square, id, static_cast<int>(i)});
}

void DeferredUpdate::add_sum_tasks(BucketId id) {
  for (int slice : state_of(id).held_slices) tasks_.push_back({Work::sum_groups, id, slice});
}

void DeferredUpdate::on_message(const Message& message) {
  const std::uint32_t kind = message.header.flags;
  const bool is_sums = type_of(message.header) == MessageType::norm_sums;
  if (kind != kNormsOfGradients && kind != kNormsOfValues) {
    fail(ErrorKind::protocol, "rank {} sent {} of the unknown kind {}", message.from.value,
         to_string(type_of(message.header)), kind);
  }
  Wait& wait = kind == kNormsOfGradients ? gradients_ : values_;
  if (is_sums && !wait.reducer) {
    fail(ErrorKind::protocol, "rank {} sent server {} {}, which go to server 0", message.from.value,
         shard_.server().value, to_string(type_of(message.header)));
  }
  if (is_sums) return wait.reducer->on_sums(message);
  if (!wait.exchange.on_scales(message)) return;
  kind == kNormsOfGradients ? start_updates() : start_rescaling();
}

void DeferredUpdate::start_updates() {
  for (BucketId id : shard_.buckets()) {
    if (!keeps_gradient(id)) continue;
    for (int chunk = 0; chunk < plan_[id].n_wire_chunks(); ++chunk)
      tasks_.push_back({Work::update, id, chunk});
  }
  for (const int table : tables_) {
    const NormTerm& of_any_part = *gradients_.plan.find(table, 0);
    row_updates_.push_back({table, gradients_.exchange.scales(of_any_part)[0]});
  }
}

std::optional<DeferredUpdate::RowUpdate> DeferredUpdate::next_row_update() {
  if (row_updates_.empty()) return std::nullopt;
  const RowUpdate update = row_updates_.front();
  row_updates_.pop_front();
  return update;
}

void DeferredUpdate::give_row_squares(int variable, std::span<const double> sums, Clock step) {
  std::int64_t n = 0;
  for (std::size_t part = 0; part < sums.size(); ++part) {
    const NormTerm& term = *gradients_.plan.find(variable, static_cast<std::int64_t>(part));
    if (term.server != shard_.server()) continue;
    gradients_.exchange.sums(term)[0] = sums[part];
    ++n;
  }
  terms_are_done(gradients_, n, step);
}

void DeferredUpdate::start_rescaling() {
  for (BucketId id : shard_.buckets()) {
    state_of(id).rescaled = 0;
    for (int slice : state_of(id).held_slices) tasks_.push_back({Work::rescale, id, slice});
  }
}

bool DeferredUpdate::work(std::vector<FinalChunk>& final_chunks) {
  if (tasks_.empty()) return false;
  const Task task = tasks_.front();
  tasks_.pop_front();
  const Bucket& bucket = plan_[task.bucket];
  const auto slice = [&]() -> const BucketSlice& {
    return bucket.slices[static_cast<std::size_t>(task.index)];
  };
  switch (task.work) {
    case Work::square:
      square(bucket, slice());
      break;
    case Work::update:
      update(bucket, task.index, final_chunks);
      break;
    case Work::sum_groups:
      sum_groups(bucket, slice());
      break;
    case Work::rescale:
      rescale(bucket, slice(), final_chunks);
      break;
  }
  return true;
}

void DeferredUpdate::terms_are_done(Wait& wait, std::int64_t n, Clock step) {
  wait.n_left -= n;
  if (wait.n_left > 0) return;
  wait.n_left = wait.n_terms;
  wait.exchange.send(step);
}

void DeferredUpdate::square(const Bucket& bucket, const BucketSlice& slice) {
  const std::byte* gradient = element(state_of(bucket.id).gradient.get(), bucket, slice.bucket_begin);
  double& sum = gradients_.exchange.sums(*gradients_.plan.find(slice.variable, slice.index))[0];
  with_real(bucket.dtype, [&]<class T>(T) {
    sum = kernels::sum_of_squares(reinterpret_cast<const T*>(gradient), slice.n_elements);
  });
  term_is_done(gradients_, bucket.id);
}

void DeferredUpdate::update(const Bucket& bucket, int chunk, std::vector<FinalChunk>& final_chunks) {
  const WireChunk part = bucket.wire_chunk(chunk);
  const std::int64_t begin = part.first_element, n = part.n_elements;
  std::byte* memory = state_of(bucket.id).gradient.get();
  for_each_slice_in(bucket, begin, n, [&](const BucketSlice& slice, std::int64_t from, std::int64_t count) {
    const double factor = gradients_.exchange.scales(*gradients_.plan.find(slice.variable, slice.index))[0];
    if (factor == 1) return;
    with_real(bucket.dtype, [&]<class T>(T) {
      kernels::scale(reinterpret_cast<T*>(element(memory, bucket, from)), static_cast<T>(factor), count);
    });
  });
  updater_.update(bucket.id, begin, n, element(memory, bucket, begin), UpdateStep::whole(step_of(bucket.id)));
  if (state_of(bucket.id).held_slices.empty()) {
    final_chunks.push_back({bucket.id, chunk});
  } else if (chunk + 1 == bucket.n_wire_chunks()) {
    add_sum_tasks(bucket.id);
  }
}

void DeferredUpdate::sum_groups(const Bucket& bucket, const BucketSlice& slice) {
  const NormTerm& term = *values_.plan.find(slice.variable, slice.index);
  const std::span<double> sums = values_.exchange.sums(term);
  const std::byte* value = element(shard_.value(bucket.id), bucket, slice.bucket_begin);
  std::ranges::fill(sums, 0.0);
  with_real(bucket.dtype, [&]<class T>(T) {
    const T* v = reinterpret_cast<const T*>(value);
    if (term.row_length > 0) {
      for (double& sum : sums) {
        sum = kernels::sum_of_squares(v, term.row_length);
        v += term.row_length;
      }
    } else if (sums.size() == 1) {
      sums[0] = kernels::sum_of_squares(v, slice.n_elements);
    } else {
      kernels::add_column_squares(sums.data(), v, static_cast<std::int64_t>(sums.size()), slice.n_elements);
    }
  });
  term_is_done(values_, bucket.id);
}

void DeferredUpdate::rescale(const Bucket& bucket, const BucketSlice& slice,
                             std::vector<FinalChunk>& final_chunks) {
  const NormTerm& term = *values_.plan.find(slice.variable, slice.index);
  const std::span<const double> scales = values_.exchange.scales(term);
  if (std::ranges::any_of(scales, [](double s) { return s != 1; })) {
    const auto item = static_cast<std::int64_t>(size_of(bucket.dtype));
    shard_.before_write(bucket.id, slice.bucket_begin * item, slice.n_elements * item);
    std::byte* value = element(shard_.value(bucket.id), bucket, slice.bucket_begin);
    with_real(bucket.dtype, [&]<class T>(T) {
      T* v = reinterpret_cast<T*>(value);
      if (term.row_length == 0) {
        kernels::scale_columns(v, scales.data(), static_cast<std::int64_t>(scales.size()), slice.n_elements);
        return;
      }
      for (const double& scale : scales) {
        if (scale != 1) kernels::scale_columns(v, &scale, 1, term.row_length);
        v += term.row_length;
      }
    });
    watch_.look(bucket.id, slice.bucket_begin, slice.n_elements, step_of(bucket.id));
  }
  BucketState& state = state_of(bucket.id);
  if (++state.rescaled < state.held_slices.size()) return;
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) final_chunks.push_back({bucket.id, chunk});
}

}  // namespace varscope
