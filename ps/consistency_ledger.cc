#include "ps/consistency_ledger.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/text.h"
#include "ps/observe/lower_median.h"

namespace varscope {
namespace {

constexpr std::int64_t kLook_ns = 100'000'000;

double seconds(std::int64_t ns) { return static_cast<double>(ns) * 1e-9; }

std::optional<ConsistencySummary::Slowest> slowest_of(
    const std::vector<ConsistencySummary::Worker>& workers) {
  std::vector<double> means;
  for (const auto& w : workers) {
    if (w.tickets == 0) return std::nullopt;
    means.push_back(w.ticket_compute_s);
  }
  const double middle = lower_median(means);
  if (middle <= 0) return std::nullopt;
  const auto most = std::ranges::max_element(means);
  return ConsistencySummary::Slowest{static_cast<int>(most - means.begin()), *most / middle};
}

}  // namespace

ConsistencyLedger::ConsistencyLedger(Parts parts)
    : parts_(std::move(parts)),
      workers_(parts_.cluster.n_workers()),
      servers_(parts_.cluster.n_servers()),
      told_(parts_.cluster.n_servers(), parts_.first),
      completed_(parts_.first),
      cut_(parts_.first),
      summarised_(parts_.first) {
  for (Worker& w : workers_) w.clock = parts_.first;
  last_ = {workers_, servers_};
}

void ConsistencyLedger::on_dealt(WorkerId worker, Clock step, int leaf_begin, std::int64_t now) {
  Worker& w = workers_[worker];
  if (w.open.empty()) w.since = now;
  w.open.push_back({step, leaf_begin});
  w.clock = std::max(w.clock, step);
}

void ConsistencyLedger::on_report(WorkerId worker, Clock step, int leaf_begin, const WorkerTimes& times,
                                  std::int64_t now) {
  Worker& w = workers_[worker];
  std::erase_if(w.open, [&](const Ticket& t) { return t.step == step && t.leaf_begin == leaf_begin; });
  w.ticket_ns += now - w.since;
  w.since = now;
  w.times += times;
  ++w.tickets;
  if (w.drains_since) w.drains_since = now;  // it was told while it still had this one
}

void ConsistencyLedger::on_drain_told(WorkerId worker, std::int64_t now) {
  workers_[worker].drains_since = now;
}

void ConsistencyLedger::on_drained(std::int64_t now) {
  for (Worker& w : workers_) {
    if (w.drains_since) w.drain_ns += now - *std::exchange(w.drains_since, std::nullopt);
  }
}

// At the gate, or, what it has pushed being held for a cut, for the answers to that.
bool ConsistencyLedger::waits_for_others(const Ticket& ticket, Clock completed) const {
  return parts_.rule.least_read(ticket.step, parts_.first) > completed ||
         (cut_ < ticket.step && cut_ > completed);
}

void ConsistencyLedger::on_complete(Clock step, std::int64_t now) {
  for (Worker& w : workers_) {
    if (w.open.empty()) continue;
    const Ticket& t = w.open.front();
    if (waits_for_others(t, completed_) && !waits_for_others(t, step)) w.since = now;
  }
  completed_ = step;
}

void ConsistencyLedger::check(ServerId server, const StalenessReport& report) const {
  if (servers_.has(server) && report.leads.is_sound() && report.delays.is_sound()) return;
  fail(ErrorKind::protocol, "server {} reports how stale reads were with counts that cannot be",
       server.value);
}

void ConsistencyLedger::on_staleness(ServerId server, Clock step, StalenessReport report) {
  check(server, report);
  servers_[server] = std::move(report);
  told_[server] = std::max(told_[server], step);
}

void ConsistencyLedger::on_last(ServerId server, StalenessReport report) {
  check(server, report);
  servers_[server] = std::move(report);
}

std::optional<ConsistencySummary> ConsistencyLedger::take_due(std::int64_t now) {
  if (parts_.reporters.empty()) return std::nullopt;
  Clock least = told_[parts_.reporters.front()];
  for (const ServerId s : parts_.reporters) least = std::min(least, told_[s]);
  if (least <= summarised_ || completed_ < least) return std::nullopt;
  summarised_ = least;
  ConsistencySummary all = summary(least, &last_, now);
  last_ = {workers_, servers_};
  return all;
}

ConsistencySummary ConsistencyLedger::total(std::int64_t now) const {
  return summary(completed_, nullptr, now);
}

ConsistencySummary ConsistencyLedger::summary(Clock clock, const Totals* before, std::int64_t now) const {
  ConsistencySummary all{.clock = clock, .rule = parts_.rule, .all = {}, .servers = {}, .workers = {}};
  for (ServerId s : servers_.ids()) {
    all.servers.push_back(before != nullptr ? servers_[s].since(before->servers[s]) : servers_[s]);
    all.all += all.servers.back();
  }
  Clock front = parts_.first;
  for (const Worker& w : workers_) front = std::max(front, w.clock);
  for (WorkerId id : workers_.ids()) {
    const Worker& w = workers_[id];
    const Worker then = before != nullptr ? before->workers[id] : Worker{};
    const WorkerTimes &t = w.times, &b = then.times;
    ConsistencySummary::Worker out;
    out.tickets = w.tickets - then.tickets;
    out.clock = w.clock;
    out.lag = front.value - w.clock.value;
    out.open_s = w.open.empty() ? 0 : seconds(now - w.since);
    const double compute_s = seconds(t.compute_ns - b.compute_ns);
    if (out.tickets > 0) out.ticket_compute_s = compute_s / static_cast<double>(out.tickets);
    out.gate_wait_s = seconds(t.gate_ns - b.gate_ns);
    out.drain_wait_s = seconds(w.drain_ns - then.drain_ns);
    out.wait_s = seconds(t.wait_ns - b.wait_ns) + out.drain_wait_s;
    out.total_s = compute_s + out.wait_s + seconds(t.data_ns - b.data_ns) +
                  seconds(t.communicate_ns - b.communicate_ns);
    all.workers.push_back(out);
  }
  all.slowest = slowest_of(all.workers);
  return all;
}

// Nothing while nobody knows how long a ticket takes.
std::optional<std::int64_t> ConsistencyLedger::late_after_ns() const {
  std::vector<double> means;
  for (const Worker& w : workers_) {
    if (w.tickets > 0) means.push_back(static_cast<double>(w.ticket_ns) / static_cast<double>(w.tickets));
  }
  if (means.empty()) return std::nullopt;
  return static_cast<std::int64_t>(std::max(parts_.late_s * 1e9, kLateTimes * lower_median(means)));
}

bool ConsistencyLedger::is_late(const Worker& worker, std::int64_t limit_ns, std::int64_t now) const {
  return !worker.open.empty() && !waits_for_others(worker.open.front(), completed_) &&
         now - worker.since > limit_ns;
}

std::string ConsistencyLedger::late_text(WorkerId id, std::int64_t now) const {
  const Worker& w = workers_[id];
  const bool all_wait = parts_.rule.consistency == Consistency::ssp;
  std::string others = "the others go on";
  if (all_wait) {
    others = fmt::format("the others go on for {} step{} after it, and then wait for it (cluster.staleness)",
                         parts_.rule.staleness, parts_.rule.staleness == 1 ? "" : "s");
  }
  return fmt::format(
      "worker {} has had its ticket of step {} for {}, and the newest ticket is of step {}: it is "
      "stopped or very slow; {}",
      id.value, w.open.front().step.value, duration_text(seconds(now - w.since)),
      std::ranges::max(workers_, {}, &Worker::clock).clock.value, others);
}

// Where all are late it is none of them: a server, or the machine.
std::vector<std::string> ConsistencyLedger::take_notes(std::int64_t now) {
  std::vector<std::string> notes;
  if (now < next_look_ns_) return notes;
  next_look_ns_ = now + kLook_ns;
  for (WorkerId id : workers_.ids()) {
    Worker& w = workers_[id];
    const bool has_gone_on = w.late && (w.open.empty() || w.open.front().step != w.late->step ||
                                        w.open.front().leaf_begin != w.late->leaf_begin);
    if (!has_gone_on) continue;
    notes.push_back(fmt::format("worker {} goes on: its ticket of step {} took {}", id.value,
                                w.late->step.value, duration_text(seconds(w.since - w.late_since))));
    w.late.reset();
  }
  const std::optional<std::int64_t> limit_ns = late_after_ns();
  if (!limit_ns) return notes;
  const auto late = [&](const Worker& w) { return is_late(w, *limit_ns, now); };
  if (std::ranges::all_of(workers_, late)) return notes;
  for (WorkerId id : workers_.ids()) {
    Worker& w = workers_[id];
    if (w.late || !late(w)) continue;
    notes.push_back(late_text(id, now));
    w.late = w.open.front();
    w.late_since = w.since;
  }
  return notes;
}

}  // namespace varscope
