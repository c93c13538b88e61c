#include "ps/update/norm_exchange.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/placement/cluster.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

constexpr std::size_t kDoublesPerMessage = (std::size_t{1} << 20) / sizeof(double);

MessageHeader norm_header(MessageType type, ServerId sender, Clock clock, NormKind kind) {
  MessageHeader header = make_header(type, sender.value, clock);
  header.flags = kind;
  return header;
}

}  // namespace

void NormStream::send(Transport& transport, Rank to, MessageHeader header, std::span<const double> values) {
  for (std::size_t begin = 0; begin < values.size(); begin += kDoublesPerMessage) {
    const auto part = values.subspan(begin, std::min(kDoublesPerMessage, values.size() - begin));
    header.sequence = static_cast<std::int64_t>(begin);
    transport.send_message(to, header, {reinterpret_cast<const char*>(part.data()), part.size_bytes()});
  }
}

bool NormStream::receive(const Message& message) {
  const std::size_t n = message.body.size() / sizeof(double);
  if (n == 0 || message.body.size() % sizeof(double) != 0 || n > values_.size() - n_received_ ||
      message.header.sequence != static_cast<std::int64_t>(n_received_)) {
    fail(ErrorKind::protocol, "rank {} sent {} bytes of {} from place {}, where {} of {} numbers are here",
         message.from.value, message.body.size(), to_string(type_of(message.header)), message.header.sequence,
         n_received_, values_.size());
  }
  std::memcpy(values_.data() + n_received_, message.body.data(), message.body.size());
  n_received_ += n;
  return n_received_ == values_.size();
}

NormReducer::NormReducer(Transport& transport, const ClusterMap& cluster, const VariableTable& variables,
                         const NormPlan& plan, NormKind kind, FiniteWatch& watch)
    : transport_(transport),
      cluster_(cluster),
      variables_(variables),
      plan_(plan),
      kind_(kind),
      watch_(watch) {
  for (ServerId s : plan.servers()) streams_.emplace_back(plan.n_sums(s));
  is_due_.assign(streams_.size(), false);
}

void NormReducer::on_sums(const Message& message) {
  const MessageHeader& h = message.header;
  const auto server = cluster_.server_at(message.from);
  if (!server || server->value != h.sender || plan_.n_sums(*server) == 0) {
    fail(ErrorKind::protocol, "rank {} sent norms as server {}", message.from.value, h.sender);
  }
  if (!clock_ && h.clock > last_) {
    clock_ = Clock(h.clock);
    for (ServerId s : plan_.servers()) {
      streams_[s].restart();
      is_due_[s] = plan_.n_sums(s) > 0;
    }
  }
  if (!clock_ || h.clock != clock_->value) {
    fail(ErrorKind::protocol, "server {} sent norms of step {}, where step {} is due", h.sender, h.clock,
         clock_ ? clock_->value : last_ + 1);
  }
  if (!streams_[*server].receive(message)) return;
  is_due_[*server] = false;
  if (std::ranges::none_of(is_due_, [](bool due) { return due; })) finish(*clock_);
}

void NormReducer::finish(Clock clock) {
  const NormPlan::SumOf sum_of = [this](const NormTerm& term, std::int64_t group) {
    return streams_[term.server].values()[static_cast<std::size_t>(term.place + group)];
  };
  const auto [factors, bad] = plan_.factors(sum_of);
  if (bad && !std::exchange(has_told_, true)) {
    const auto where = kind_ == kNormsOfGradients ? NotFiniteFinding::Where::gradient_norm
                                                  : NotFiniteFinding::Where::value_norm;
    for (const auto& [name, sum] : plan_.not_finite(variables_, sum_of, *bad))
      watch_.add({where, clock.value, name, "", 0, not_finite_text(sum)});
  }
  last_ = clock.value;
  clock_.reset();
  const MessageHeader header = norm_header(MessageType::norm_scales, ServerId(0), clock, kind_);
  for (ServerId s : plan_.servers()) {
    if (plan_.n_sums(s) > 0) NormStream::send(transport_, cluster_.rank_of(s), header, factors);
  }
}

NormExchange::NormExchange(Transport& transport, const ClusterMap& cluster, const NormPlan& plan,
                           ServerId server, NormKind kind)
    : transport_(transport),
      cluster_(cluster),
      plan_(plan),
      server_(server),
      kind_(kind),
      sums_(static_cast<std::size_t>(plan.n_sums(server)), 0),
      scales_(sums_.empty() ? 0 : plan.n_groups()) {}

std::span<double> NormExchange::sums(const NormTerm& term) {
  return std::span(sums_).subspan(static_cast<std::size_t>(term.place),
                                  static_cast<std::size_t>(term.n_groups));
}

void NormExchange::send(Clock clock) {
  waiting_ = clock;
  scales_.restart();
  NormStream::send(transport_, cluster_.rank_of(ServerId(0)),
                   norm_header(MessageType::norm_sums, server_, clock, kind_), sums_);
}

bool NormExchange::on_scales(const Message& message) {
  if (message.from != cluster_.rank_of(ServerId(0)) || !waiting_ || message.header.clock != waiting_->value) {
    fail(ErrorKind::protocol, "rank {} sent server {} factors of step {}, which are not due",
         message.from.value, server_.value, message.header.clock);
  }
  if (!scales_.receive(message)) return false;
  waiting_.reset();
  return true;
}

std::span<const double> NormExchange::scales(const NormTerm& term) const {
  return std::span(scales_.values())
      .subspan(plan_.place_of_factors(term), static_cast<std::size_t>(term.n_groups));
}

}  // namespace varscope
