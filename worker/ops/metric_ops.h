#pragma once

#include <cstdint>

#include "common/base/score_counts.h"
#include "common/metrics/class_counts.h"
#include "common/metrics/r2.h"
#include "worker/graph/graph.h"
#include "worker/ops/losses.h"

// Ops that count over a batch what a metric is made of; common/metrics/ makes metrics of the counts. Counts
// are int64, so that sums over parts, steps and workers are exact. Rows and labels as in worker/ops/losses.h;
// a label out of range is Error(data) in forward (but in correct_count, where it is merely wrong). No
// gradient flows. With weights (worker/ops/losses.h) each row counts as often as its sample's says: counts
// are float64 then, scored_labels is [..., 3].
namespace varscope::ops {

// How many rows are right, an int64 scalar: the first largest logit is the label; for logits [..., 1], logit
// > 0 means 1.
NodeId correct_count(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {},
                     WeightsOf weights = {});
// How many rows have fewer than k classes before their label, an int64 scalar. Before it are greater logits,
// equal ones of smaller classes, and, so that a model that diverged is not right, all those that do not
// compare (NaN). 1 <= k <= the number of classes.
NodeId top_k_count(Graph& graph, NodeId logits, NodeId labels, std::int64_t k,
                   const NodeOptions& options = {}, WeightsOf weights = {});
// int64 [k, k]: element (label, answer), with the answer of correct_count. [2, 2] for logits [..., 1].
NodeId confusion_matrix(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {},
                        WeightsOf weights = {});
// float64 [..., 2]: the logit and the label, 0 or 1, of each row, for ScoreCounts. Logits [..., 1].
NodeId scored_labels(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {},
                     WeightsOf weights = {});

// Float64. (prediction - target)^2 over all elements; shape and dtype of both are the same.
NodeId squared_error_sum(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {},
                         WeightsOf weights = {});
// What r2 is made of (common/metrics/r2.h), float64 [k, kR2Sums]: for each of the k elements that a target is
// compared in, the rows, the mean of the targets, the sum of their squared distances from it, and the sum of
// (prediction - target)^2. Targets as in mean_squared_error (worker/ops/losses.h).
NodeId r2_sums(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {},
               WeightsOf weights = {});
// The value of correct_count.
inline double count_of(const TensorView& count) {
  return count.dtype() == DType::float64 ? *count.data<double>()
                                         : static_cast<double>(*count.data<std::int64_t>());
}
// -log of the probability of each row's label: softmax(logits), or sigmoid(logit) for logits [..., 1].
NodeId log_loss_sum(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {},
                    WeightsOf weights = {});

}  // namespace varscope::ops
