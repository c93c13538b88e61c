#pragma once

#include <cstdint>

#include "common/config/job_config.h"
#include "worker/data/dataset.h"
#include "worker/layers/model.h"

namespace varscope {

// What a worker keeps besides values and gradients of variables, in bytes.
struct WorkerMemory {
  std::int64_t largest_part = 0;  // samples that its logical workers have at most of a batch
  std::int64_t activations = 0;   // and their gradients and workspaces, of that many samples
  std::int64_t evaluation = 0;    // activations of a batch of evaluations; 0 without a test set
  std::int64_t data = 0;          // data sets, the order of an epoch, and the batches that are filled
};

// Of one of a job's workers; allocates nothing of it. `evaluation` and `test` may be null.
WorkerMemory worker_memory(const JobConfig& job, std::int64_t logical_workers, const Model& model,
                           const Model* evaluation, const Dataset& train, const Dataset* test);

}  // namespace varscope
