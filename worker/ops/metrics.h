#pragma once

#include <cstdint>
#include <span>

#include "worker/graph/graph.h"

// Metrics: nodes that count over a batch, and functions that turn counts into figures. Counts are int64, so
// that sums over parts, steps and workers are exact. Rows and labels as in worker/ops/losses.h; a label out
// of range is Error(data) in forward (but in correct_count, where it is merely wrong). No gradient flows.
namespace varscope::ops {

// How many rows are right, an int64 scalar: the first largest logit is the label; for logits [..., 1], logit
// > 0 means 1.
NodeId correct_count(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});
// How many rows have fewer than k classes before their label, an int64 scalar. Before it are greater logits,
// equal ones of smaller classes, and, so that a model that diverged is not right, all those that do not
// compare (NaN). 1 <= k <= the number of classes.
NodeId top_k_count(Graph& graph, NodeId logits, NodeId labels, std::int64_t k,
                   const NodeOptions& options = {});
// int64 [k, k]: element (label, answer), with the answer of correct_count. [2, 2] for logits [..., 1].
NodeId confusion_matrix(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});
// int64 [2, kScoreBins]: for each label 0 and 1 how many sigmoid(logit) are in each of the equal bins of
// [0, 1]; NaN is in bin 0. Logits [..., 1].
inline constexpr std::int64_t kScoreBins = 4096;
NodeId score_histogram(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});

// Float64 scalars. (prediction - target)^2 over all elements; shape and dtype of both are the same.
NodeId squared_error_sum(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {});
// -log of the probability of each row's label: softmax(logits), or sigmoid(logit) for logits [..., 1].
NodeId log_loss_sum(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});

}  // namespace varscope::ops

namespace varscope {

// The area under the ROC curve from counts [2, bins] (score_histogram), by the trapezoidal rule: the chance
// that a random positive scores above a random negative, where one bin is a tie. NaN unless both labels
// occur. Throws Error(argument) for an odd number of counts.
double auc_of_histogram(std::span<const std::int64_t> counts);

// Precision is right answers / answers of a class, recall right answers / rows of it; 0 where the class was
// never the answer, or never the label. f1 is their harmonic mean, 0 where both are.
struct PrecisionRecall {
  double precision = 0, recall = 0;
  double f1() const;
};
// Of class `c` of a confusion matrix [k, k]; c = 1 of a 2x2 are precision and recall of a yes or no question.
// Throw Error(argument) if the counts are not a square, or c is not one of its classes.
PrecisionRecall precision_recall(std::span<const std::int64_t> confusion, std::int64_t c);
// The means over the classes that occur, as label or as answer; zeros when nothing was counted.
PrecisionRecall macro_precision_recall(std::span<const std::int64_t> confusion);
// Right answers / rows; 0 for no rows.
double accuracy(std::span<const std::int64_t> confusion);

}  // namespace varscope
