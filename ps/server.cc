#include "ps/server.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

std::vector<PeerMonitor::Peer> peers_of(const Server::Parts& parts) {
  const auto host = [&](Rank r) {
    const auto i = static_cast<std::size_t>(r.value);
    return i < parts.hosts.size() ? " on host " + parts.hosts[i] : std::string();
  };
  std::vector<PeerMonitor::Peer> peers;
  for (WorkerId w : parts.cluster.workers.ids()) {
    const Rank r = parts.cluster.rank_of(w);
    peers.push_back({r, fmt::format("worker {}{}", w.value, host(r))});
  }
  for (ServerId s : parts.cluster.servers.ids()) {
    const Rank r = parts.cluster.rank_of(s);
    // The coordinator watches every server, the others watch the coordinator.
    if (s != parts.shard.server() && (s == ServerId(0) || parts.coordinator != nullptr))
      peers.push_back({r, fmt::format("server {}{}", s.value, host(r))});
  }
  return peers;
}

}  // namespace

Server::Server(const Parts& parts)
    : parts_(parts),
      transport_(parts.transport),
      shard_(parts.shard),
      codec_(parts.transport),
      aggregator_(parts.transport, parts.plan, parts.cluster, parts.limits),
      watch_(parts.plan, parts.shard),
      updater_(parts.plan, parts.optimizer, parts.shard, watch_),
      deferred_(parts.transport, parts.cluster, parts.plan, parts.optimizer, parts.shard, updater_, watch_),
      loop_(parts.transport, *this, peers_of(parts), parts.shard.server().value, parts.stall_timeout_s),
      buckets_(parts.plan.size()),
      sequence_(parts.cluster.n_workers(), 0) {
  for (BucketId id : shard_.buckets()) n_pushed_ += parts.plan[id].is_pushed() ? 1 : 0;
  if (parts.rows != nullptr && !parts.rows->empty()) {
    rows_.emplace(RowExchange::Parts{parts.transport, parts.cluster, *parts.rows, *parts.tables,
                                     shard_.server(), parts.plan.size()});
    n_pushed_ += rows_->n_pushed();
  }
  watch_.look_at_all();
  if (parts.histogram_every_steps > 0)
    histograms_.emplace(parts.plan, parts.shard, parts.histogram_every_steps);
}

RunEnd Server::run() {
  shutdown_ = false;
  if (parts_.coordinator != nullptr) parts_.coordinator->start();
  while (!shutdown_) {
    loop_.turn("serving its slices", [this] { return work(); });
    if (parts_.checkpointer != nullptr) parts_.checkpointer->reset_wait_budget();
  }
  transport_.flush(10);
  return end_;
}

// What is done between two polls; true when there was something that others wait for.
bool Server::work() {
  const bool worked = work_on_deferred();
  if (!has_told_not_finite_ && has_found_not_finite()) report_not_finite(false);
  if (parts_.checkpointer != nullptr) report_outcome();
  if (parts_.requests != nullptr) pass_requests_on();
  if (parts_.coordinator != nullptr) parts_.coordinator->tick();
  return worked;
}

void Server::on_message(const Message& message) {
  const MessageHeader& h = message.header;
  const auto worker = parts_.cluster.worker_at(message.from);
  switch (type_of(h)) {
    case MessageType::heartbeat:
      return;
    case MessageType::push:
    case MessageType::pull:
    case MessageType::rows_wanted:
    case MessageType::rows_push:
      if (!worker)
        fail(ErrorKind::protocol, "rank {} is no worker but sent a {}", message.from.value,
             to_string(type_of(h)));
      if (type_of(h) == MessageType::push) return on_push(*worker, h);
      if (type_of(h) == MessageType::pull) return on_pull(*worker, h);
      if (!rows_) {
        fail(ErrorKind::protocol, "worker {} sent a {}, but there are no tables", worker->value,
             to_string(type_of(h)));
      }
      return type_of(h) == MessageType::rows_push ? on_rows_push(*worker, message)
                                                  : rows_->on_wanted(*worker, h);
    case MessageType::cut:
      return on_cut(Clock(h.clock), h.sequence);
    case MessageType::save_base:
      if (parts_.checkpointer == nullptr)
        fail(ErrorKind::protocol, "a checkpoint of step {} is announced, but none are configured", h.clock);
      return parts_.checkpointer->set_base(from_binary<SaveBase>(message.body, "the base of a save"));
    case MessageType::hash_request:
      return report_hashes();
    case MessageType::finite_request:
      return answer_finite_request(Clock(h.clock));
    case MessageType::norm_sums:
    case MessageType::norm_scales:
      return deferred_.on_message(message);
    case MessageType::shutdown:
      shutdown_ = true;
      loop_.end_poll();
      end_ = (h.flags & kFlagStop) != 0 ? RunEnd::stopped : RunEnd::finished;
      return;
    case MessageType::finite_report:
    case MessageType::histograms:
      // Without a coordinator nobody leads this run.
      if (parts_.coordinator != nullptr) parts_.coordinator->on_message(message);
      return;
    default:
      if (parts_.coordinator == nullptr) {
        fail(ErrorKind::protocol, "rank {} sent server {} a {}", message.from.value, shard_.server().value,
             to_string(type_of(h)));
      }
      parts_.coordinator->on_message(message);
  }
}

const Bucket& Server::own_bucket(WorkerId worker, const MessageHeader& push_or_pull) const {
  const BucketId id(push_or_pull.bucket);
  if (!shard_.has(id)) {
    fail(ErrorKind::protocol, "worker {} {}ed bucket {}, which is not on server {}", worker.value,
         to_string(type_of(push_or_pull)), id.value, shard_.server().value);
  }
  return parts_.plan[id];
}

void Server::on_push(WorkerId worker, const MessageHeader& push) {
  auto& sequence = sequence_[worker];
  if (push.sequence != ++sequence) {
    fail(ErrorKind::protocol, "push {} of worker {} arrived where push {} was due", push.sequence,
         worker.value, sequence);
  }
  const Bucket& bucket = own_bucket(worker, push);
  const BucketId id = bucket.id;
  if (!bucket.is_pushed()) {
    fail(ErrorKind::protocol, "worker {} pushed bucket {} ({}), whose values never change", worker.value,
         id.value, bucket.scope);
  }
  if (push.clock != shard_.clock(id).value + 1) {
    fail(ErrorKind::protocol, "worker {} pushed step {} of bucket {} ({}), which is at step {}", worker.value,
         push.clock, id.value, bucket.scope, shard_.clock(id).value);
  }
  check_order(worker, push, bucket.scope);
  BucketState& state = state_of(id);
  // The value is still being sent to somebody, and this push might complete the round that changes it: not
  // under MPI's hands. (The values of a round itself leave only when all its pushes have been announced.)
  if (state.sends_in_flight > 0) {
    state.deferred.emplace_back(worker, push);
  } else {
    announce(worker, push);
  }
}

// A step begins when the one before has ended in all buckets and tables.
void Server::check_order(WorkerId worker, const MessageHeader& push, std::string_view what) const {
  if (n_finished_in_step_ == 0 || push.clock <= finishing_.value) return;
  fail(ErrorKind::protocol, "worker {} pushed step {} of {} {} ({}) before it had all values of step {}",
       worker.value, push.clock, type_of(push) == MessageType::push ? "bucket" : "table", push.bucket, what,
       finishing_.value);
}

void Server::on_rows_push(WorkerId worker, const Message& push) {
  check_order(worker, push.header, "rows");
  on_whole_table(rows_->on_push(worker, push));
}

// All gradients of a table are here: update it at once, unless norms are needed.
void Server::on_whole_table(const std::optional<TableId>& whole) {
  if (!whole) return;
  if (!deferred_.keeps_rows()) return apply_table(*whole, 1);
  const Clock step(rows_->clock(*whole).value + 1);
  deferred_.give_row_squares(rows_->plan()[*whole].variable, rows_->row_squares(*whole), step);
}

void Server::apply_table(TableId id, double scale) {
  const RowExchange::Applied applied = rows_->apply(id, scale);
  finish_unit(applied.clock, applied.flags);
}

// One table whose scale has come; false when there is none.
bool Server::apply_scaled_table() {
  const auto update = deferred_.next_row_update();
  if (!update) return false;
  apply_table(rows_->plan().of_variable(update->variable)->id, update->scale);
  return true;
}

void Server::announce(WorkerId worker, const MessageHeader& push) {
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

void Server::on_pull(WorkerId worker, const MessageHeader& pull) {
  const Bucket& bucket = own_bucket(worker, pull);
  const BucketId id = bucket.id;
  // A round that others have begun does not matter: it cannot change the value without this worker's push,
  // which follows its pull. Holding the pull back for it would be a deadlock.
  // What is never pushed is as new as anybody asks for.
  const Clock clock = bucket.is_pushed() ? shard_.clock(id) : std::max(shard_.clock(id), Clock(pull.clock));
  if (!gate_.may_read(Clock(pull.clock), clock)) {
    held_pulls_.emplace_back(worker, pull);
    return;
  }
  const Rank to = parts_.cluster.rank_of(worker);
  send_value_header(id, clock, to);
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) send_value_chunk(id, chunk, to);
}

void Server::send_value_header(BucketId id, Clock clock, Rank to) {
  MessageHeader header = make_header(MessageType::value, shard_.server().value, clock);
  header.bucket = id.value;
  header.n_bytes = static_cast<std::uint64_t>(parts_.plan[id].n_bytes());
  transport_.send_message(to, header);
}

void Server::send_value_chunk(BucketId id, int chunk, Rank to) {
  const Bucket& bucket = parts_.plan[id];
  const WireChunk part = bucket.wire_chunk(chunk);
  const ConstPiece piece{shard_.value(id) + part.begin, static_cast<std::size_t>(part.n_bytes)};
  codec_.send(Flow::values, to, bucket, chunk, 0, std::span(&piece, 1));
  ++state_of(id).sends_in_flight;
}

void Server::on_completion(const Completion& completion) {
  if (RowCodec::is_of_rows(completion)) return on_whole_table(rows_->on_completion(completion));
  const BucketId id(completion.key.bucket);
  if (WireCodec::flow_of(completion) == Flow::gradients) {
    Aggregator::ReadyChunk ready{};
    if (aggregator_.on_received(completion, ready)) apply(ready);
    return;
  }
  BucketState& state = state_of(id);
  if (--state.sends_in_flight > 0) return;
  for (const auto& [worker, push] : std::exchange(state.deferred, {})) announce(worker, push);
}

// The chunk is in cache, and so will its values be: update and answer at once, unless norms are needed.
void Server::apply(const Aggregator::ReadyChunk& chunk) {
  const BucketId id = chunk.bucket;
  const bool is_deferred = deferred_.defers(id);
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
void Server::answer_in_order(BucketId id, int chunk) {
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
void Server::answer(BucketId id, int chunk) {
  if ((state_of(id).flags & kFlagAck) != 0) return;
  for (Rank worker : parts_.cluster.workers) {
    if (chunk == 0) send_value_header(id, Clock(shard_.clock(id).value + 1), worker);
    send_value_chunk(id, chunk, worker);
  }
}

// One task at a time: polling goes on in between.
bool Server::work_on_deferred() {
  final_chunks_.clear();
  if (apply_scaled_table()) return true;
  if (!deferred_.work(final_chunks_)) return false;
  for (const auto& [id, chunk] : final_chunks_) {
    answer(id, chunk);
    if (chunk + 1 == parts_.plan[id].n_wire_chunks()) finish_round(id);
  }
  return true;
}

void Server::finish_round(BucketId id) {
  BucketState& state = state_of(id);
  const Clock clock(shard_.clock(id).value + 1);
  shard_.set_clock(id, clock);
  state.in_round = false;
  if ((state.flags & kFlagAck) != 0) {
    MessageHeader ack = make_header(MessageType::ack, shard_.server().value, clock);
    ack.bucket = id.value;
    for (Rank worker : parts_.cluster.workers) transport_.send_message(worker, ack);
  }
  if (histograms_ && histograms_->is_due(clock)) report_histograms(id, clock);
  finish_unit(clock, state.flags);
  for (const auto& [worker, pull] : std::exchange(held_pulls_, {})) on_pull(worker, pull);
}

// A bucket or table has applied step `clock`.
void Server::finish_unit(Clock clock, std::uint32_t flags) {
  finishing_ = clock;
  if (++n_finished_in_step_ < n_pushed_) return;
  n_finished_in_step_ = 0;
  if (finite_asked_) answer_finite_request(*std::exchange(finite_asked_, std::nullopt));
  if ((flags & kFlagCut) != 0) cut(clock, 0);
  if (!cut_asked_) return;
  const auto [step, retry] = *std::exchange(cut_asked_, std::nullopt);
  cut(step, retry);
}

// Workers report a step when they have pushed it: it may still be under way here.
void Server::on_cut(Clock clock, std::int64_t retry) {
  if (parts_.checkpointer == nullptr || !is_behind(clock)) return cut(clock, retry);
  cut_asked_ = {clock, retry};
}

bool Server::is_behind(Clock clock) const {
  const auto has_less = [&](BucketId id) { return parts_.plan[id].is_pushed() && shard_.clock(id) < clock; };
  return std::ranges::any_of(shard_.buckets(), has_less) || (rows_ && rows_->is_behind(clock));
}

// Every bucket and table here has step `clock` applied, and none has more: no worker pushes the next step
// before it has all values of this one, and on_push() refuses one that does.
void Server::cut(Clock clock, std::int64_t retry) {
  if (parts_.checkpointer == nullptr)
    fail(ErrorKind::protocol, "a checkpoint of step {} was asked for, but none are configured", clock.value);
  spdlog::debug("server {} cuts at step {}", shard_.server().value, clock.value);
  parts_.checkpointer->cut(clock, checkpoint_id(clock, parts_.start_id, retry));
}

void Server::report_outcome() {
  const auto outcome = parts_.checkpointer->poll();
  if (!outcome) return;
  transport_.send_message(
      parts_.cluster.rank_of(ServerId(0)),
      make_header(MessageType::shard_report, shard_.server().value, Clock(outcome->report.step)),
      to_binary(*outcome));
}

void Server::pass_requests_on() {
  const std::uint32_t what = parts_.requests->take();
  if (what == 0) return;
  if (parts_.coordinator != nullptr) return parts_.coordinator->on_request(what);
  MessageHeader request = make_header(MessageType::request, shard_.server().value, Clock(0));
  request.flags = what;
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)), request);
}

// Once all buckets here have step `clock` applied: then all that it made has been looked at.
void Server::answer_finite_request(Clock clock) {
  if (is_behind(clock)) {
    finite_asked_ = clock;
  } else {
    report_not_finite(true);
  }
}

template <class F>
void Server::for_each_table(const F& f) const {
  if (parts_.tables == nullptr) return;
  for (const auto& table : *parts_.tables) f(*table);
}

bool Server::has_found_not_finite() const {
  bool has_found = watch_.has_found();
  for_each_table([&](const TableShard& table) { has_found = has_found || !table.not_finite().empty(); });
  return has_found;
}

void Server::report_not_finite(bool is_answer) {
  has_told_not_finite_ = has_told_not_finite_ || !is_answer;
  FiniteReport report = watch_.report();
  report.is_answer = is_answer;
  for_each_table([&](const TableShard& table) {
    report.findings.insert(report.findings.end(), table.not_finite().begin(), table.not_finite().end());
  });
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::finite_report, shard_.server().value, Clock(0)),
                          to_binary(report));
}

// The workers have these values already, and compute with them.
void Server::report_histograms(BucketId id, Clock clock) {
  MessageHeader header = make_header(MessageType::histograms, shard_.server().value, clock);
  header.bucket = id.value;
  for (const HistogramReport& report : histograms_->take(id))
    transport_.send_message(parts_.cluster.rank_of(ServerId(0)), header, to_binary(report));
}

void Server::report_hashes() {
  HashReport report = shard_.hashes();
  for_each_table([&](const TableShard& table) {
    table.add_hashes(report);
    report.tables.push_back(table.report());
  });
  transport_.send_message(parts_.cluster.rank_of(ServerId(0)),
                          make_header(MessageType::hash_report, shard_.server().value, Clock(0)),
                          to_binary(report));
}

}  // namespace varscope
