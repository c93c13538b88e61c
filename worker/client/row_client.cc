#include "worker/client/row_client.h"

#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/transport/wire.h"

namespace varscope {

RowClient::RowClient(Transport& transport, const ClusterMap& cluster, const RowPlan& plan, WorkerId worker,
                     int n_buckets, std::size_t n_contributions, std::int64_t delay)
    : transport_(transport),
      cluster_(cluster),
      plan_(plan),
      worker_(worker),
      codec_(transport, n_buckets),
      n_contributions_(n_contributions),
      delay_(delay),
      states_(plan.size()) {
  for (State& s : states_) s.shares = IdVector<ServerId, Share>(cluster.n_servers());
}

void RowClient::want(TableId id, Clock clock, std::span<const std::span<const std::uint64_t>> ids,
                     std::byte* values, bool is_read) {
  const RowPlan::Table& table = plan_[id];
  State& s = state(id);
  if (s.n_rows_due > 0)
    fail(ErrorKind::argument, "rows of table \"{}\" are asked for while others are under way", table.name);
  s.clock = clock;
  std::size_t begin = 0;
  for (ServerId server : s.shares.ids()) {
    const std::span<const std::uint64_t> wanted = ids[static_cast<std::size_t>(server.value)];
    Share& share = s.shares[server];
    share.begin = begin;
    share.n_rows = wanted.size();
    begin += wanted.size();
    if (!table.has_parts[server]) continue;
    const Rank rank = cluster_.rank_of(server);
    // Receives come first: what lands early needs no buffer in between.
    share.n_receives =
        codec_.receive(RowFlow::values, rank, id, server.value,
                       {values + share.begin * table.row_bytes(), share.n_rows * table.row_bytes()});
    share.is_header_due = true;
    MessageHeader header = make_header(MessageType::rows_wanted, worker_.value, clock);
    header.bucket = id.value;
    header.n_bytes = wanted.size_bytes();
    header.flags = is_read ? kFlagRead : 0;
    transport_.send_message(rank, header);
    const std::span<std::byte> sent = share.ids.of(wanted.size_bytes());
    if (!wanted.empty()) std::memcpy(sent.data(), wanted.data(), wanted.size_bytes());
    const int n_sends = codec_.send(RowFlow::ids, rank, id, server.value, sent);
    share.n_sends += n_sends;
    count_rows(id, 1 + share.n_receives);
    count_sends(id, n_sends);
  }
}

void RowClient::push(TableId id, Clock clock, std::uint32_t flags,
                     std::span<const Contribution> contributions, const PushOfTicket* ticket,
                     std::string_view details) {
  const RowPlan::Table& table = plan_[id];
  const State& s = state(id);
  if (!ready(id))
    fail(ErrorKind::argument, "table \"{}\" is pushed while its rows are under way", table.name);
  if (!table.trainable) fail(ErrorKind::argument, "table \"{}\" is not trained, and is pushed", table.name);
  const std::int64_t behind = clock.value - 1 - s.clock.value;
  if (contributions.size() != n_contributions_ || behind < 0 || behind > delay_) {
    fail(ErrorKind::argument,
         "table \"{}\" is pushed with {} contributions to step {}, where {} to step {} are due", table.name,
         contributions.size(), clock.value, n_contributions_, s.clock.value + 1);
  }
  for (const Contribution& c : contributions) {
    if (table.counts_ids() && c.counts == nullptr && !c.positions.empty())
      fail(ErrorKind::argument, "table \"{}\" is pushed without counts of its ids", table.name);
  }
  MessageHeader header = make_header(MessageType::rows_push, worker_.value, clock);
  header.bucket = id.value;
  header.leaf_begin = ticket != nullptr ? ticket->leaf_begin : cluster_.leaves_of(worker_).begin;
  header.flags = flags;
  const std::string body(ticket != nullptr ? bytes_of(ticket->details) : details);
  for (ServerId server : s.shares.ids()) {
    if (table.has_parts[server]) push_share(table, server, header, body, contributions);
  }
}

namespace {

void put_counts(std::span<const std::int32_t> rows, const RowClient::Contribution& contribution,
                std::byte* to, std::byte* end) {
  for (const std::int32_t row : rows) {
    std::memcpy(to, contribution.counts + row, sizeof(std::uint32_t));
    to += sizeof(std::uint32_t);
  }
  std::fill(to, end, std::byte{0});
}

}  // namespace

// Gathers what goes to one server: its rows are those from share.begin on.
void RowClient::push_share(const RowPlan::Table& table, ServerId server, MessageHeader header,
                           const std::string& body, std::span<const Contribution> contributions) {
  Share& share = state(table.id).shares[server];
  std::vector<std::span<const std::int32_t>> mine;
  std::vector<std::uint32_t> n_rows;
  for (const Contribution& c : contributions) {
    const auto place = [&](std::size_t row) {
      return std::ranges::lower_bound(c.positions, row, {},
                                      [](std::int32_t p) { return static_cast<std::size_t>(p); });
    };
    const auto first = place(share.begin), last = place(share.begin + share.n_rows);
    mine.emplace_back(first, last);
    n_rows.push_back(static_cast<std::uint32_t>(last - first));
  }
  const std::size_t row_bytes = table.row_bytes();
  const RowsPushLayout layout(n_rows, row_bytes, table.counts_ids());
  const std::span<std::byte> bytes = share.push.of(layout.n_bytes());
  for (std::size_t c = 0; c < mine.size(); ++c) {
    std::byte* position = bytes.data() + layout.positions_at(c);
    std::byte* gradient = bytes.data() + layout.gradients_at(c);
    std::byte* const numbers_end =
        bytes.data() + (table.counts_ids() ? layout.counts_at(c) : layout.gradients_at(c));
    for (const std::int32_t position_of_all : mine[c]) {
      const auto at = static_cast<std::size_t>(position_of_all);
      const auto in_share = static_cast<std::uint32_t>(at - share.begin);
      std::memcpy(position, &in_share, sizeof in_share);
      std::memcpy(gradient, contributions[c].gradients + at * row_bytes, row_bytes);
      position += sizeof in_share;
      gradient += row_bytes;
    }
    // What fills up to 8 bytes travels, too: not as it happens to lie there.
    std::fill(position, numbers_end, std::byte{0});
    if (table.counts_ids())
      put_counts(mine[c], contributions[c], numbers_end, bytes.data() + layout.gradients_at(c));
    const std::size_t end = c + 1 < mine.size() ? layout.positions_at(c + 1) : layout.n_bytes();
    std::fill(gradient, bytes.data() + end, std::byte{0});
  }
  header.n_bytes = bytes.size();
  header.n_contributions = static_cast<std::int32_t>(n_rows.size());
  const Rank rank = cluster_.rank_of(server);
  transport_.send_message(rank, header, body + to_binary(n_rows));
  share.n_sends = codec_.send(RowFlow::gradients, rank, table.id, server.value, bytes);
  count_sends(table.id, share.n_sends);
}

void RowClient::on_rows(const MessageHeader& h) {
  const TableId id(h.bucket);
  const ServerId server(h.sender);
  if (!plan_.has(id) || !state(id).shares.has(server))
    fail(ErrorKind::protocol, "server {} answered for table {}, which does not exist", h.sender, h.bucket);
  const RowPlan::Table& table = plan_[id];
  Share& share = state(id).shares[server];
  if (!share.is_header_due || h.clock != state(id).clock.value ||
      h.n_bytes != share.n_rows * table.row_bytes()) {
    fail(ErrorKind::protocol,
         "server {} sent rows of table \"{}\" of step {} ({} bytes), where {} rows of step {} were due",
         h.sender, table.name, h.clock, h.n_bytes, share.is_header_due ? share.n_rows : 0,
         state(id).clock.value);
  }
  share.is_header_due = false;
  count_rows(id, -1);
}

void RowClient::on_completion(const Completion& completion) {
  const TableId id(completion.key.bucket);
  Share& share = state(id).shares[ServerId(completion.key.contribution)];
  if (RowCodec::flow_of(completion) == RowFlow::values) {
    RowCodec::arrived(completion, share.n_rows * plan_[id].row_bytes());
    --share.n_receives;
    count_rows(id, -1);
  } else {
    --share.n_sends;
    count_sends(id, -1);
  }
}

std::string RowClient::missing_text() const {
  for (const RowPlan::Table& table : plan_.tables()) {
    const State& s = state(table.id);
    for (ServerId server : s.shares.ids()) {
      const Share& share = s.shares[server];
      if (!share.is_header_due && share.n_sends == 0 && share.n_receives == 0) continue;
      return fmt::format(" (rows of table \"{}\" after step {} from server {}: {} sends, {} receives open)",
                         table.name, s.clock.value, server.value, share.n_sends, share.n_receives);
    }
  }
  return "";
}

}  // namespace varscope
