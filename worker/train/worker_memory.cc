#include "worker/train/worker_memory.h"

#include <algorithm>

#include "worker/data/order.h"
#include "worker/graph/executor.h"
#include "worker/train/evaluator.h"

namespace varscope {
WorkerMemory worker_memory(const JobConfig& job, std::int64_t logical_workers, const Model& model,
                           const Model* evaluation, const Dataset& train, const Dataset* test) {
  WorkerMemory m;
  m.largest_part = largest_logical_batch(train.size(), job.train.batch, logical_workers);
  m.activations = Executor(model.graph, model.loss, 1, {.also = model.also()}).n_bytes(m.largest_part);
  m.data = train.n_bytes() + train.size() * static_cast<std::int64_t>(sizeof(std::int64_t)) +
           Batch::n_bytes(train.spec(), job.model.dtype, m.largest_part);
  if (evaluation == nullptr || test == nullptr) return m;
  const std::int64_t n = std::min(job.train.eval_batch, test->size());
  m.evaluation =
      Executor(evaluation->graph, evaluation->loss, 1, {.also = evaluation->also(), .forward_only = true})
          .n_bytes(n);
  m.data += test->n_bytes() + Batch::n_bytes(test->spec(), job.model.dtype, n);
  return m;
}

}  // namespace varscope
