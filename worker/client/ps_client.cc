#include "worker/client/ps_client.h"

#include <algorithm>
#include <limits>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

// What a worker pushes at a time.
std::vector<TreeNode> contributions_of(const ClusterMap& cluster, WorkerId worker, const StepRule& rule) {
  if (!rule.is_bsp()) return {TreeNode{}};
  return maximal_nodes(cluster.leaves_of(worker), cluster.logical_workers);
}

std::vector<PeerMonitor::Peer> servers_of(const ClusterMap& cluster, const std::vector<std::string>& hosts) {
  std::vector<PeerMonitor::Peer> peers;
  for (ServerId s : cluster.servers.ids()) {
    const Rank r = cluster.rank_of(s);
    const auto i = static_cast<std::size_t>(r.value);
    peers.push_back({r, fmt::format("server {}{}", s.value, i < hosts.size() ? " on host " + hosts[i] : "")});
  }
  return peers;
}

}  // namespace

PsClient::PsClient(Transport& transport, const ClusterMap& cluster, const BucketPlan& plan,
                   const RowPlan& rows, WorkerId worker, VariableMemory& memory, const Options& options)
    : transport_(transport),
      cluster_(cluster),
      plan_(plan),
      worker_(worker),
      memory_(memory),
      codec_(transport),
      rows_(transport, cluster, rows, worker, plan.size(),
            contributions_of(cluster, worker, options.rule).size(), options.rule.delay),
      step_timeout_s_(options.step_timeout_s),
      rule_(options.rule),
      first_(options.first),
      contributions_(contributions_of(cluster, worker, options.rule)),
      loop_(transport, *this, servers_of(cluster, options.hosts), worker.value, options.stall_timeout_s),
      states_(plan.size()),
      n_busy_(static_cast<std::size_t>(memory.n_sets()), 0),
      sequence_(cluster.n_servers(), 0) {
  if (memory.n_sets() != rule_.delay + 1)
    fail(ErrorKind::argument, "{} sets of memory with a delay of {}", memory.n_sets(), rule_.delay);
  for (std::vector<State>& of_bucket : states_) of_bucket.resize(n_busy_.size());
}

void PsClient::post_value_receives(const Bucket& bucket, Clock wanted, WireForm form) {
  State& state = state_of(bucket.id, wanted);
  const Rank server = cluster_.rank_of(bucket.server);
  const int set = memory_.set_of(wanted);
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) {
    value_pieces_.clear();
    memory_.value_pieces(bucket, set, bucket.wire_chunk(chunk), value_pieces_);
    codec_.receive(Flow::values, server, bucket, chunk, set, value_pieces_, form);
    ++state.receives;
  }
  state.header_due = true;
  state.ack_only = false;
  state.form = form;
  state.wanted = wanted;
}

void PsClient::pull(const Bucket& bucket, Clock clock, Clock wanted, WireForm form, std::uint32_t flags) {
  post_value_receives(bucket, wanted, form);
  ++busy_of(wanted);
  MessageHeader header = make_header(MessageType::pull, worker_.value, clock);
  header.bucket = bucket.id.value;
  header.flags = flags | (form == WireForm::encoded ? kFlagEncoded : 0);
  transport_.send_message(cluster_.rank_of(bucket.server), header);
}

void PsClient::pull_all(Clock clock) {
  for (const Bucket& bucket : plan_.buckets())
    pull(bucket, clock, clock, form_of_values(bucket), kFlagDrained);
}

void PsClient::pull_pushed(Clock clock) {
  for (const Bucket& bucket : plan_.buckets()) {
    if (bucket.is_pushed()) pull(bucket, clock, clock, form_of_values(bucket));
  }
}

void PsClient::pull_all_full(Clock clock) {
  for (const Bucket& bucket : plan_.buckets()) pull(bucket, clock, clock, WireForm::full, kFlagDrained);
}

void PsClient::wait_for_step(BucketId id, Clock step) {
  wait(id);
  const Bucket& bucket = plan_[id];
  const Clock least = rule_.least_read(step, first_);
  if (!bucket.is_pushed() || state_of(id, least).holds >= least) return;
  pull(bucket, Clock(step.value - 1), least, form_of_values(bucket));
  wait(id);
}

void PsClient::wait_all_for_step(Clock step) {
  for (const Bucket& bucket : plan_.buckets()) wait_for_step(bucket.id, step);
  wait_all();
}

void PsClient::pull_full(Clock clock) {
  for (const Bucket& bucket : plan_.buckets()) {
    if (codec_of(bucket, Flow::values)) pull(bucket, clock, clock, WireForm::full);
  }
}

void PsClient::round_values(Clock clock) {
  for (const Bucket& bucket : plan_.buckets()) {
    if (!codec_of(bucket, Flow::values)) continue;
    for (const BucketSlice& s : bucket.slices) {
      varscope::round_values(
          memory_.value(s.variable, memory_.set_of(clock))
              .as<float>()
              .subspan(static_cast<std::size_t>(s.variable_begin), static_cast<std::size_t>(s.n_elements)));
    }
  }
}

namespace {

void check_ready(bool is_ready, const Bucket& bucket) {
  if (is_ready) return;
  fail(ErrorKind::argument, "bucket {} ({}) is pushed while its value is under way", bucket.id.value,
       bucket.scope);
}

}  // namespace

// Posts what comes back.
MessageHeader PsClient::begin_push(const Bucket& bucket, Clock clock, std::uint32_t flags) {
  State& state = state_of(bucket.id, clock);
  check_ready(state.is_ready(), bucket);
  state.ack_only = (flags & kFlagAck) != 0;
  if (state.ack_only) {
    state.header_due = true;
    state.wanted = clock;
  } else {
    post_value_receives(bucket, clock, form_of_values(bucket));
  }
  MessageHeader header = make_header(MessageType::push, worker_.value, clock);
  header.leaf_begin = cluster_.leaves_of(worker_).begin;
  header.flags = flags;
  return header;
}

void PsClient::push(BucketId id, Clock clock, std::uint32_t flags, std::string_view body) {
  const std::int64_t started = now_ns();
  const Bucket& bucket = plan_[id];
  const MessageHeader header = begin_push(bucket, clock, flags);
  send_gradients(bucket, header, body, static_cast<int>(contributions_.size()));
  communicate_ns_ += now_ns() - started;
}

void PsClient::push(BucketId id, Clock clock, std::uint32_t flags, const GradientCoder& coder,
                    std::string_view body) {
  const std::int64_t started = now_ns();
  const Bucket& bucket = plan_[id];
  const MessageHeader header = begin_push(bucket, clock, flags | kFlagEncoded);
  send_encoded(bucket, header, body, coder, cluster_.leaves_of(worker_).size());
  communicate_ns_ += now_ns() - started;
}

// Of one ticket: posts what comes back.
MessageHeader PsClient::begin_push(const Bucket& bucket, Clock clock, const PushOfTicket& ticket) {
  State& state = state_of(bucket.id, clock);
  check_ready(state.is_ready(), bucket);
  state.ack_only = ticket.details.next_step == PushDetails::kNone;
  if (state.ack_only) {
    state.header_due = true;
    state.wanted = clock;
  } else {
    post_value_receives(bucket, rule_.least_read(Clock(ticket.details.next_step), first_),
                        form_of_values(bucket));
  }
  MessageHeader header = make_header(MessageType::push, worker_.value, clock);
  header.leaf_begin = ticket.leaf_begin;
  header.flags = state.ack_only ? kFlagAck : 0;
  return header;
}

void PsClient::push(BucketId id, Clock clock, const PushOfTicket& ticket) {
  const std::int64_t started = now_ns();
  const Bucket& bucket = plan_[id];
  const MessageHeader header = begin_push(bucket, clock, ticket);
  send_gradients(bucket, header, bytes_of(ticket.details), ticket.details.share > 0 ? 1 : 0);
  communicate_ns_ += now_ns() - started;
}

void PsClient::push(BucketId id, Clock clock, const PushOfTicket& ticket, const GradientCoder& coder) {
  const std::int64_t started = now_ns();
  const Bucket& bucket = plan_[id];
  MessageHeader header = begin_push(bucket, clock, ticket);
  header.flags |= kFlagEncoded;
  send_encoded(bucket, header, bytes_of(ticket.details), coder, 1);
  communicate_ns_ += now_ns() - started;
}

void PsClient::push_residual(BucketId id, Clock clock, const GradientCoder& coder) {
  const std::int64_t started = now_ns();
  const Bucket& bucket = plan_[id];
  const double share = coder.share(bucket);
  const PushDetails details{.next_step = PushDetails::kNone, .share = share, .n_leaves = 1};
  MessageHeader header = begin_push(bucket, clock, PushOfTicket{0, details});
  header.flags |= kFlagFlush;
  send_header(bucket, header, bytes_of(details), WireForm::full, share > 0 ? 1 : 0);
  for (int chunk = 0; share > 0 && chunk < bucket.n_wire_chunks(); ++chunk) {
    const WireChunk part = bucket.wire_chunk(chunk);
    codec_.send_as_is(
        Flow::gradients, cluster_.rank_of(bucket.server), bucket, chunk, 0,
        std::as_bytes(coder.residual(bucket, 0))
            .subspan(static_cast<std::size_t>(part.begin), static_cast<std::size_t>(part.n_bytes)));
    ++state_of(id, clock).sends;
  }
  ++busy_of(clock);
  communicate_ns_ += now_ns() - started;
}

void PsClient::send_encoded(const Bucket& bucket, MessageHeader header, std::string_view body,
                            const GradientCoder& coder, int n_leaves) {
  send_header(bucket, header, body, WireForm::encoded, n_leaves);
  const Clock clock(header.clock);
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) {
    for (int leaf = 0; leaf < n_leaves; ++leaf) {
      codec_.send_as_is(Flow::gradients, cluster_.rank_of(bucket.server), bucket, chunk, key_of(leaf, clock),
                        coder.encoded(bucket, static_cast<std::size_t>(leaf), chunk, clock));
      ++state_of(bucket.id, clock).sends;
    }
  }
  ++busy_of(clock);
}

// Of a push of n contributions.
void PsClient::send_header(const Bucket& bucket, MessageHeader header, std::string_view body, WireForm form,
                           int n) {
  header.bucket = bucket.id.value;
  header.sequence = ++sequence_[bucket.server];
  header.n_bytes =
      static_cast<std::uint64_t>(wire_bytes(bucket, Flow::gradients, form)) * static_cast<std::uint64_t>(n);
  header.n_contributions = n;
  traffic_.up += static_cast<std::int64_t>(header.n_bytes);
  // What is flushed has been left out before, which would not have been without compression.
  const std::int64_t n_full = (header.flags & kFlagFlush) != 0 ? 0
                              : form == WireForm::encoded      ? std::ssize(contributions_)
                                                               : n;
  traffic_.full_up += n_full * bucket.n_bytes();
  transport_.send_message(cluster_.rank_of(bucket.server), header, body);
}

// From the first n gradient buffers, whose elements are interleaved chunk by chunk.
void PsClient::send_gradients(const Bucket& bucket, MessageHeader header, std::string_view body, int n) {
  const Clock clock(header.clock);
  State& state = state_of(bucket.id, clock);
  const Rank server = cluster_.rank_of(bucket.server);
  send_header(bucket, header, body, WireForm::full, n);
  for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) {
    for (int c = 0; c < n; ++c) {
      gradient_pieces_.clear();
      memory_.gradient_pieces(bucket, memory_.buffer_of(c, clock), bucket.wire_chunk(chunk),
                              gradient_pieces_);
      codec_.send(Flow::gradients, server, bucket, chunk, key_of(c, clock), gradient_pieces_);
      ++state.sends;
    }
  }
  ++busy_of(clock);
}

bool PsClient::ready(BucketId id) const { return std::ranges::all_of(states_[id], &State::is_ready); }

void PsClient::on_message(const Message& message) {
  const MessageHeader& h = message.header;
  switch (type_of(h)) {
    case MessageType::heartbeat:
      return;
    case MessageType::go:
      if (rule_.has_backups()) return take_step_go(message);
      // As many steps are open as there are sets of memory.
      if (gos_.size() == n_busy_.size()) fail(ErrorKind::protocol, "step {} was let go twice", h.clock);
      gos_.push_back(h);
      return;
    case MessageType::shutdown:
      shutdown_ = true;
      return;
    case MessageType::feed:
      feeds_.push_back(from_binary<FedFile>(message.body, "a file to learn from"));
      return;
    case MessageType::rows:
      note_gate(h);
      return rows_.on_rows(h);
    case MessageType::value:
    case MessageType::ack:
      break;
    default:
      fail(ErrorKind::protocol, "rank {} sent worker {} a {}", message.from.value, worker_.value,
           to_string(type_of(h)));
  }
  if (!plan_.has(BucketId(h.bucket))) {
    fail(ErrorKind::protocol, "server {} answered for bucket {}, which does not exist", h.sender, h.bucket);
  }
  const Bucket& bucket = plan_[BucketId(h.bucket)];
  const Clock version(std::max<std::int64_t>(h.clock, 0));
  State& state = state_of(bucket.id, version);
  const bool is_ack = type_of(h) == MessageType::ack;
  if (!state.header_due || h.clock < state.wanted.value || is_ack != state.ack_only ||
      (!is_ack && h.n_bytes != static_cast<std::uint64_t>(wire_bytes(bucket, Flow::values, state.form)))) {
    fail(ErrorKind::protocol,
         "server {} sent a {} of step {} ({} bytes) of bucket {} ({}), where step {} was due", h.sender,
         to_string(type_of(h)), h.clock, h.n_bytes, h.bucket, bucket.scope, state.wanted.value);
  }
  state.header_due = false;
  if (!is_ack) {
    state.holds = Clock(h.clock);
    traffic_.down += static_cast<std::int64_t>(h.n_bytes);
    traffic_.full_down += bucket.n_bytes();
  }
  note_gate(h);
  if (state.is_ready()) --busy_of(version);
}

// Of several that have come while this worker was busy, the newest counts.
void PsClient::take_step_go(const Message& message) {
  const MessageHeader& h = message.header;
  const bool is_of_next = (h.flags & (kFlagBegin | kFlagEnd)) != 0;
  const Clock step(is_of_next ? h.clock - 1 : h.clock);
  if (step_go_ && (is_of_next ? step < step_go_->step : step <= step_go_->step))
    fail(ErrorKind::protocol, "step {} was let go after step {}", h.clock, step_go_->step.value);
  step_go_ =
      StepGo{step, h.flags,
             is_of_next ? CountedWorkers() : CountedWorkers::from_bytes(message.body, cluster_.n_workers())};
}

const PsClient::StepGo& PsClient::wait_newest_go(Clock least) {
  wait_until("waiting for the step barrier", [&] { return step_go_ && step_go_->step >= least; });
  return *step_go_;
}

const PsClient::StepGo& PsClient::wait_begin(Clock next) {
  wait_until("waiting for the step barrier", [&] {
    const bool is_of_next = step_go_ && (step_go_->flags & (kFlagBegin | kFlagEnd)) != 0;
    return step_go_ && (step_go_->step >= next || (is_of_next && step_go_->step.value + 1 == next.value));
  });
  return *step_go_;
}

void PsClient::note_gate(const MessageHeader& answer) {
  const auto gated_ns = static_cast<std::int64_t>(
      std::min<std::uint64_t>(answer.gated_ns, std::numeric_limits<std::int64_t>::max()));
  longest_gate_ns_ = std::max(longest_gate_ns_, gated_ns);
}

void PsClient::on_completion(const Completion& completion) {
  if (RowCodec::is_of_rows(completion)) return rows_.on_completion(completion);
  const Bucket& bucket = plan_[BucketId(completion.key.bucket)];
  const bool is_gradients = WireCodec::flow_of(completion) == Flow::gradients;
  const auto set =
      static_cast<std::size_t>(completion.key.contribution / (is_gradients ? cluster_.logical_workers : 1));
  State& state = states_[bucket.id][set];
  if (is_gradients) {
    --state.sends;
  } else {
    codec_.arrived(bucket, completion);
    --state.receives;
  }
  if (state.is_ready()) --n_busy_[set];
}

void PsClient::progress() {
  const std::int64_t started = now_ns();
  loop_.poll();
  loop_.show_life("computing");
  communicate_ns_ += now_ns() - started;
}

template <class Done>
void PsClient::wait_until(const char* doing, Done done) {
  wait_until(doing, step_timeout_s_, done);
}

template <class Done>
void PsClient::wait_until(const char* doing, double limit_s, Done done) {
  if (done()) return;
  const std::int64_t started = now_ns();
  loop_.begin_turns();
  while (!done()) {
    loop_.turn(doing, [] { return false; });
    if (static_cast<double>(now_ns() - started) * 1e-9 > limit_s) {
      fail(ErrorKind::stall,
           "worker {} is {} for {:g} s{}, though every server lives: another worker is stuck or very slow; "
           "raise cluster.step_timeout_s if steps may take so long",
           worker_.value, doing, limit_s, missing_text());
    }
  }
  wait_ns_ += now_ns() - started;
}

// An answer that comes while it is waited for has been at the gate for that time, or less.
template <class Done>
void PsClient::wait_for_answers(const char* doing, Done done) {
  longest_gate_ns_ = 0;
  const std::int64_t before = wait_ns_;
  wait_until(doing, done);
  gate_ns_ += std::min(wait_ns_ - before, longest_gate_ns_);
}

// What is still due, and from whom.
std::string PsClient::missing_text() const {
  for (const Bucket& bucket : plan_.buckets()) {
    const auto s = std::ranges::find_if_not(states_[bucket.id], &State::is_ready);
    if (s == states_[bucket.id].end()) continue;
    return fmt::format(" (step {} of scope \"{}\" from server {}: {} sends, {} receives open)",
                       s->wanted.value, bucket.scope, bucket.server.value, s->sends, s->receives);
  }
  return rows_.missing_text();
}

void PsClient::wait(BucketId bucket) {
  wait_for_answers("waiting for values", [&] { return ready(bucket); });
}

void PsClient::wait_all() {
  wait_for_answers("waiting for values", [&] {
    return std::ranges::all_of(n_busy_, [](int n) { return n == 0; }) && rows_.all_ready();
  });
}

void PsClient::wait_version(BucketId bucket, Clock clock) {
  const State& state = state_of(bucket, clock);
  wait_for_answers("waiting for values", [&] { return state.is_ready(); });
}

void PsClient::wait_all_of_version(Clock clock) {
  const int& n_busy = busy_of(clock);
  wait_for_answers("waiting for values", [&] { return n_busy == 0 && rows_.all_ready(); });
}

void PsClient::wait_rows(TableId table) {
  wait_for_answers("waiting for rows", [&] { return rows_.ready(table); });
}

std::uint32_t PsClient::wait_go(Clock clock) {
  wait_until("waiting for the step barrier", [&] { return is_let_go(); });
  const MessageHeader go = *take_go();
  if (go.clock != clock.value) {
    fail(ErrorKind::protocol, "the coordinator let step {} go, where worker {} is at step {}", go.clock,
         worker_.value, clock.value);
  }
  return go.flags;
}

std::optional<MessageHeader> PsClient::take_go() {
  if (gos_.empty()) return std::nullopt;
  const MessageHeader go = gos_.front();
  gos_.pop_front();
  return go;
}

void PsClient::ask_for_ticket() {
  send_to_coordinator(make_header(MessageType::ticket_request, worker_.value, Clock(0)), {});
}

MessageHeader PsClient::wait_ticket() {
  wait_until("waiting for a step to compute", [&] { return is_let_go(); });
  return *take_go();
}

// Servers live as long as their heartbeats come: nobody says when the next record will.
void PsClient::wait_feed() {
  wait_until("waiting for data", std::numeric_limits<double>::infinity(),
             [&] { return !feeds_.empty() || is_let_go(); });
}

void PsClient::send_to_coordinator(MessageHeader header, const std::string& body) {
  const std::int64_t started = now_ns();
  transport_.send_message(cluster_.rank_of(ServerId(0)), header, body);
  communicate_ns_ += now_ns() - started;
}

void PsClient::wait_shutdown() {
  wait_until("waiting for the end of the job", [&] { return shutdown_; });
  transport_.flush(10);
}

}  // namespace varscope
