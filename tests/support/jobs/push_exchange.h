#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/config/step_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/loopback_transport.h"
#include "ps/aggregator.h"
#include "ps/observe/run_observer.h"
#include "ps/server_rank.h"
#include "tests/support/references/counted_tickets.h"

// Real servers, coordinator and clients where each push is applied by itself (SSP, ASP). Their gradients
// count (counted_tickets.h), so that every value which a worker reads, or a checkpoint holds, tells which
// tickets are in it.
namespace varscope::testing {

// What a worker says its pushes wait for.
enum class Holding : std::uint8_t {
  as_told,    // the cut before its ticket, as the coordinator has said
  never,      // broken: a cut has pushes of later steps in it
  and_of_cut  // broken: pushes of the step that is cut wait for its cut, too
};

struct PushExchange {
  VariableTable variables;  // float64, all 0 at first
  StepRule rule;
  std::optional<StepRule> rule_of_servers = {};  // where they have another one, as none should
  std::optional<std::int64_t> staleness;         // what reads are checked by; nothing: any
  ChunkRule chunks = ChunkRule::whole_slices;
  std::int64_t first = 0;  // not 0: goes on from the checkpoint of this step
  std::int64_t steps = 24;
  bool last_is_short = false;        // half of the leaves have no samples in it
  std::int64_t evaluates_every = 0;  // all workers come together so often
  std::uint64_t seed = 1;
  int most_pauses = 0;  // of a ticket, some with progress() and some deaf
  Holding holding = Holding::as_told;
  Aggregator::Limits limits = {};
  std::string checkpoint_dir = {};  // empty: no checkpoints
  CheckpointConfig checkpoint = {};
  LoopbackFaults faults = {};
  int limit_s = 40;
  // Called on workers' threads. When one has read for a ticket; and, again and again until it says yes,
  // before it pushes that.
  std::function<void(WorkerId, Clock)> on_read = {};
  std::function<bool(WorkerId, Clock)> may_push = {};
  // The same, before it asks for its first ticket after the start, or after all have met at a step.
  std::function<bool(WorkerId, Clock)> may_ask = {};
  // The same, after it has pushed: as long as it says so the worker looks at nothing, and takes no answer.
  std::function<bool(WorkerId, Clock)> is_deaf = {};
  // Where all meet, worker 0 is late: it reads once somebody has begun to push a later step, or after so many
  // rounds in which nobody has.
  int late_reader_rounds = 0;
  std::function<void(std::int64_t)> on_saved = {};  // a step; on server 0's thread
  std::optional<ServerId> full_disk = {};           // this server cannot write its part of its first save
};

// Three scopes, of which one has several chunks; a variable that is never pushed; no tables.
VariableTable counting_variables();
// A table of counting rows: their columns are a multiple of `n_leaves`.
VariableSpec counting_table(const std::string& name, int n_leaves, int parts);
// Whether a leaf's ticket of a step touches a row; ids are below kCountingRows.
inline constexpr std::uint64_t kCountingRows = 13;
bool touches_row(std::int64_t step, int leaf, std::uint64_t id);
// The tickets of a leaf, up to `step`, that touch a row and have samples.
StepSet row_tickets(const TicketSpace& space, std::uint64_t id, int leaf, std::int64_t step);

struct PushResult {
  std::string error;  // the first rank's; empty when all went well
  ReadFindings reads;
  std::vector<std::int64_t> cuts;  // steps that were saved
  std::vector<std::string> failed_saves;
  std::vector<std::int64_t> reported;  // steps, in the order in which they were over
  std::optional<FinishSummary> finish;
};

// All ranks as threads of this process.
PushResult run_pushes(const PushExchange& e, int n_servers, int n_workers, int n_leaves);

// What a checkpoint holds other than exactly the tickets of all steps up to its own, each once; empty when
// all is well.
std::vector<std::string> check_cut(const PushExchange& e, std::int64_t step, int n_leaves);

}  // namespace varscope::testing
