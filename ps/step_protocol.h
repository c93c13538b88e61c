#pragma once

#include <cstdint>

#include "common/base/types.h"
#include "common/config/flush_rule.h"
#include "common/config/step_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/placement/row_plan.h"
#include "common/transport/staleness_report.h"
#include "common/transport/transport.h"
#include "ps/aggregator.h"
#include "ps/record/recorded_order.h"
#include "ps/record/step_record.h"
#include "ps/store/parameter_shard.h"
#include "ps/tables/table_shards.h"
#include "ps/update/finite_watch.h"
#include "ps/update/optimizer.h"

namespace varscope {

// Is told how far a protocol has come.
class StepListener {
 public:
  virtual ~StepListener() = default;
  // Some bucket or table was the last one here to have all pushes of step `clock` and of those before it
  // applied. `is_cut`: these pushes have said that the step is cut; none of a later step is applied yet.
  virtual void on_step_end(Clock clock, bool is_cut) = 0;
};

// What a server does with pushes and reads: which pushes make one update, who may read what, and what a cut
// holds up. BSP is BulkSteps, SSP and ASP are PushSteps. Called by the server's loop, on one thread. Throws
// Error(protocol) for what no worker may send.
class StepProtocol {
 public:
  struct Parts {
    Transport& transport;
    const ClusterMap& cluster;
    const BucketPlan& plan;
    const Optimizer& optimizer;
    ParameterShard& shard;
    FiniteWatch& watch;
    StepListener& listener;
    Aggregator::Limits limits = {};
    const RowPlan* rows = nullptr;           // null: there are no tables
    TableShards* tables = nullptr;           // where there are
    std::int64_t histogram_every_steps = 0;  // 0: never
    StepRule rule = {};
    Clock first{0};                   // of the values that the run starts from
    StepRecord* record = nullptr;     // of what is applied and answered; null: none
    RecordedOrder* replay = nullptr;  // what is to be done in which order; null: as it comes
    FlushRule flush = {};             // which values each step reads where there is a delay, and after which
                                      // steps workers hold no residuals
  };
  virtual ~StepProtocol() = default;
  virtual void on_push(WorkerId worker, const Message& push) = 0;
  virtual void on_pull(WorkerId worker, const MessageHeader& pull) = 0;
  virtual void on_rows_wanted(WorkerId worker, const MessageHeader& wanted) = 0;
  virtual void on_rows_push(WorkerId worker, const Message& push) = 0;
  // norm_sums and norm_scales.
  virtual void on_norms(const Message& message) = 0;
  virtual void on_completion(const Completion& completion) = 0;
  // One task of what was put off; false when there is none.
  virtual bool work() = 0;
  // Some bucket or table here lacks pushes of step `clock` or of one before it.
  virtual bool is_behind(Clock clock) const = 0;
  // All here hold step `clock` and nothing of a later one, and a checkpoint of it is cut.
  virtual void on_cut(Clock) {}
  // What steps after `clock` were held for has been done, or was given up.
  virtual void go_on_after(Clock clock) = 0;
  // How stale reads and pushes have been; nothing where pushes of a step are applied together.
  virtual StalenessReport staleness() const { return {}; }
};

// The bucket of a push or pull of this server. Throws Error(protocol).
const Bucket& own_bucket(const StepProtocol::Parts& parts, WorkerId worker, const MessageHeader& header);
// Throws Error(protocol) for a bucket whose values never change.
void check_is_pushed(const Bucket& bucket, WorkerId worker);

}  // namespace varscope
