#include "tests/support/jobs/push_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/base/clock.h"
#include "common/base/serialize.h"
#include "common/transport/reports.h"
#include "common/transport/wire.h"

namespace varscope::testing {

PushWorker::PushWorker(Transport& transport, const ClusterMap& cluster, const PushExchange& e,
                       WorkerId worker, PushedTickets& pushed)
    : exchange_(e),
      cluster_(cluster),
      pushed_(pushed),
      space_{cluster.logical_workers, e.steps, e.last_is_short},
      plan_(BucketPlan::make(e.variables, cluster.n_servers(), e.chunks)),
      row_plan_(RowPlan::make(e.variables, cluster.n_servers())),
      memory_(e.variables, 1),
      client_(transport, cluster, plan_, row_plan_, worker, memory_,
              {.rule = e.rule, .first = Clock(e.first)}),
      random_(e.seed * 1000 + static_cast<std::uint64_t>(worker.value)),
      own_(static_cast<std::size_t>(cluster.logical_workers), 0),
      rows_(row_plan_.size()) {}

void PushWorker::run() {
  client_.pull_all(Clock(exchange_.first));
  client_.wait_all();
  ask_for_first(Clock(exchange_.first));
  while (true) {
    if (!next_go_) next_go_ = client_.wait_ticket();
    const MessageHeader go = *std::exchange(next_go_, std::nullopt);
    if ((go.flags & kFlagEnd) != 0) break;
    if ((go.flags & kFlagDrain) == 0) {
      compute(ticket_of(go));
      continue;
    }
    if (!drain(Clock(go.clock))) break;
    ask_for_first(Clock(go.clock));
  }
  client_.send_to_coordinator(
      make_header(MessageType::finished, client_.worker().value, Clock(exchange_.steps)), "");
  client_.wait_shutdown();
}

// After a meeting of all, whose values it has: others may be far ahead when it asks.
void PushWorker::ask_for_first(Clock values) {
  while (exchange_.may_ask && !exchange_.may_ask(client_.worker(), values)) {
    client_.progress();
    std::this_thread::yield();
  }
  client_.ask_for_ticket();
}

PushWorker::Ticket PushWorker::ticket_of(const MessageHeader& go) const {
  Ticket t{.step = go.clock, .held_after = go.sequence, .is_cut = (go.flags & kFlagCut) != 0};
  const int n = exchange_.rule.is_dynamic() ? 1 : cluster_.leaves_of(client_.worker()).size();
  t.leaves = {go.leaf_begin, go.leaf_begin + n};
  int n_with_samples = 0;
  for (int leaf = t.leaves.begin; leaf < t.leaves.end; ++leaf)
    n_with_samples += space_.has_samples(t.step, leaf) ? 1 : 0;
  t.share = static_cast<double>(n_with_samples) / space_.n_with_samples(t.step);
  if (exchange_.holding == Holding::never) t.held_after = exchange_.first;
  if (exchange_.holding == Holding::and_of_cut && t.is_cut) t.held_after = t.step;
  return t;
}

void PushWorker::compute(const Ticket& ticket) {
  for (const RowPlan::Table& table : row_plan_.tables()) {
    std::vector<std::uint64_t> ids;
    for (std::uint64_t id = 0; id < kCountingRows; ++id) {
      bool is_touched = false;
      for (int leaf = ticket.leaves.begin; leaf < ticket.leaves.end; ++leaf)
        is_touched = is_touched || touches_row(ticket.step, leaf, id);
      if (is_touched) ids.push_back(id);
    }
    want(table, std::move(ids), Clock(ticket.step - 1), false);  // what was pushed may still be leaving
  }
  client_.wait_all_for_step(Clock(ticket.step));
  read_all(ticket.step, exchange_.staleness);
  if (exchange_.on_read) exchange_.on_read(client_.worker(), Clock(ticket.step));
  pause();
  while (exchange_.may_push && !exchange_.may_push(client_.worker(), Clock(ticket.step))) {
    client_.progress();
    std::this_thread::yield();
  }
  client_.ask_for_ticket();
  for (int leaf = ticket.leaves.begin; leaf < ticket.leaves.end; ++leaf) {
    if (!space_.has_samples(ticket.step, leaf)) continue;
    pushed_.add(ticket.step, leaf);
    own_[static_cast<std::size_t>(leaf)] |= StepSet{1} << (ticket.step - 1);
  }
  const int n = plan_.size();
  for (int k = 0; k < n; ++k) {  // workers take buckets in different orders
    const Bucket& bucket = plan_[BucketId((k + client_.worker().value) % n)];
    if (!bucket.is_pushed()) continue;
    fill_gradients(bucket, ticket);
    if (random_() % 2 == 0) client_.progress();
    client_.push(bucket.id, Clock(ticket.step), push_of(ticket));
  }
  for (const RowPlan::Table& table : row_plan_.tables()) push_rows(table, ticket);
  const std::int64_t began_ns = now_ns();
  while (exchange_.is_deaf && exchange_.is_deaf(client_.worker(), Clock(ticket.step))) {
    if (now_ns() - began_ns > std::int64_t{1'000'000'000} * exchange_.limit_s)
      break;  // another rank has failed
    std::this_thread::yield();
  }
  report(ticket);
}

// Some tickets take long, and some of these without a look at what comes.
void PushWorker::pause() {
  if (exchange_.most_pauses == 0) return;
  const std::uint64_t draw = random_();
  const auto n =
      static_cast<int>(draw % 4 == 0 ? draw / 8 % static_cast<std::uint64_t>(exchange_.most_pauses) : 0);
  for (int i = 0; i < n; ++i) {
    if ((draw & 4) != 0) client_.progress();
    std::this_thread::yield();
  }
}

void PushWorker::want(const RowPlan::Table& table, std::vector<std::uint64_t> ids, Clock clock,
                      bool is_read) {
  Rows& rows = rows_[table.id];
  rows.ids = std::move(ids);
  std::ranges::sort(rows.ids, {},
                    [&](std::uint64_t id) { return std::pair(table.server_of(id).value, mix_row_id(id)); });
  rows.values.assign(rows.ids.size() * static_cast<std::size_t>(table.units), 0);
  std::vector<std::span<const std::uint64_t>> of_servers;
  auto begin = rows.ids.cbegin();
  for (ServerId s : cluster_.servers.ids()) {
    const auto end =
        std::find_if(begin, rows.ids.cend(), [&](std::uint64_t id) { return table.server_of(id) != s; });
    of_servers.emplace_back(begin, end);
    begin = end;
  }
  client_.rows().want(table.id, clock, of_servers, reinterpret_cast<std::byte*>(rows.values.data()), is_read);
}

void PushWorker::read_all(std::int64_t step, std::optional<std::int64_t> staleness) {
  for (const Bucket& bucket : plan_.buckets()) {
    for (const BucketSlice& slice : bucket.slices) {
      if (bucket.is_pushed()) read_slice(slice, step, staleness);
    }
  }
  for (const RowPlan::Table& table : row_plan_.tables()) read_rows(table, step, staleness);
}

// Where all workers have met there is nothing of this step or a later one.
StepSet PushWorker::may_hold(std::int64_t step, int leaf) const {
  return has_met_ ? space_.up_to(step - 1, leaf) : pushed_.of(leaf);
}

void PushWorker::read_slice(const BucketSlice& slice, std::int64_t step,
                            std::optional<std::int64_t> staleness) {
  const auto values = std::as_const(memory_)
                          .value(slice.variable)
                          .as<double>()
                          .subspan(static_cast<std::size_t>(slice.variable_begin),
                                   static_cast<std::size_t>(slice.n_elements));
  CountedRead read{fmt::format("slice {} of {}", slice.index,
                               exchange_.variables[static_cast<std::size_t>(slice.variable)].name),
                   step,
                   staleness,
                   {}};
  std::string why;
  const auto holds = count_tickets(values, slice.variable_begin, space_.n_leaves, why);
  if (!holds) {
    ++findings_.n_reads;
    return findings_.wrong(fmt::format("{} of step {}: {}", read.what, step, why));
  }
  for (int leaf = 0; leaf < space_.n_leaves; ++leaf)
    read.leaves.push_back(
        {space_.up_to(step - 1, leaf), own_[static_cast<std::size_t>(leaf)], may_hold(step, leaf)});
  ++findings_.leads[check_read(read, *holds, findings_)];
}

void PushWorker::read_rows(const RowPlan::Table& table, std::int64_t step,
                           std::optional<std::int64_t> staleness) {
  const Rows& rows = rows_[table.id];
  const auto units = static_cast<std::size_t>(table.units);
  for (std::size_t row = 0; row < rows.ids.size(); ++row) {
    const std::uint64_t id = rows.ids[row];
    CountedRead read{fmt::format("row {} of {}", id, table.name), step, staleness, {}};
    std::string why;
    const auto holds =
        count_tickets(std::span(rows.values).subspan(row * units, units), 0, space_.n_leaves, why);
    if (!holds) {
      ++findings_.n_reads;
      findings_.wrong(fmt::format("{} of step {}: {}", read.what, step, why));
      continue;
    }
    for (int leaf = 0; leaf < space_.n_leaves; ++leaf) {
      const StepSet of_row = row_tickets(space_, id, leaf, space_.last);
      read.leaves.push_back({row_tickets(space_, id, leaf, step - 1),
                             own_[static_cast<std::size_t>(leaf)] & of_row, may_hold(step, leaf) & of_row});
    }
    ++findings_.row_leads[check_read(read, *holds, findings_)];
  }
}

// What a ticket's gradient has for an element: the update is minus its share times that.
double PushWorker::unit_of(const Ticket& ticket, std::int64_t element) const {
  const auto leaf = static_cast<int>(element % space_.n_leaves);
  const bool is_in = leaf >= ticket.leaves.begin && leaf < ticket.leaves.end;
  return is_in && space_.has_samples(ticket.step, leaf)
             ? -static_cast<double>(StepSet{1} << (ticket.step - 1)) / ticket.share
             : 0;
}

void PushWorker::fill_gradients(const Bucket& bucket, const Ticket& ticket) {
  std::vector<double> units;
  for (std::int64_t e = 0; e < space_.n_leaves; ++e) units.push_back(unit_of(ticket, e));
  for (const BucketSlice& slice : bucket.slices) {
    const auto gradient = memory_.gradient(0, slice.variable).as<double>();
    for (std::int64_t e = slice.variable_begin; e < slice.variable_begin + slice.n_elements; ++e)
      gradient[static_cast<std::size_t>(e)] = units[static_cast<std::size_t>(e % space_.n_leaves)];
  }
}

void PushWorker::push_rows(const RowPlan::Table& table, const Ticket& ticket) {
  const Rows& rows = rows_[table.id];
  const auto units = static_cast<std::size_t>(table.units);
  std::vector<double> gradients(rows.values.size(), 0);
  std::vector<std::int32_t> positions;
  for (std::size_t row = 0; row < rows.ids.size() && ticket.share > 0; ++row) {
    positions.push_back(static_cast<std::int32_t>(row));
    for (std::size_t c = 0; c < units; ++c) {
      const auto leaf = static_cast<int>(c % static_cast<std::size_t>(space_.n_leaves));
      if (touches_row(ticket.step, leaf, rows.ids[row]))
        gradients[row * units + c] = unit_of(ticket, static_cast<std::int64_t>(c));
    }
  }
  const RowClient::Contribution contribution{positions, reinterpret_cast<std::byte*>(gradients.data()),
                                             nullptr};
  const PushOfTicket push = push_of(ticket);
  client_.wait_rows(table.id);
  client_.rows().push(table.id, Clock(ticket.step), 0, std::span(&contribution, 1), &push);
}

PushOfTicket PushWorker::push_of(const Ticket& ticket) {
  if (!next_go_) next_go_ = client_.take_go();
  const bool is_last = next_go_ && (next_go_->flags & (kFlagDrain | kFlagEnd)) != 0;
  return {ticket.leaves.begin,
          {.next_step = is_last    ? PushDetails::kNone
                        : next_go_ ? next_go_->clock
                                   : PushDetails::kNotKnown,
           .held_after = ticket.held_after,
           .share = ticket.share,
           .n_leaves = ticket.leaves.size()}};
}

void PushWorker::report(const Ticket& ticket) {
  StepReport report;
  for (int leaf = ticket.leaves.begin; leaf < ticket.leaves.end; ++leaf)
    report.leaves.push_back({.loss = static_cast<double>(leaf), .correct = 0, .samples = 1});
  if (ticket.is_cut)
    report.state = to_text(WorkerState{.worker = client_.worker().value, .clock = ticket.step});
  MessageHeader header = make_header(MessageType::step_report, client_.worker().value, Clock(ticket.step));
  header.leaf_begin = ticket.leaves.begin;
  client_.send_to_coordinator(header, to_binary(report));
}

// All workers have the same values then: of all steps up to this one, and no other.
bool PushWorker::drain(Clock clock) {
  client_.wait_all();
  for (const RowPlan::Table& table : row_plan_.tables()) {
    want(table, {}, clock, true);
    client_.wait_rows(table.id);
  }
  client_.send_to_coordinator(make_header(MessageType::drained, client_.worker().value, clock), {});
  const MessageHeader go = client_.wait_ticket();
  const int n_rounds = client_.worker() == WorkerId(0) ? exchange_.late_reader_rounds : 0;
  for (int i = 0; i < n_rounds && !pushed_.has_after(clock.value); ++i) {
    client_.progress();
    std::this_thread::yield();
  }
  client_.pull_all(clock);
  for (const RowPlan::Table& table : row_plan_.tables()) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t id = 0; id < kCountingRows; ++id) all.push_back(id);
    want(table, std::move(all), clock, true);
  }
  client_.wait_all();
  has_met_ = true;
  read_all(clock.value + 1, 0);
  has_met_ = false;
  return (go.flags & kFlagEnd) == 0;
}

}  // namespace varscope::testing
