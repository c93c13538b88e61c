#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "common/metrics/metric.h"
#include "common/placement/cluster.h"
#include "common/variables/variable_table.h"
#include "launch/observe/checkpoint_forecast.h"
#include "ps/coordinator.h"

namespace varscope {

// What checkpoints are expected to cost.
struct PredictedCost {
  CheckpointSize size;
  CheckpointForecast forecast;
};

// What the observers of a run know of it before its first step. Borrows what start-up made.
struct RunFacts {
  const JobConfig& job;
  const ClusterMap& cluster;
  const VariableTable& variables;
  std::vector<std::string> hosts;  // by rank
  TrainPlan train;
  std::int64_t train_samples = 0;
  std::int64_t test_samples = 0;
  std::string run_id;
  int attempt = 1;
  std::string resumed_from;  // path, or ""
  EvaluationSpec evaluation = {};
  bool one_process = false;
  std::vector<std::string> notes = {};     // lines of the header, about the start
  std::vector<std::string> left_out = {};  // "2 of 4 left out of data.train: runs/a/bad_records.txt"
  std::optional<PredictedCost> predicted = {};
  std::optional<StreamPosition> stream = {};  // where the run goes on in a stream
  StepRule rule = {};                         // of the job, with dealing resolved
  // Of a replay: the recorded run's directory, and after how many of its steps values are compared; "": none.
  std::string replay_of = {};
  std::size_t n_compared = 0;
  // For TensorBoard; nothing where there is none (output.tensorboard).
  std::string_view graph = {};                              // a GraphDef (launch/observe/graph_def.h)
  std::map<std::string, std::string> hyperparameters = {};  // values by the paths of their keys
};

}  // namespace varscope
