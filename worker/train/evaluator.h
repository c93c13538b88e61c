#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "common/config/job_config.h"
#include "common/transport/reports.h"
#include "worker/data/dataset.h"
#include "worker/graph/executor.h"
#include "worker/graph/local_states.h"
#include "worker/graph/table_feeds.h"
#include "worker/layers/model.h"

namespace varscope {

// Passes over a test set in batches of train.eval_batch samples, which can be dealt to workers: what a batch
// adds up to does not depend on who evaluates it. A text's batches are the windows of its sequences, each of
// which needs the state that the one before left, so one worker evaluates all of them. Owns activations;
// borrows the rest. Not thread-safe.
class Evaluator {
 public:
  // REQUIRES model.mode == evaluate.
  Evaluator(const JobConfig& job, const Model& model, const Dataset& test);

  Executor& executor() { return executor_; }  // to bind the variables' values
  // Who gives the rows of tables, if the model has any; borrowed. Evaluating makes none.
  void set_rows(RowReader& rows) { rows_ = &rows; }
  std::int64_t n_batches() const { return n_batches_; }
  // Chunks first, first + stride, ...; `between` is called now and then, for communication.
  EvalReport run(
      int first, int stride, const std::function<void()>& between = [] {});

 private:
  void run_batch(std::int64_t batch, const std::function<void()>& between, EvalReport& report);

  const Model& model_;
  const Dataset& test_;
  std::int64_t batch_size_;
  std::int64_t n_batches_;
  Executor executor_;
  LocalStates states_;
  TableFeeds tables_;
  RowReader* rows_ = nullptr;
  Batch samples_;
  std::vector<std::int64_t> indices_;
};

}  // namespace varscope
