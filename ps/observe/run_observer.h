#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "common/base/histogram.h"
#include "common/base/types.h"
#include "common/metrics/metric.h"
#include "common/transport/reports.h"
#include "ps/observe/consistency_summary.h"
#include "ps/observe/dropped_summary.h"

namespace varscope {

// How far a run has come that learns from a stream (docs/online.md).
struct StreamSummary {
  std::string file;                           // the last one that was begun
  std::int64_t learnt = 0, file_records = 0;  // of it
  std::int64_t files = 0, records = 0, left_out = 0, late = 0;
  double event_time = 0;                // the newest that is learnt, in seconds since 1970; 0: not known
  BatchSums total, since_save, window;  // losses of records before they were learnt
  std::int64_t files_waiting = 0, bytes_waiting = 0;
};
struct StepSummary {
  Clock clock;
  std::int64_t epoch;                        // 1-based; 1 in a stream
  BatchSums sums;                            // over the global batch
  WorkerTimes times;                         // of all workers together
  std::optional<StreamSummary> stream = {};  // in a stream, of each step that is logged, and of some others
  DroppedStep dropped = {};                  // with backup workers: who is not in `sums`
  CompressionReport compression = {};        // of all workers; norms every train.log_every_steps
};
struct EpochSummary {
  Clock clock;
  std::int64_t epoch;
  BatchSums sums;  // over the epoch's training samples, each seen with the values of its own step
};
struct EvalSummary {
  Clock clock;
  std::int64_t epoch;
  BatchSums sums;  // over the whole test set
  std::vector<MetricValue> metrics = {};
};
struct CheckpointSummary {
  Clock clock;
  std::string path;
  std::int64_t bytes = 0;
  double stall_s = 0;  // on the server where it was longest: training waited
  double copy_s = 0;   // that updates took to save what they overwrote, on the server where it was longest
  double total_s = 0;  // from the cut to the commit
};
struct FinishSummary {
  Clock clock;
  Digest values_hash;
  WorkerTimes times;
  double checkpoint_stall_s = 0;
  int checkpoints = 0;
  int failed_checkpoints = 0;
  int skipped_checkpoints = 0;                 // due while another was being written
  int queued_checkpoints = 0;                  // the same, and made later
  bool stopped = false;                        // before the last step, because somebody asked for it
  std::optional<Clock> not_finite_since = {};  // the first step with a loss or value that is not finite
  // With train.stop.
  struct Best {
    std::string metric;
    double value = 0;
    Clock step;
    std::string checkpoint;  // path; empty where there is none of that step
  };
  std::optional<Best> best = {};
  std::string ended_why = {};  // why it has ended before the last step; else empty
  std::string ended_by = {};   // what: "train.stop", or "END" of a stream
  std::optional<StreamSummary> stream = {};
  std::vector<TableReport> tables = {};
  std::optional<ConsistencySummary> consistency = {};  // where there is no BSP
  std::optional<DroppedSummary> dropped = {};          // with backup workers
  // Up to the last report of each worker: without what all read at the end. Norms are those of the last
  // measurement.
  CompressionReport compression = {};
};

// The first loss or value that is not finite.
struct NotFiniteSummary {
  Clock clock;
  std::string what;                    // with the step and the variables
  std::vector<std::string> variables;  // all that are known
  bool ends = true;                    // the run, by an error that says the same
};

// Every output.histogram_every_steps, of all variables that steps change.
struct HistogramSummary {
  Clock clock;
  struct Variable {
    std::string name;
    Histogram values;  // after the step
    Histogram
        gradient;  // the mean over the global batch, before clipping; of nothing where it is not trained
  };
  std::vector<Variable> variables;  // a partitioned one once
};

// What the coordinator tells the outside: a console, a metrics file, a test. Called on the coordinator's
// thread.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void on_step(const StepSummary&) {}
  virtual void on_epoch(const EpochSummary&) {}
  virtual void on_eval(const EvalSummary&) {}
  virtual void on_histograms(const HistogramSummary&) {}
  // Outside BSP, every train.log_every_steps.
  virtual void on_consistency(const ConsistencySummary&) {}
  virtual void on_checkpoint(const CheckpointSummary&) {}
  virtual void on_checkpoint_failed(Clock, const std::string& /*why*/) {}
  virtual void on_not_finite(const NotFiniteSummary&) {}
  // Something did not work that does no harm to the run.
  virtual void on_warning(const std::string& /*what*/) {}
  // Somebody asked for something by a signal; what comes of it.
  virtual void on_request(const std::string& /*what*/) {}
  // Something that is nobody's fault and that a person should know.
  virtual void on_note(const std::string& /*what*/) {}
  virtual void on_finish(const FinishSummary&) {}
};

}  // namespace varscope
