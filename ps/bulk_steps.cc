#include "ps/bulk_steps.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/norm_kernels.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"

namespace varscope {

BulkSteps::BulkSteps(const Parts& parts)
    : parts_(parts),
      transport_(parts.transport),
      shard_(parts.shard),
      codec_(parts.transport),
      aggregator_(parts.transport, parts.plan, parts.cluster, parts.limits),
      updater_(parts.plan, parts.optimizer, parts.shard, parts.watch),
      deferred_(parts.transport, parts.cluster, parts.plan, parts.optimizer, parts.shard, updater_,
                parts.watch),
      buckets_(parts.plan.size()),
      sequence_(parts.cluster.n_workers(), 0),
      answered_(parts.cluster.workers.begin(), parts.cluster.workers.end()) {
  for (BucketId id : shard_.buckets()) n_pushed_ += parts.plan[id].is_pushed() ? 1 : 0;
  if (parts.rows != nullptr && !parts.rows->empty()) {
    rows_.emplace(RowExchange::Parts{parts.transport, parts.cluster, *parts.rows, *parts.tables,
                                     shard_.server(), parts.plan.size(), nullptr, parts.flush, parts.first});
    n_pushed_ += rows_->n_pushed();
  }
  if (parts.rule.has_backups()) {
    shared_.emplace(parts.transport, parts.plan, parts.cluster,
                    SharedAnswers::bytes_for(parts.plan, shard_.server(), parts.rule.backups));
  }
  if (parts.histogram_every_steps > 0)
    histograms_.emplace(parts.plan, parts.shard, parts.histogram_every_steps);
}

void BulkSteps::on_push(WorkerId worker, const Message& message) {
  const MessageHeader& push = message.header;
  auto& sequence = sequence_[worker];
  if (push.sequence != ++sequence) {
    fail(ErrorKind::protocol, "push {} of worker {} arrived where push {} was due", push.sequence,
         worker.value, sequence);
  }
  const Bucket& bucket = own_bucket(parts_, worker, push);
  const BucketId id = bucket.id;
  check_is_pushed(bucket, worker);
  const std::int64_t ahead = push.clock - shard_.clock(id).value;  // of the bucket's values
  if (ahead < 1 || ahead > 1 + parts_.rule.delay) {
    fail(ErrorKind::protocol, "worker {} pushed step {} of bucket {} ({}), which is at step {}", worker.value,
         push.clock, id.value, bucket.scope, shard_.clock(id).value);
  }
  check_order(worker, push, bucket.scope);
  if (shared_) take_counted(worker, message, message.body);
  BucketState& state = state_of(id);
  // The value is still being sent to somebody, and this push might complete the round that changes it: not
  // under MPI's hands. (The values of a round itself leave only when all its pushes have been announced.)
  if (ahead > 1 || state.sends_in_flight > 0) {
    state.deferred.emplace_back(worker, push);
  } else {
    announce(worker, push);
  }
}

// The first push of a step says whose gradients it is made of; all others say the same. Rounds of the step
// before have ended: check_order().
void BulkSteps::take_counted(WorkerId worker, const Message& push, std::string_view details) {
  const Clock step(push.header.clock);
  CountedPush says = CountedPush::from_bytes(details, parts_.cluster.n_workers(), push.from);
  if (!says.counted.has(worker)) {
    fail(ErrorKind::protocol, "worker {} pushed step {}, of which its own gradient does not count",
         worker.value, step.value);
  }
  if (step == counting_step_) {
    if (says == counting_) return;
    fail(ErrorKind::protocol, "worker {} pushed step {} with other counted workers or factors than another",
         worker.value, step.value);
  }
  counting_ = std::move(says);
  counting_step_ = step;
  aggregator_.count_only(counting_.counted);
  if (rows_) rows_->count_only(counting_.counted);
  answered_.clear();
  for (WorkerId w : parts_.cluster.workers.ids()) {
    if (counting_.counted.has(w)) answered_.push_back(parts_.cluster.rank_of(w));
  }
}

// From the mean over the samples of the step that count, times their share, to the mean over them.
void BulkSteps::scale_sum(const Aggregator::ReadyChunk& chunk) const {
  const Bucket& bucket = parts_.plan[chunk.bucket];
  const double factor = bucket.average_decay >= 0 ? counting_.average_scale : counting_.gradient_scale;
  if (factor == 1) return;
  with_real(bucket.dtype, [&]<class T>(T) {
    kernels::scale(reinterpret_cast<T*>(chunk.sum), static_cast<T>(factor),
                   bucket.wire_chunk(chunk.chunk).n_elements);
  });
}

// A step begins when the one before has ended in all buckets and tables, or with a delay an earlier one.
void BulkSteps::check_order(WorkerId worker, const MessageHeader& push, std::string_view what) const {
  const std::int64_t read = push.clock - 1 - parts_.rule.delay;
  if (!ended_ || read <= ended_->value) return;
  fail(ErrorKind::protocol, "worker {} pushed step {} of {} {} ({}) before it had all values of step {}",
       worker.value, push.clock, type_of(push) == MessageType::push ? "bucket" : "table", push.bucket, what,
       read);
}

// Once nothing of the bucket is being sent: the pushes of its next round, or of the one that others have
// begun.
void BulkSteps::announce_deferred(BucketId id) {
  BucketState& state = state_of(id);
  if (state.sends_in_flight > 0) return;
  const std::int64_t next = shard_.clock(id).value + 1;
  for (const auto& [worker, push] : std::exchange(state.deferred, {})) {
    if (push.clock == next) {
      announce(worker, push);
    } else {
      state.deferred.emplace_back(worker, push);
    }
  }
}

void BulkSteps::on_rows_wanted(WorkerId worker, const MessageHeader& wanted) {
  rows_->on_wanted(worker, wanted);
  apply_whole_tables();
}

void BulkSteps::on_rows_push(WorkerId worker, const Message& push) {
  check_order(worker, push.header, "rows");
  if (!shared_) {
    on_whole_table(rows_->on_push(worker, push));
    apply_whole_tables();
    return;
  }
  // Where the step is not the next one, on_push() says so.
  const TableId id(push.header.bucket);
  const bool is_next = rows_->is_known(id) && push.header.clock == rows_->clock(id).value + 1;
  const std::size_t n_details = std::min(CountedPush::n_bytes(parts_.cluster.n_workers()), push.body.size());
  if (is_next) take_counted(worker, push, std::string_view(push.body).substr(0, n_details));
  Message rest = push;
  rest.body.erase(0, n_details);
  on_whole_table(rows_->on_push(worker, rest));
}

// With a delay what has come may have been the last request that a table's pushes waited for, and where
// these are applied, those of the next step may be here.
void BulkSteps::apply_whole_tables() {
  while (const std::optional<RowExchange::Whole> whole = rows_->take_whole()) on_whole_table(whole);
}

// All gradients of a table are here: update it at once, unless norms are needed.
void BulkSteps::on_whole_table(const std::optional<RowExchange::Whole>& whole) {
  if (!whole) return;
  const TableId id = whole->table;
  if (!deferred_.keeps_rows()) return apply_table(id, 1);
  const Clock step(rows_->clock(id).value + 1);
  const std::span<const double> squares = rows_->row_squares(id);
  std::vector<double> scaled(squares.begin(), squares.end());
  for (double& s : scaled) s *= counting_.gradient_scale * counting_.gradient_scale;
  deferred_.give_row_squares(rows_->plan()[id].variable, scaled, step);
}

void BulkSteps::apply_table(TableId id, double scale) {
  const RowExchange::Applied applied = rows_->apply(id, scale * counting_.gradient_scale);
  finish_unit(applied.clock, applied.flags);
}

// One table whose scale has come; false when there is none.
bool BulkSteps::apply_scaled_table() {
  const auto update = deferred_.next_row_update();
  if (!update) return false;
  apply_table(rows_->plan().of_variable(update->variable)->id, update->scale);
  apply_whole_tables();
  return true;
}

void BulkSteps::announce(WorkerId worker, const MessageHeader& push) {
  const Bucket& bucket = parts_.plan[BucketId(push.bucket)];
  BucketState& state = state_of(bucket.id);
  if (!state.in_round) {
    state.in_round = true;
    state.flags = push.flags;
  } else if (state.flags != push.flags) {
    fail(ErrorKind::protocol, "worker {} pushed bucket {} with flags {}, another with {}", worker.value,
         push.bucket, push.flags, state.flags);
  }
  aggregator_.announce(worker, bucket, push);
}

void BulkSteps::on_pull(WorkerId worker, const MessageHeader& pull) {
  const Bucket& bucket = own_bucket(parts_, worker, pull);
  const BucketId id = bucket.id;
  // A round that others have begun does not matter: it cannot change the value without this worker's push,
  // which follows its pull. Holding the pull back for it would be a deadlock.
  // What is never pushed is as new as anybody asks for.
  const Clock clock = bucket.is_pushed() ? shard_.clock(id) : std::max(shard_.clock(id), Clock(pull.clock));
  // With backup workers the round of the next step may be that of others: they need not wait for this one.
  if (clock.value < pull.clock || (shared_ && state_of(id).in_round)) {
    held_pulls_.emplace_back(worker, pull);
    return;
  }
  const WireForm form = (pull.flags & kFlagEncoded) != 0 ? form_of_values(bucket) : WireForm::full;
  const Rank to = parts_.cluster.rank_of(worker);
  send_value_header(id, clock, to, form);
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) send_value_chunk(id, chunk, {&to, 1}, form);
}

void BulkSteps::send_value_header(BucketId id, Clock clock, Rank to, WireForm form) {
  MessageHeader header = make_header(MessageType::value, shard_.server().value, clock);
  header.bucket = id.value;
  header.n_bytes = static_cast<std::uint64_t>(wire_bytes(parts_.plan[id], Flow::values, form));
  transport_.send_message(to, header);
}

void BulkSteps::send_value_chunk(BucketId id, int chunk, std::span<const Rank> to, WireForm form) {
  const Bucket& bucket = parts_.plan[id];
  if (shared_ && bucket.is_pushed() && shared_->try_send(to, id, chunk, shard_.value(id), form)) return;
  for (const Rank rank : to) send_own_chunk(bucket, chunk, rank, form);
}

// From the values' own memory, which no update may touch until it has left.
void BulkSteps::send_own_chunk(const Bucket& bucket, int chunk, Rank to, WireForm form) {
  const WireChunk part = bucket.wire_chunk(chunk);
  const ConstPiece piece{shard_.value(bucket.id) + part.begin, static_cast<std::size_t>(part.n_bytes)};
  if (form == WireForm::encoded) {
    codec_.send_encoded_values(to, bucket, chunk, to.value, {piece.data, piece.n_bytes});
  } else {
    codec_.send(Flow::values, to, bucket, chunk, to.value, std::span(&piece, 1));
  }
  ++state_of(bucket.id).sends_in_flight;
}

void BulkSteps::on_completion(const Completion& completion) {
  if (RowCodec::is_of_rows(completion)) {
    on_whole_table(rows_->on_completion(completion));
    return apply_whole_tables();
  }
  const BucketId id(completion.key.bucket);
  if (WireCodec::flow_of(completion) == Flow::gradients) {
    Aggregator::ReadyChunk ready{};
    if (aggregator_.on_received(completion, ready)) apply(ready);
    return;
  }
  if (shared_ && shared_->on_sent(completion)) return;
  codec_.sent(completion);
  BucketState& state = state_of(id);
  if (--state.sends_in_flight == 0) announce_deferred(id);
}

// The chunk is in cache, and so will its values be: update and answer at once, unless norms are needed.
void BulkSteps::apply(const Aggregator::ReadyChunk& chunk) {
  const BucketId id = chunk.bucket;
  const bool is_deferred = deferred_.defers(id);
  scale_sum(chunk);
  if (histograms_ && histograms_->is_due(Clock(shard_.clock(id).value + 1))) {
    const WireChunk part = parts_.plan[id].wire_chunk(chunk.chunk);
    histograms_->add_gradient(id, part.first_element, part.n_elements, chunk.sum);
  }
  if (deferred_.keeps_gradient(id)) {
    deferred_.keep(id, chunk.chunk, chunk.sum);
  } else {
    const WireChunk part = parts_.plan[id].wire_chunk(chunk.chunk);
    updater_.update(id, part.first_element, part.n_elements, chunk.sum,
                    UpdateStep::whole(Clock(shard_.clock(id).value + 1)));
    if (!is_deferred) answer_in_order(id, chunk.chunk);
  }
  if (!aggregator_.release_chunk(chunk)) return;
  is_deferred ? deferred_.round_ended(id) : finish_round(id);
}

// Gradients may arrive in another order than they were sent in: a short last chunk overtakes a long first
// one. Workers have posted their receives for the values in the order of the chunks.
void BulkSteps::answer_in_order(BucketId id, int chunk) {
  BucketState& state = state_of(id);
  const int n_chunks = parts_.plan[id].n_wire_chunks();
  if (state.applied.empty()) state.applied.assign(static_cast<std::size_t>(n_chunks), false);
  state.applied[static_cast<std::size_t>(chunk)] = true;
  while (state.n_answered < n_chunks && state.applied[static_cast<std::size_t>(state.n_answered)])
    answer(id, state.n_answered++);
  if (state.n_answered < n_chunks) return;
  state.applied.clear();
  state.n_answered = 0;
}

// Sends a chunk with the values after the step that is being applied, unless the pushes asked for an ack.
void BulkSteps::answer(BucketId id, int chunk) {
  if ((state_of(id).flags & kFlagAck) != 0) return;
  const WireForm form = form_of_values(parts_.plan[id]);
  for (Rank worker : answered_) {
    if (chunk == 0) send_value_header(id, Clock(shard_.clock(id).value + 1), worker, form);
  }
  send_value_chunk(id, chunk, answered_, form);
}

// One task at a time: polling goes on in between.
bool BulkSteps::work() {
  final_chunks_.clear();
  if (apply_scaled_table()) return true;
  if (!deferred_.work(final_chunks_)) return false;
  for (const auto& [id, chunk] : final_chunks_) {
    answer(id, chunk);
    if (chunk + 1 == parts_.plan[id].n_wire_chunks()) finish_round(id);
  }
  return true;
}

void BulkSteps::finish_round(BucketId id) {
  BucketState& state = state_of(id);
  const Clock clock(shard_.clock(id).value + 1);
  shard_.set_clock(id, clock);
  state.in_round = false;
  if ((state.flags & kFlagAck) != 0) {
    MessageHeader ack = make_header(MessageType::ack, shard_.server().value, clock);
    ack.bucket = id.value;
    for (Rank worker : answered_) transport_.send_message(worker, ack);
  }
  if (histograms_ && histograms_->is_due(clock)) report_histograms(id, clock);
  finish_unit(clock, state.flags);
  for (const auto& [worker, pull] : std::exchange(held_pulls_, {})) on_pull(worker, pull);
  announce_deferred(id);
}

// A bucket or table has applied step `clock`. With a delay some may be steps ahead of others, but each does
// one after the other.
void BulkSteps::finish_unit(Clock clock, std::uint32_t flags) {
  if (!ended_) ended_ = Clock(clock.value - 1);
  const auto at = static_cast<std::size_t>(clock.value - ended_->value - 1);
  n_finished_.resize(std::max(n_finished_.size(), at + 1), 0);
  if (++n_finished_[at] < n_pushed_) return;
  n_finished_.pop_front();
  ended_ = clock;
  const bool is_cut = (flags & kFlagCut) != 0;
  if (is_cut && !n_finished_.empty()) {
    fail(ErrorKind::protocol, "step {} is cut, but server {} has applied pushes of step {}", clock.value,
         shard_.server().value, clock.value + 1);
  }
  parts_.listener.on_step_end(clock, is_cut);
}

bool BulkSteps::is_behind(Clock clock) const {
  const auto has_less = [&](BucketId id) { return parts_.plan[id].is_pushed() && shard_.clock(id) < clock; };
  return std::ranges::any_of(shard_.buckets(), has_less) || (rows_ && rows_->is_behind(clock));
}

// The workers have these values already, and compute with them.
void BulkSteps::report_histograms(BucketId id, Clock clock) {
  MessageHeader header = make_header(MessageType::histograms, shard_.server().value, clock);
  header.bucket = id.value;
  for (const HistogramReport& report : histograms_->take(id))
    transport_.send_message(parts_.cluster.rank_of(ServerId(0)), header, to_binary(report));
}

}  // namespace varscope
