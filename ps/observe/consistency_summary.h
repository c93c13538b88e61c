#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/types.h"
#include "common/config/step_rule.h"
#include "common/transport/staleness_report.h"

namespace varscope {

// How stale reads were, who was slow, and what was waited for, in SSP and ASP (docs/consistency.md): since
// the summary before, or over the whole of a run.
struct ConsistencySummary {
  struct Worker {
    std::int64_t tickets = 0;     // done
    Clock clock{0};               // the step of the newest ticket that it was given
    std::int64_t lag = 0;         // steps from there to the newest one of all workers
    double open_s = 0;            // since it began with the ticket that it has; 0: it has none
    double ticket_compute_s = 0;  // mean over its tickets; 0: none
    double gate_wait_s = 0;       // for other workers' pushes, of what it waited for values
    double drain_wait_s = 0;      // for other workers where all come together
    double wait_s = 0;            // in all, drains included
    double total_s = 0;           // computing, data, posting and waiting
  };
  // Whose mean computation per ticket takes longest, and its ratio to the median of all workers (of an even
  // number the lower one).
  struct Slowest {
    int worker = 0;
    double ratio = 1;
  };
  Clock clock;
  StepRule rule;
  StalenessReport all;                   // of all servers together
  std::vector<StalenessReport> servers;  // by server
  std::vector<Worker> workers;           // by worker
  std::optional<Slowest> slowest = {};   // nothing while some worker has done nothing
};

// Mean seconds from a push or pull to its answer, without the gate; 0 without answers.
double mean_service_s(const StalenessReport& server);
// The server that takes longest, and its ratio to the median one (of an even number the lower one): per
// answer or per byte up and down, whichever is less, so that neither large slices nor few bytes make a server
// slow. Nothing while none has answered; servers that own nothing are left out.
struct SlowServer {
  int server = 0;
  double ratio = 1;
};
std::optional<SlowServer> slowest_server(const std::vector<StalenessReport>& servers);
// For a person, in short lines: how stale reads were, who was slow, what was waited for. The name of each
// line comes first. Of a run in which nothing was read there are none.
std::vector<std::pair<std::string, std::string>> lines_of(const ConsistencySummary& summary);

}  // namespace varscope
