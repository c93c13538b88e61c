#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/step_rule.h"
#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "ps/observe/consistency_summary.h"

namespace varscope {

// The coordinator's account of SSP and ASP: who has which ticket for how long, what workers and servers
// report of waiting and of staleness, and who is late. Times are now_ns() of the caller. One thread; borrows
// the map.
class ConsistencyLedger {
 public:
  struct Parts {
    const ClusterMap& cluster;
    StepRule rule;
    Clock first;                      // of the values that the run starts from
    std::vector<ServerId> reporters;  // servers that something is pushed to
    // A worker is late whose ticket is older than this, and than kLateTimes the median worker's.
    double late_s = 10;
  };
  static constexpr double kLateTimes = 20;
  explicit ConsistencyLedger(Parts parts);

  // Step `step`: of the ticket.
  void on_dealt(WorkerId worker, Clock step, int leaf_begin, std::int64_t now);
  void on_report(WorkerId worker, Clock step, int leaf_begin, const WorkerTimes& times, std::int64_t now);
  // A worker has been told that there is no ticket until all have come together.
  void on_drain_told(WorkerId worker, std::int64_t now);
  // They have.
  void on_drained(std::int64_t now);
  // Pushes of steps after this one are held until it is complete.
  void on_cut(Clock step) { cut_ = step; }
  // All workers have reported step `step`, and all before.
  void on_complete(Clock step, std::int64_t now);
  // Throws Error(protocol) for what no server may send.
  void on_staleness(ServerId server, Clock step, StalenessReport report);
  // Of the end.
  void on_last(ServerId server, StalenessReport report);

  // Once all servers have said how stale reads were up to some step, and all workers have reported it: what
  // came since the last one.
  std::optional<ConsistencySummary> take_due(std::int64_t now);
  // Since the start.
  ConsistencySummary total(std::int64_t now) const;
  // What a person should know: workers that are late since the last call, and those that go on. Looks ten
  // times a second at most.
  std::vector<std::string> take_notes(std::int64_t now);

 private:
  struct Ticket {
    Clock step;
    int leaf_begin = 0;
  };
  struct Worker {
    std::deque<Ticket> open;  // the one under way, and perhaps the one after it
    std::int64_t since = 0;   // when it could begin with the first of these
    std::optional<std::int64_t> drains_since;
    std::int64_t tickets = 0;
    Clock clock{0};
    WorkerTimes times;
    std::int64_t drain_ns = 0;
    std::int64_t ticket_ns = 0;       // from the beginning of tickets to their reports
    std::optional<Ticket> late = {};  // that a note has told of
    std::int64_t late_since = 0;
  };
  struct Totals {  // when the last summary was made
    IdVector<WorkerId, Worker> workers;
    IdVector<ServerId, StalenessReport> servers;
  };
  bool waits_for_others(const Ticket& ticket, Clock completed) const;
  ConsistencySummary summary(Clock clock, const Totals* before, std::int64_t now) const;
  std::optional<std::int64_t> late_after_ns() const;
  bool is_late(const Worker& worker, std::int64_t limit_ns, std::int64_t now) const;
  std::string late_text(WorkerId id, std::int64_t now) const;
  void check(ServerId server, const StalenessReport& report) const;

  Parts parts_;
  IdVector<WorkerId, Worker> workers_;
  IdVector<ServerId, StalenessReport> servers_;
  IdVector<ServerId, Clock> told_;  // the step of each server's last report
  Clock completed_, cut_, summarised_;
  Totals last_;
  std::int64_t next_look_ns_ = 0;  // for workers that are late
};

}  // namespace varscope
