#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/step_rule.h"
#include "worker/layers/model.h"

namespace varscope {

// What a job may do, but hardly means to; a line for each, with its place in the config.

// Of the training graph: probabilities that the loss makes probabilities of once more, variables that no
// training reaches, weights that start so that all units of a layer stay alike.
std::vector<std::string> model_warnings(const JobConfig& job, const Model& model);

// Of samples that are all of one class.
std::vector<std::string> label_warnings(const JobConfig& job, const Dataset& train);
// Of a batch above the data; empty where it is not. `samples` of data.train.
std::vector<std::string> batch_warnings(const JobConfig& job, std::int64_t samples);
// Of a batch of fewer samples than logical workers.
std::vector<std::string> worker_warnings(const JobConfig& job, std::int64_t logical_workers);
// Of histograms for a TensorBoard that is not asked for, and of those that only bsp has.
std::vector<std::string> output_warnings(const JobConfig& job);

// Of compression that reaches no variable, and of keys that say when what is kept back is sent, where nothing
// is.
std::vector<std::string> compression_warnings(const JobConfig& job, const VariableTable& variables);
// Of compression that begins after the run's last step; none where nobody knows that (0).
std::vector<std::string> start_step_warnings(const JobConfig& job, const VariableTable& variables,
                                             Clock last);

// The processors that this process may run on: "0 1 2 ...".
std::string own_processors();
// Of hosts with more ranks, or threads of OpenBLAS, than processors that they may run on. By rank: host, and
// what own_processors() says there. Of bsp without backup workers they say that the result is the same.
std::vector<std::string> crowding_warnings(const std::vector<std::string>& hosts,
                                           const std::vector<std::string>& processors,
                                           std::int64_t blas_threads, const StepRule& rule = {});

}  // namespace varscope
