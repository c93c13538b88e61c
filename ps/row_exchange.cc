#include "ps/row_exchange.h"

#include <algorithm>
#include <limits>

#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

std::span<const std::uint32_t> numbers(const GrowingBytes& memory, std::size_t at, std::size_t n) {
  return {reinterpret_cast<const std::uint32_t*>(memory.data() + at), n};
}

}  // namespace

RowExchange::RowExchange(const Parts& parts)
    : parts_(parts),
      codec_(parts.transport, parts.n_buckets),
      tree_(parts.gate != nullptr
                ? ReductionTree({TreeNode{}}, 1)
                : ReductionTree(all_contributions(parts.cluster), parts.cluster.logical_workers)),
      tables_(parts.plan.size()) {
  for (WorkerId w : parts.cluster.workers.ids()) {
    const auto mine = maximal_nodes(parts.cluster.leaves_of(w), parts.cluster.logical_workers);
    n_contributions_.push_back(parts.gate != nullptr ? 1 : static_cast<int>(mine.size()));
  }
  for (TableId id : tables_.ids()) {
    if (!is_here(id)) continue;
    tables_[id].streams = IdVector<WorkerId, Stream>(parts.cluster.n_workers());
    for (Stream& stream : tables_[id].streams)
      stream.steps.resize(2 + static_cast<std::size_t>(parts.flush.delay));
    if (is_pushed(id)) ++n_pushed_;
  }
}

void RowExchange::count_only(const CountedWorkers& counted) {
  std::vector<TreeNode> present;
  for (WorkerId w : counted.ids()) {
    if (!counted.has(w)) continue;
    present.push_back(maximal_nodes(parts_.cluster.leaves_of(w), parts_.cluster.logical_workers).front());
  }
  tree_ = ReductionTree::of_present(std::move(present), parts_.cluster.logical_workers);
  counted_ = counted;
}

// Of steps that have been applied without the worker: no push follows.
void RowExchange::forget_requests(TableId id, WorkerId worker) {
  Stream& stream = tables_[id].streams[worker];
  while (stream.n_pushed < stream.n_wanted && stream.to_push().clock < shard(id).clock()) {
    stream.to_push().is_open = false;
    ++stream.n_pushed;
  }
}

const RowPlan::Table& RowExchange::own_table(WorkerId worker, const MessageHeader& header) const {
  const TableId id(header.bucket);
  if (!parts_.plan.has(id) || !is_here(id)) {
    fail(ErrorKind::protocol, "worker {} sent a {} of table {}, of which server {} has no parts",
         worker.value, to_string(type_of(header)), id.value, parts_.server.value);
  }
  return parts_.plan[id];
}

std::span<const std::uint64_t> RowExchange::ids_of(const Request& request) {
  return {reinterpret_cast<const std::uint64_t*>(request.ids.data()), request.n_rows};
}

void RowExchange::on_wanted(WorkerId worker, const MessageHeader& wanted) {
  const RowPlan::Table& table = own_table(worker, wanted);
  Stream& stream = tables_[table.id].streams[worker];
  const bool is_read = (wanted.flags & kFlagRead) != 0;
  Request& request = is_read ? stream.read : stream.to_ask();
  const auto is_no_earlier = [&](const Request& r) { return r.is_open && r.clock.value >= wanted.clock; };
  const bool is_again =
      !is_read && parts_.gate == nullptr && !is_delayed() && std::ranges::any_of(stream.steps, is_no_earlier);
  if (request.is_open || is_again || waiting(stream) != nullptr) {
    fail(ErrorKind::protocol,
         "worker {} asked for rows of table \"{}\" at step {} before its last request was over", worker.value,
         table.name, wanted.clock);
  }
  if (is_delayed() && !is_read && is_pushed(table.id) && wanted.clock != read_of(stream.n_wanted).value) {
    fail(ErrorKind::protocol, "worker {} asked for rows of table \"{}\" at step {}, where step {} was due",
         worker.value, table.name, wanted.clock, read_of(stream.n_wanted).value);
  }
  const std::uint64_t n = wanted.n_bytes / sizeof(std::uint64_t);
  if (wanted.n_bytes % sizeof(std::uint64_t) != 0 || n > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorKind::protocol, "worker {} asked for rows of table \"{}\" with {} bytes of ids", worker.value,
         table.name, wanted.n_bytes);
  }
  if (!is_read && is_pushed(table.id)) {
    ++stream.n_wanted;
    if (parts_.gate != nullptr) parts_.gate->on_wanted(table.id, worker);
  }
  request.is_open = request.is_waiting = true;
  request.clock = Clock(wanted.clock);
  request.n_rows = n;
  request.n_due = codec_.receive(RowFlow::ids, parts_.cluster.rank_of(worker), table.id, worker.value,
                                 request.ids.of(wanted.n_bytes));
  if (counted_ && !is_read && is_pushed(table.id)) forget_requests(table.id, worker);
  if (request.n_due > 0) return;
  answer(table.id, worker);
}

RowExchange::Request* RowExchange::waiting(Stream& stream) const {
  if (stream.read.is_waiting) return &stream.read;
  const auto found = std::ranges::find_if(stream.steps, &Request::is_waiting);
  return found == stream.steps.end() ? nullptr : &*found;
}

void RowExchange::check_ids(const RowPlan::Table& table, WorkerId worker, const Request& request) const {
  const auto ids = ids_of(request);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint64_t mixed = mix_row_id(ids[i]);
    if (i > 0 && mixed <= last) {
      fail(ErrorKind::protocol,
           "worker {} asked for rows of table \"{}\" that are not in order: id {} at position {}",
           worker.value, table.name, id_text(table.spec.ids, ids[i]), i);
    }
    last = mixed;
    const int part = row_part(mixed, table.spec.parts);
    if (table.owner[static_cast<std::size_t>(part)] != parts_.server) {
      fail(ErrorKind::protocol,
           "worker {} asked server {} for row {} of table \"{}\", whose part {} is on server {}",
           worker.value, parts_.server.value, id_text(table.spec.ids, ids[i]), table.name, part,
           table.owner[static_cast<std::size_t>(part)].value);
    }
  }
}

bool RowExchange::may_answer(TableId id, WorkerId worker, const Stream& stream,
                             const Request& request) const {
  if (!is_pushed(id)) return true;
  if (parts_.gate == nullptr) return shard(id).clock() >= request.clock;
  const bool is_read = &request == &stream.read;
  const auto is_of_a_push = [&](const Request& r) { return &r != &request && r.is_open; };
  const bool has_own = std::ranges::none_of(stream.steps, is_of_a_push);
  return has_own && (is_read || parts_.gate->may_read(id, worker, request.clock));
}

// Answers the request that waits, once its ids are there, its step is applied, and the last answer has left.
bool RowExchange::answer(TableId id, WorkerId worker) {
  const RowPlan::Table& table = parts_.plan[id];
  Stream& stream = tables_[id].streams[worker];
  Request* request = waiting(stream);
  if (request == nullptr || request->n_due > 0 || stream.n_reply_sends > 0) return false;
  if (!may_answer(id, worker, stream, *request)) return false;
  check_ids(table, worker, *request);
  request->is_waiting = false;
  if (request != &stream.read) ++stream.n_answered;
  if (request == &stream.read || !is_pushed(id)) request->is_open = false;
  const std::span<std::byte> reply = stream.reply.of(request->n_rows * table.row_bytes());
  // What a step reads is what it will update: rows that expire then are gone already.
  const Clock step(request->clock.value + (request == &stream.read ? 0 : 1));
  shard(id).read(ids_of(*request), std::max(step, shard(id).clock()), reply.data());
  MessageHeader header = make_header(MessageType::rows, parts_.server.value, request->clock);
  if (parts_.gate != nullptr && request != &stream.read && is_pushed(id)) {
    const std::int64_t gated_ns = parts_.gate->on_read(id, worker, request->clock, reply.size());
    header.gated_ns = static_cast<std::uint64_t>(gated_ns);
  }
  header.bucket = id.value;
  header.n_bytes = reply.size();
  const Rank to = parts_.cluster.rank_of(worker);
  parts_.transport.send_message(to, header);
  stream.n_reply_sends = codec_.send(RowFlow::values, to, id, worker.value, reply);
  return true;
}

std::optional<RowExchange::Whole> RowExchange::on_push(WorkerId worker, const Message& push) {
  const MessageHeader& h = push.header;
  const RowPlan::Table& table = own_table(worker, h);
  Table& state = tables_[table.id];
  Stream& stream = state.streams[worker];
  const Request& request = stream.to_push();
  const Clock now = parts_.gate != nullptr ? request.clock : shard(table.id).clock();
  const auto refuse = [&](const char* field, auto got, auto expected) {
    fail(ErrorKind::protocol, "worker {} pushed rows of table \"{}\": {} is {}, expected {}", worker.value,
         table.name, field, got, expected);
  };
  if (!is_pushed(table.id))
    fail(ErrorKind::protocol, "worker {} pushed table \"{}\", which is not trained", worker.value,
         table.name);
  if (is_delayed() && is_too_early(table.id, worker, push)) return std::nullopt;
  if (h.clock != now.value + 1) refuse("its step", h.clock, now.value + 1);
  if (stream.is_pushed)
    fail(ErrorKind::protocol, "worker {} pushed table \"{}\" twice in step {}", worker.value, table.name,
         h.clock);
  const Clock read = is_delayed() ? parts_.flush.read_by(Clock(h.clock), parts_.first) : now;
  if (!request.is_open || request.is_waiting || request.clock != read)
    fail(ErrorKind::protocol, "worker {} pushed rows of table \"{}\" that it has not asked for", worker.value,
         table.name);
  if (h.n_contributions != n_contributions_[worker])
    refuse("contributions", h.n_contributions, n_contributions_[worker]);
  if (parts_.gate == nullptr && h.leaf_begin != parts_.cluster.leaves_of(worker).begin)
    refuse("its first leaf", h.leaf_begin, parts_.cluster.leaves_of(worker).begin);
  if (parts_.gate == nullptr && state.n_announced > 0 && h.flags != state.flags)
    refuse("flags", h.flags, state.flags);
  stream.n_rows = from_binary<std::vector<std::uint32_t>>(push.body, "the numbers of pushed rows");
  if (stream.n_rows.size() != static_cast<std::size_t>(h.n_contributions))
    refuse("numbers of rows", stream.n_rows.size(), h.n_contributions);
  for (const std::uint32_t n : stream.n_rows) {
    if (n > request.n_rows) refuse("rows of a contribution", n, fmt::format("at most {}", request.n_rows));
  }
  stream.push_bytes = layout_of(table.id, stream).n_bytes();
  if (h.n_bytes != stream.push_bytes) refuse("bytes", h.n_bytes, stream.push_bytes);
  stream.is_pushed = true;
  state.flags = h.flags;
  ++state.n_announced;
  stream.n_push_due = codec_.receive(RowFlow::gradients, parts_.cluster.rank_of(worker), table.id,
                                     worker.value, stream.push.of(stream.push_bytes));
  if (stream.n_push_due > 0) return std::nullopt;
  return push_is_whole(table.id, worker);
}

// A push of a later step, which is kept until its round begins. A worker's pushes stay in their order.
bool RowExchange::is_too_early(TableId id, WorkerId worker, const Message& push) {
  Stream& stream = tables_[id].streams[worker];
  const std::int64_t next =
      shard(id).clock().value + 1 + std::ssize(stream.later) + (stream.is_pushed ? 1 : 0);
  if (push.header.clock != next || next > shard(id).clock().value + 1 + parts_.flush.delay) return false;
  if (next == shard(id).clock().value + 1) return false;
  stream.later.push_back(push);
  return true;
}

// Takes the pushes that have come early.
void RowExchange::begin_round(TableId id) {
  for (WorkerId w : tables_[id].streams.ids()) {
    std::deque<Message>& later = tables_[id].streams[w].later;
    if (later.empty()) continue;
    const Message push = std::move(later.front());
    later.pop_front();
    on_push(w, push);
  }
}

// Some worker has not been answered yet by the rows as they are now, with which it computes a step.
bool RowExchange::has_readers_to_come(TableId id) const {
  const std::optional<Clock> last = parts_.flush.last_reader(shard(id).clock(), parts_.first);
  if (!last) return false;
  const auto n_due = static_cast<std::size_t>(last->value - parts_.first.value);
  return std::ranges::any_of(tables_[id].streams, [n_due](const Stream& s) { return s.n_answered < n_due; });
}

std::optional<RowExchange::Whole> RowExchange::take_whole() {
  for (TableId id : tables_.ids()) {
    Table& state = tables_[id];
    if (!is_delayed() || !is_pushed(id) || state.is_taken || state.n_whole < parts_.cluster.n_workers() ||
        has_readers_to_come(id))
      continue;
    state.is_taken = true;
    return Whole{id, WorkerId(0)};
  }
  return std::nullopt;
}

std::optional<RowExchange::Whole> RowExchange::on_completion(const Completion& completion) {
  const TableId id(completion.key.bucket);
  const WorkerId worker(completion.key.contribution);
  Stream& stream = tables_[id].streams[worker];
  switch (RowCodec::flow_of(completion)) {
    case RowFlow::ids: {
      Request& request = *waiting(stream);
      RowCodec::arrived(completion, request.n_rows * sizeof(std::uint64_t));
      if (--request.n_due == 0) answer(id, worker);
      return std::nullopt;
    }
    case RowFlow::gradients:
      RowCodec::arrived(completion, stream.push_bytes);
      if (--stream.n_push_due > 0) return std::nullopt;
      return push_is_whole(id, worker);
    case RowFlow::values:
      break;
  }
  if (--stream.n_reply_sends == 0) answer(id, worker);
  return std::nullopt;
}

std::optional<RowExchange::Whole> RowExchange::push_is_whole(TableId id, WorkerId worker) {
  Table& state = tables_[id];
  const int n_pushes = counted_ ? counted_->count() : parts_.cluster.n_workers();
  if (parts_.gate == nullptr && ++state.n_whole < n_pushes) return std::nullopt;
  if (parts_.gate != nullptr) {
    check_push(id, worker);
  } else {  // before anything is changed
    for (WorkerId w : state.streams.ids()) {
      if (counts(w)) check_push(id, w);
    }
  }
  if (is_delayed()) return std::nullopt;
  return Whole{id, worker};
}

void RowExchange::check_positions(const RowPlan::Table& table, WorkerId worker,
                                  std::span<const std::uint32_t> positions, std::size_t n_rows) const {
  for (std::size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < n_rows && (i == 0 || positions[i] > positions[i - 1])) continue;
    fail(ErrorKind::protocol,
         "worker {} pushed rows of table \"{}\": position {} of {} is {}, of {} rows asked for", worker.value,
         table.name, i, positions.size(), positions[i], n_rows);
  }
}

void RowExchange::check_counts(const RowPlan::Table& table, WorkerId worker,
                               std::span<const std::uint32_t> counts) const {
  const auto none = std::ranges::find(counts, 0U);
  if (none == counts.end()) return;
  fail(ErrorKind::protocol, "worker {} pushed rows of table \"{}\": count {} of {} is 0", worker.value,
       table.name, none - counts.begin(), counts.size());
}

RowsPushLayout RowExchange::layout_of(TableId id, const Stream& stream) const {
  const RowPlan::Table& table = parts_.plan[id];
  return {stream.n_rows, table.row_bytes(), table.counts_ids()};
}

void RowExchange::check_push(TableId id, WorkerId worker) const {
  const RowPlan::Table& table = parts_.plan[id];
  const Stream& stream = tables_[id].streams[worker];
  const RowsPushLayout layout = layout_of(id, stream);
  for (std::size_t c = 0; c < stream.n_rows.size(); ++c) {
    check_positions(table, worker, numbers(stream.push, layout.positions_at(c), stream.n_rows[c]),
                    stream.to_push().n_rows);
    if (table.counts_ids())
      check_counts(table, worker, numbers(stream.push, layout.counts_at(c), stream.n_rows[c]));
  }
}

void RowExchange::gather(TableId id, const Stream& stream) {
  const RowsPushLayout layout = layout_of(id, stream);
  for (std::size_t c = 0; c < stream.n_rows.size(); ++c) {
    const auto positions = numbers(stream.push, layout.positions_at(c), stream.n_rows[c]);
    const bool has_counts = parts_.plan[id].counts_ids();
    contributions_.push_back(
        {ids_of(stream.to_push()), positions, stream.push.data() + layout.gradients_at(c),
         has_counts ? numbers(stream.push, layout.counts_at(c), stream.n_rows[c]).data() : nullptr});
  }
}

void RowExchange::gather_contributions(TableId id) {
  contributions_.clear();
  const Table& state = tables_[id];
  for (WorkerId w : state.streams.ids()) {
    if (counts(w)) gather(id, state.streams[w]);
  }
}

void RowExchange::apply_push(TableId id, WorkerId worker, const UpdateStep& step) {
  Stream& stream = tables_[id].streams[worker];
  if (step.share > 0) {
    contributions_.clear();
    gather(id, stream);
    shard(id).apply(step, contributions_, tree_);
  }
  stream.is_pushed = false;
  stream.to_push().is_open = false;
  ++stream.n_pushed;
  for (WorkerId w : tables_[id].streams.ids()) answer(id, w);
}

void RowExchange::reach(TableId id, Clock clock) { shard(id).set_clock(std::max(shard(id).clock(), clock)); }

std::span<const double> RowExchange::row_squares(TableId id) {
  std::optional<RowSquares>& squares = tables_[id].squares;
  if (!squares) squares.emplace(parts_.plan[id]);
  gather_contributions(id);
  return squares->sum(contributions_, tree_);
}

RowExchange::Applied RowExchange::apply(TableId id, double scale) {
  Table& state = tables_[id];
  const Clock now = shard(id).clock(), next(now.value + 1);
  gather_contributions(id);
  shard(id).apply(UpdateStep::whole(next), contributions_, tree_, scale);
  shard(id).set_clock(next);
  const std::uint32_t flags = state.flags;
  state.n_announced = state.n_whole = 0;
  state.is_taken = false;
  for (WorkerId w : state.streams.ids()) {
    if (!counts(w)) {
      forget_requests(id, w);
      continue;
    }
    Stream& stream = state.streams[w];
    stream.is_pushed = false;
    stream.to_push().is_open = false;
    ++stream.n_pushed;
  }
  for (WorkerId w : state.streams.ids()) answer(id, w);
  if (is_delayed()) begin_round(id);
  return {next, flags};
}

bool RowExchange::is_behind(Clock clock) const {
  for (TableId id : tables_.ids()) {
    if (is_pushed(id) && shard(id).clock() < clock) return true;
  }
  return false;
}

}  // namespace varscope
