#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/config/reduction.h"
#include "worker/graph/graph.h"

// Losses: the SUM over the rows, a float64 scalar whatever the model's dtype is, so that parts of a batch can
// be added. With labels a row is everything along the last axis: [n, T, k] has n * T rows of k outputs.
// Labels are int32, of the outputs' shape without its last axis, and must be 0 .. k-1, else forward throws
// Error(data). With targets of the outputs' shape a row is a whole sample: all of axis 0's entry. A Reduction
// says whether a row's elements are averaged or added. See worker/graph/op.h for the errors.
//
// With weights, float64 [n], finite and not negative, each row of sample i counts weights[i] times in the sum
// and in the gradient; 0 is as if it were not there, whatever its outputs are. A mean is then the sum divided
// by the sum of the weights, as in LightGBM, XGBoost and scikit-learn (Keras divides by the number of
// samples).
namespace varscope::ops {

using WeightsOf = std::optional<NodeId>;
// What a loss or a metric compares, and the weights behind it.
inline std::vector<NodeId> with_weights(std::vector<NodeId> inputs, WeightsOf weights) {
  if (weights) inputs.push_back(*weights);
  return inputs;
}

// Smoothing replaces the one-hot target by (1 - label_smoothing) * one_hot + label_smoothing / k (Szegedy et
// al., CVPR 2016). With class_weights (k of them, or none) a row counts as often as its label's weight says;
// the mean over a batch still divides by its rows, as Keras does, not by the sum of their weights (PyTorch).
// Throws Error(argument) unless 0 <= label_smoothing <= 1 and all weights are finite and not negative.
struct SoftmaxCrossEntropyOptions {
  double label_smoothing = 0;
  std::vector<double> class_weights = {};
};
// -log softmax(logits [..., k])[label].
NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});
NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, SoftmaxCrossEntropyOptions loss,
                             const NodeOptions& options = {}, WeightsOf weights = {});

// Smoothing moves the target t to s(t) = (1 - label_smoothing) * t + label_smoothing / 2; the whole loss of a
// positive target is multiplied by positive_weight (Keras: class_weight). A t between counts as t of a
// positive and 1 - t of a negative. Checked as above.
struct SigmoidCrossEntropyOptions {
  double label_smoothing = 0;
  double positive_weight = 1;
  Reduction reduction = Reduction::mean;
};
// positive_weight * t * L(s(1)) + (1 - t) * L(s(0)) with L(p) = -p log sigmoid(x) - (1 - p) log(1 -
// sigmoid(x)), reduced over the elements of a row. The targets t are labels 0 and 1 for logits [..., 1], or
// of the logits' shape and dtype.
NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, const NodeOptions& options = {});
NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, SigmoidCrossEntropyOptions loss,
                             const NodeOptions& options = {}, WeightsOf weights = {});

// (prediction - target)^2 and |prediction - target|, reduced over the elements of a row; without a Reduction
// their mean. Targets of the predictions' shape and dtype; or labels, which stand for themselves with
// predictions [..., 1] and for one-hot rows with [..., k]. The derivative of |0| is 0.
NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {});
NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction,
                          const NodeOptions& options = {}, WeightsOf weights = {});
NodeId absolute_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {});
NodeId absolute_error(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction,
                      const NodeOptions& options = {}, WeightsOf weights = {});

// Of the error e = prediction - target: e^2 / 2 up to |e| = delta, from there delta * (|e| - delta / 2)
// (Huber, 1964). Reduction and targets as above. Throws Error(argument) unless delta is finite and above 0.
struct HuberOptions {
  double delta = 1;
  Reduction reduction = Reduction::mean;
};
NodeId huber(Graph& graph, NodeId predictions, NodeId targets, HuberOptions loss = {},
             const NodeOptions& options = {}, WeightsOf weights = {});
// exp(x) - t x: -log of the probability of the count t when exp(x) are expected, without log(t!), which does
// not depend on x. x is the logarithm, as in PyTorch's PoissonNLLLoss and other than in Keras. Reduction as
// above; targets of the predictions' shape and dtype, or labels for predictions [..., 1]. A negative target
// or one that is not finite is Error(data) in forward.
NodeId poisson(Graph& graph, NodeId predictions, NodeId targets, Reduction reduction = Reduction::mean,
               const NodeOptions& options = {}, WeightsOf weights = {});

// (l1 * sum |w| + l2 * sum w^2) * the number of rows (the extent of axis 0) of `rows`, whose values do not
// matter: a loss that is a sum over rows like the others, so that its mean over the global batch is the
// penalty itself, once. Summed in double in row-major order; the derivative of |0| is 0. Throws
// Error(argument) unless l1 and l2 are finite and not negative. PenaltyTimes::sum: times the sum of `rows`,
// float64, instead, which are the weights of the samples.
enum class PenaltyTimes : std::uint8_t { extent, sum };
NodeId regularization_loss(Graph& graph, NodeId w, double l1, double l2, NodeId rows,
                           const NodeOptions& options = {}, PenaltyTimes times = PenaltyTimes::extent);

}  // namespace varscope::ops
