#include "ps/push_steps.h"

#include <algorithm>
#include <limits>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

// No run has more steps. Numbers of tickets stay far below 2^63.
constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;

void check_step(WorkerId worker, const MessageHeader& header) {
  if (header.clock >= 0 && header.clock < kMostSteps) return;
  fail(ErrorKind::protocol, "worker {} sent a {} of step {}, which no run has", worker.value,
       to_string(type_of(header)), header.clock);
}

}  // namespace

namespace {

// In a replay what comes early waits in its buffer, and so do copies, until their turn: a limit could make
// one wait for the other. Each worker has a push and an answer of a bucket under way at most.
std::size_t memory_limit(const StepProtocol::Parts& parts) {
  return parts.replay != nullptr ? std::numeric_limits<std::size_t>::max() / 2 : parts.limits.max_bytes;
}

}  // namespace

PushSteps::PushSteps(const Parts& parts)
    : parts_(parts),
      shard_(parts.shard),
      updater_(parts.plan, parts.optimizer, parts.shard, parts.watch),
      receiver_(parts.transport, parts.plan, parts.cluster, memory_limit(parts)),
      answers_(parts.transport, parts.plan, parts.cluster, memory_limit(parts)),
      buckets_(parts.plan.size()),
      tables_(parts.rows != nullptr ? parts.rows->size() : 0),
      row_tickets_(tables_.size()),
      row_timers_(tables_.size()),
      watch_(parts.rule),
      sequence_(parts.cluster.n_workers(), 0),
      held_(parts.cluster.n_workers()),
      unsent_(parts.cluster.n_workers()),
      cut_done_(parts.first),
      units_(parts.plan, parts.rows, parts.shard.server()),
      turns_(parts.replay != nullptr ? static_cast<std::size_t>(units_.count()) : 0) {
  const int per_step = parts.rule.is_dynamic() ? parts.cluster.logical_workers : parts.cluster.n_workers();
  const Unit start{TicketCount(parts.first, per_step), parts.first.value * parts.cluster.logical_workers,
                   static_cast<double>(parts.first.value)};
  for (BucketId id : shard_.buckets()) {
    const auto n_chunks = static_cast<std::size_t>(parts.plan[id].n_wire_chunks());
    BucketState& state = buckets_[id];
    state.low = parts.first;
    state.units.assign(n_chunks, start);
    if (parts.plan[id].is_pushed() && parts.plan[id].compression.has_residual() &&
        parts.flush.has_residuals) {
      const Clock next = parts.flush.next_cut(Clock(parts.first.value + 1));
      for (Unit& unit : state.units) unit.flush = next;
    }
    state.streams = IdVector<WorkerId, Stream>(parts.cluster.n_workers());
    for (Stream& s : state.streams) {
      s.read_at.assign(n_chunks, 0);
      s.lead_due.assign(n_chunks, -1);
    }
  }
  for (TableId id : tables_.ids()) {
    tables_[id] = start;
    row_tickets_[id] = IdVector<WorkerId, Ticket>(parts.cluster.n_workers());
    row_timers_[id] = IdVector<WorkerId, StalenessWatch::Timer>(parts.cluster.n_workers());
  }
  if (parts.rows == nullptr || parts.rows->empty()) return;
  rows_.emplace(RowExchange::Parts{parts.transport, parts.cluster, *parts.rows, *parts.tables,
                                   shard_.server(), parts.plan.size(), this});
}

// What a worker sends is handled in its order: behind a push that is held all is held.
bool PushSteps::holds(const Message& message) const {
  const MessageType type = type_of(message.header);
  const bool is_push = type == MessageType::push || type == MessageType::rows_push;
  return is_push && push_details(message.body, message.from).held_after > cut_done_.value;
}

void PushSteps::take(WorkerId worker, const Message& message) {
  if (held_[worker].empty() && !holds(message)) return handle(worker, message);
  held_[worker].push_back({message, now_ns()});
  watch_.holds();
}

void PushSteps::handle(WorkerId worker, const Message& message) {
  switch (type_of(message.header)) {
    case MessageType::push:
      return push(worker, message);
    case MessageType::pull:
      return pull(worker, message.header);
    case MessageType::rows_push:
      return rows_push(worker, message);
    default:
      rows_->on_wanted(worker, message.header);
      if (parts_.replay != nullptr) play_rows(TableId(message.header.bucket));
  }
}

void PushSteps::on_push(WorkerId worker, const Message& push) { take(worker, push); }

void PushSteps::on_pull(WorkerId worker, const MessageHeader& pull) {
  check_step(worker, pull);
  take(worker, {parts_.cluster.rank_of(worker), pull, {}});
}

void PushSteps::on_rows_wanted(WorkerId worker, const MessageHeader& wanted) {
  check_step(worker, wanted);
  take(worker, {parts_.cluster.rank_of(worker), wanted, {}});
}

void PushSteps::on_rows_push(WorkerId worker, const Message& push) { take(worker, push); }

void PushSteps::on_norms(const Message& message) {
  fail(ErrorKind::protocol, "rank {} sent a {}, but workers take norms themselves in this mode",
       message.from.value, to_string(type_of(message.header)));
}

void PushSteps::go_on_after(Clock clock) {
  cut_done_ = std::max(cut_done_, clock);
  for (WorkerId w : held_.ids()) {
    std::deque<Held>& held = held_[w];
    while (!held.empty() && !holds(held.front().message)) {
      const Held next = std::move(held.front());
      held.pop_front();
      held_ns_ = now_ns() - next.since_ns;
      handle(w, next.message);
      held_ns_ = 0;
    }
  }
  if (std::ranges::all_of(held_, [](const auto& held) { return held.empty(); })) watch_.holds_nothing();
}

PushSteps::Ticket PushSteps::ticket_of(WorkerId worker, const Message& push) const {
  const MessageHeader& h = push.header;
  const Ticket ticket{Clock(h.clock), h.leaf_begin, push_details(push.body, push.from)};
  const int n = ticket.details.n_leaves;
  const LeafRange own = parts_.cluster.leaves_of(worker);
  const bool fits = parts_.rule.is_dynamic()
                        ? n == 1 && h.leaf_begin >= 0 && h.leaf_begin < parts_.cluster.logical_workers
                        : h.leaf_begin == own.begin && n == own.size();
  if (!fits || h.clock <= parts_.first.value || h.clock > kMostSteps) {
    fail(ErrorKind::protocol, "worker {} pushed {} leaves from {} on of step {}, which are no ticket of it",
         worker.value, n, h.leaf_begin, h.clock);
  }
  return ticket;
}

// What compression has kept back before all come together.
PushSteps::Ticket PushSteps::flush_of(WorkerId worker, const Bucket& bucket, const Message& push) const {
  const MessageHeader& h = push.header;
  Ticket ticket{.step = Clock(h.clock), .details = push_details(push.body, push.from), .is_flush = true};
  const bool is_known = bucket.compression.has_residual() && (h.flags & kFlagEncoded) == 0;
  if (!is_known || (h.flags & kFlagAck) == 0 || h.clock <= parts_.first.value || h.clock > kMostSteps) {
    fail(ErrorKind::protocol,
         "worker {} flushed bucket {} ({}) after step {}, where nothing is kept back that could be",
         worker.value, h.bucket, bucket.scope, h.clock);
  }
  return ticket;
}

WireForm PushSteps::form_of(WorkerId worker, const Bucket& bucket, const MessageHeader& push) const {
  if ((push.flags & kFlagEncoded) == 0) return WireForm::full;
  if (!codec_of(bucket, Flow::gradients)) {
    fail(ErrorKind::protocol, "worker {} pushed encoded gradients to bucket {} ({}), which is not compressed",
         worker.value, push.bucket, bucket.scope);
  }
  return WireForm::encoded;
}

std::int64_t PushSteps::number_of(WorkerId worker, const Ticket& ticket) const {
  const std::int64_t before = ticket.step.value - 1;
  if (parts_.rule.is_dynamic()) return before * parts_.cluster.logical_workers + ticket.leaf_begin;
  return before * parts_.cluster.n_workers() + worker.value;
}

void PushSteps::push(WorkerId worker, const Message& message) {
  const MessageHeader& h = message.header;
  auto& sequence = sequence_[worker];
  if (h.sequence != ++sequence) {
    fail(ErrorKind::protocol, "push {} of worker {} arrived where push {} was due", h.sequence, worker.value,
         sequence);
  }
  const Bucket& bucket = own_bucket(parts_, worker, h);
  check_is_pushed(bucket, worker);
  Stream& stream = buckets_[bucket.id].streams[worker];
  const WireForm form = form_of(worker, bucket, h);
  const Ticket ticket =
      (h.flags & kFlagFlush) != 0 ? flush_of(worker, bucket, message) : ticket_of(worker, message);
  const bool is_empty = ticket.details.share == 0;
  const auto expected = static_cast<std::uint64_t>(is_empty ? 0 : wire_bytes(bucket, Flow::gradients, form));
  if (stream.is_pushing || stream.reads || h.n_bytes != expected) {
    fail(ErrorKind::protocol, "worker {} pushed {} bytes of step {} to bucket {} ({}){}, expected {}",
         worker.value, h.n_bytes, h.clock, h.bucket, bucket.scope,
         stream.is_pushing || stream.reads ? " before it had the answer to its last push" : "", expected);
  }
  const int n_chunks = bucket.n_wire_chunks();
  watch_.announced(stream.timer, held_ns_);
  watch_.pushed(h.n_bytes);
  stream.is_pushing = true;
  stream.ticket = ticket;
  stream.is_acked = (h.flags & kFlagAck) != 0;
  stream.applied.assign(static_cast<std::size_t>(n_chunks), false);
  stream.n_missing = n_chunks;
  if (!stream.is_acked) {  // of kNotKnown anything will do
    stream.reads = Clock(ticket.details.next_step);
    stream.reads_for = Reads::push;
    stream.form = form_of_values(bucket);
    stream.next_chunk = 0;
  }
  if (!is_empty) return receiver_.announce(worker, bucket.id, form);
  if (parts_.replay != nullptr) {
    for (int chunk = 0; chunk < n_chunks; ++chunk) play_early(bucket, chunk, worker, nullptr);
    return;
  }
  for (int chunk = 0; chunk < n_chunks; ++chunk) apply(bucket, worker, chunk, nullptr);
  end_chunk(bucket, worker);
}

void PushSteps::pull(WorkerId worker, const MessageHeader& pull) {
  const Bucket& bucket = own_bucket(parts_, worker, pull);
  Stream& stream = buckets_[bucket.id].streams[worker];
  if (stream.is_pushing || stream.reads) {
    fail(ErrorKind::protocol, "worker {} pulled bucket {} ({}) before it had the answer to its last push",
         worker.value, pull.bucket, bucket.scope);
  }
  watch_.announced(stream.timer, held_ns_);
  stream.reads = Clock(pull.clock + 1);
  stream.reads_for = (pull.flags & kFlagDrained) != 0 ? Reads::drained : Reads::again;
  stream.form = (pull.flags & kFlagEncoded) != 0 ? form_of_values(bucket) : WireForm::full;
  stream.next_chunk = 0;
  if (parts_.replay != nullptr && bucket.is_pushed()) {
    for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) play(bucket, chunk);
  }
  answer(bucket, worker);
}

void PushSteps::on_completion(const Completion& completion) {
  if (RowCodec::is_of_rows(completion)) {
    take_rows(rows_->on_completion(completion));
    if (parts_.replay != nullptr) play_rows(TableId(completion.key.bucket));
    return;
  }
  if (WireCodec::flow_of(completion) == Flow::gradients) {
    const PushReceiver::Chunk chunk = receiver_.on_received(completion);
    if (parts_.replay != nullptr)
      return play_early(parts_.plan[chunk.bucket], chunk.chunk, chunk.worker, chunk.gradient);
    apply(parts_.plan[chunk.bucket], chunk.worker, chunk.chunk, chunk.gradient);
    receiver_.release(chunk);
    return end_chunk(parts_.plan[chunk.bucket], chunk.worker);
  }
  answers_.on_sent(completion);
  const WorkerId worker(completion.key.contribution);
  for (BucketId id : std::exchange(unsent_[worker], {})) answer(parts_.plan[id], worker);
}

// Counts a push in, and says what its update is of a step. A run that starts from the values of step t has
// t steps' leaves behind it.
UpdateStep PushSteps::count(Unit& unit, WorkerId worker, const Ticket& ticket, std::int64_t read_at,
                            std::string_view what) {
  if (!unit.tickets.add(number_of(worker, ticket))) {
    fail(ErrorKind::protocol, "worker {} pushed step {}, leaf {} of {}, which is applied already",
         worker.value, ticket.step.value, ticket.leaf_begin, what);
  }
  const auto n_leaves = static_cast<std::int64_t>(parts_.cluster.logical_workers);
  const Clock step(1 + unit.leaves / n_leaves);
  unit.leaves += ticket.details.n_leaves;
  watch_.applied(unit.pushes - read_at);
  const auto delay = static_cast<double>(unit.pushes++ - read_at);
  const double share = ticket.details.share;
  unit.applied += share;
  const bool is_discounted = parts_.optimizer.config().staleness_discount == StalenessDiscount::inverse;
  return {step, share, unit.applied, is_discounted ? 1 / std::max(1.0, delay * share) : 1, true};
}

// Counts in that a worker has flushed. It is no part of a step, nor of the sum of shares.
UpdateStep PushSteps::flush(Unit& unit, const Ticket& ticket) {
  if (ticket.step == unit.flush && ++unit.n_flushed == parts_.cluster.n_workers()) {
    unit.flush = parts_.flush.next_cut(Clock(ticket.step.value + 1));
    unit.n_flushed = 0;
  }
  return {ticket.step, ticket.details.share, unit.applied, 1, true, true};
}

// `gradient`: of the chunk; null: the push is of no samples.
void PushSteps::apply(const Bucket& bucket, WorkerId worker, int chunk, std::byte* gradient) {
  BucketState& state = buckets_[bucket.id];
  Stream& stream = state.streams[worker];
  const auto at = static_cast<std::size_t>(chunk);
  Unit& unit = state.units[at];
  const Clock before = unit.low();
  const bool is_flush = stream.ticket.is_flush;
  const UpdateStep step = is_flush ? flush(unit, stream.ticket)
                                   : count(unit, worker, stream.ticket, stream.read_at[at], bucket.scope);
  if (std::int64_t& held = stream.lead_due[at]; held >= 0 && !is_flush)
    watch_.read(stream.ticket.step.value - 1 - std::exchange(held, -1));
  const WireChunk part = bucket.wire_chunk(chunk);
  if (gradient != nullptr) updater_.update(bucket.id, part.first_element, part.n_elements, gradient, step);
  if (parts_.record != nullptr) record_push(units_.of(bucket.id, chunk), worker, stream.ticket);
  stream.applied[at] = true;
  --stream.n_missing;
  if (unit.low() > before && before == state.low) ++state.n_above;
}

// After chunks of a push have been applied: answers that have waited for them, and what follows where they
// were the last ones of a step.
void PushSteps::end_chunk(const Bucket& bucket, WorkerId worker) {
  BucketState& state = buckets_[bucket.id];
  Stream& stream = state.streams[worker];
  if (stream.n_missing == 0 && std::exchange(stream.is_pushing, false) && stream.is_acked) {
    MessageHeader ack = make_header(MessageType::ack, shard_.server().value, stream.ticket.step);
    ack.bucket = bucket.id.value;
    watch_.answered(stream.timer, 0);
    parts_.transport.send_message(parts_.cluster.rank_of(worker), ack);
  }
  answer(bucket, worker);
  if (parts_.rule.consistency == Consistency::ssp) {
    for (WorkerId other : state.streams.ids()) answer(bucket, other);
  }
  if (state.n_above < static_cast<int>(state.units.size())) return;
  state.low = std::ranges::min(state.units, {}, &Unit::low).low();
  state.n_above = static_cast<int>(
      std::ranges::count_if(state.units, [&](const Unit& u) { return u.low() > state.low; }));
  shard_.set_clock(bucket.id, state.low);
  parts_.listener.on_step_end(state.low, false);
}

void PushSteps::record_push(int unit, WorkerId worker, const Ticket& ticket) {
  ticket.is_flush ? parts_.record->flushed(unit, worker) : parts_.record->applied(unit, worker);
}

void PushSteps::record_answer(int unit, WorkerId worker, const Stream& stream) {
  stream.reads_for == Reads::drained ? parts_.record->drained(unit, worker)
                                     : parts_.record->answered(unit, worker);
}

// Sends the chunks of the worker's next answer that hold what they must, in their order: the worker has
// posted its receives so.
void PushSteps::answer(const Bucket& bucket, WorkerId worker) {
  BucketState& state = buckets_[bucket.id];
  Stream& stream = state.streams[worker];
  if (!stream.reads) return;
  const int n_chunks = bucket.n_wire_chunks();
  for (int& chunk = stream.next_chunk; chunk < n_chunks; ++chunk) {
    if (parts_.replay != nullptr) {
      const Answer answer = answer_in_order(bucket, chunk, worker);
      if (answer == Answer::sent) continue;
      if (answer == Answer::due) return;
    }
    if (!may_read_chunk(bucket, stream, chunk)) return;
    if (!answers_.try_send(worker, bucket.id, chunk, shard_.value(bucket.id), stream.form)) {
      watch_.untaken(stream.timer);
      unsent_[worker].insert(bucket.id);
      return;
    }
    watch_.taken(stream.timer);
    const Unit& unit = state.units[static_cast<std::size_t>(chunk)];
    const Clock before(stream.reads->value - 1);
    const Clock holds = bucket.is_pushed() ? unit.tickets.low() : before;
    stream.seen = chunk == 0 ? holds : std::min(stream.seen, holds);
    stream.read_at[static_cast<std::size_t>(chunk)] = unit.pushes;
    const bool is_known = stream.reads->value != PushDetails::kNotKnown;
    stream.lead_due[static_cast<std::size_t>(chunk)] = is_known ? -1 : holds.value;
    if (is_known && bucket.is_pushed()) watch_.read(before.value - holds.value);
    if (parts_.record != nullptr && bucket.is_pushed())
      record_answer(units_.of(bucket.id, chunk), worker, stream);
  }
  stream.reads.reset();
  MessageHeader header = make_header(MessageType::value, shard_.server().value, stream.seen);
  header.bucket = bucket.id.value;
  header.n_bytes = static_cast<std::uint64_t>(wire_bytes(bucket, Flow::values, stream.form));
  header.gated_ns = static_cast<std::uint64_t>(watch_.answered(stream.timer, header.n_bytes));
  parts_.transport.send_message(parts_.cluster.rank_of(worker), header);
}

// Of the worker's next answer. Of what is never pushed there is one version.
bool PushSteps::may_read_chunk(const Bucket& bucket, Stream& stream, int chunk) {
  const auto at = static_cast<std::size_t>(chunk);
  if (stream.is_pushing && !stream.applied[at]) return false;
  const Clock least = parts_.rule.least_read(*stream.reads, parts_.first);
  if (bucket.is_pushed() && buckets_[bucket.id].units[at].tickets.low() < least) {
    watch_.gated(stream.timer);
    return false;
  }
  watch_.passed(stream.timer);
  return true;
}

void PushSteps::rows_push(WorkerId worker, const Message& message) {
  const Ticket ticket = ticket_of(worker, message);
  const TableId id(message.header.bucket);
  if (tables_.has(id)) {
    Ticket& last = row_tickets_[id][worker];
    const std::int64_t read_at = last.read_at;
    last = ticket;
    last.read_at = read_at;
  }
  watch_.pushed(message.header.n_bytes);
  Message push = message;
  push.body.erase(0, sizeof(PushDetails));
  take_rows(rows_->on_push(worker, push));
}

// A push of rows is applied as a whole.
void PushSteps::take_rows(const std::optional<RowExchange::Whole>& whole) {
  if (!whole) return;
  if (parts_.replay == nullptr) return apply_rows(whole->table, whole->worker);
  turns_[static_cast<std::size_t>(units_.of(whole->table))].early.emplace(whole->worker, nullptr);
  play_rows(whole->table);
}

void PushSteps::apply_rows(TableId id, WorkerId worker) {
  Unit& unit = tables_[id];
  const Clock before = unit.tickets.low();
  const Ticket& ticket = row_tickets_[id][worker];
  const UpdateStep step = count(unit, worker, ticket, ticket.read_at, rows_->plan()[id].name);
  if (parts_.record != nullptr) parts_.record->applied(units_.of(id), worker);
  rows_->apply_push(id, worker, step);
  if (unit.tickets.low() == before) return;
  rows_->reach(id, unit.tickets.low());
  parts_.listener.on_step_end(unit.tickets.low(), false);
}

void PushSteps::on_wanted(TableId table, WorkerId worker) {
  watch_.announced(row_timers_[table][worker], held_ns_);
}

bool PushSteps::may_read(TableId table, WorkerId worker, Clock request) {
  if (parts_.replay != nullptr) {
    const auto event = parts_.replay->next(units_.of(table));
    if (event) return *event == RecordEvent{RecordEvent::What::answered, worker};
  }
  StalenessWatch::Timer& timer = row_timers_[table][worker];
  const Clock least = parts_.rule.least_read(Clock(request.value + 1), parts_.first);
  const bool may = tables_[table].tickets.low() >= least;
  may ? watch_.passed(timer) : watch_.gated(timer);
  return may;
}

std::int64_t PushSteps::on_read(TableId table, WorkerId worker, Clock request, std::size_t n_bytes) {
  const Unit& unit = tables_[table];
  row_tickets_[table][worker].read_at = unit.pushes;
  watch_.read(request.value - unit.tickets.low().value);
  if (rows_->is_pushed(table)) {
    if (parts_.record != nullptr) parts_.record->answered(units_.of(table), worker);
    if (parts_.replay != nullptr && parts_.replay->next(units_.of(table)))
      parts_.replay->advance(units_.of(table));
  }
  return watch_.answered(row_timers_[table][worker], n_bytes);
}

// A run that goes on from the checkpoint counts from here, and so does this one: to the last bit of what
// shares add up to.
void PushSteps::on_cut(Clock clock) {
  for (BucketState& state : buckets_) {
    for (Unit& unit : state.units) unit.applied = static_cast<double>(clock.value);
  }
  for (Unit& unit : tables_) unit.applied = static_cast<double>(clock.value);
  if (parts_.record == nullptr) return;
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(units_.count()));
  for (BucketId id : shard_.buckets()) {
    const Bucket& bucket = parts_.plan[id];
    for (int chunk = 0; bucket.is_pushed() && chunk < bucket.n_wire_chunks(); ++chunk)
      hashes[static_cast<std::size_t>(units_.of(id, chunk))] = hash_of(bucket, chunk);
  }
  for (TableId id : tables_.ids()) hashes[static_cast<std::size_t>(units_.of(id))] = hash_of(id);
  parts_.record->cut(clock, hashes);
}

bool PushSteps::is_behind(Clock clock) const {
  for (BucketId id : shard_.buckets()) {
    if (parts_.plan[id].is_pushed() && buckets_[id].low < clock) return true;
  }
  for (TableId id : tables_.ids()) {
    if (rows_->is_pushed(id) && tables_[id].tickets.low() < clock) return true;
  }
  return false;
}

}  // namespace varscope
