#pragma once

#include <cstdint>
#include <optional>

#include "worker/graph/graph.h"
#include "worker/ops/kernels.h"

// The operations of a graph. Each function adds one node and returns it; shapes and dtypes are checked at
// once (see Graph::add for the errors). Values are float32 or float64, the same for all floating inputs of an
// op. [n, ...] is a batch of n rows, unknown until the run.
namespace varscope::ops {

// a [n, k] times b [k, m] gives [n, m].
NodeId matmul(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
// x [..., m] plus bias [m] on every row.
NodeId add_bias(Graph& graph, NodeId x, NodeId bias, const NodeOptions& options = {});
NodeId activation(Graph& graph, Activation f, NodeId x, const NodeOptions& options = {});
// f(x [n, k] * w [k, m] + bias [m]) as one GEMM and one sweep each way; the bits of the three separate ops.
NodeId dense(Graph& graph, NodeId x, NodeId w, std::optional<NodeId> bias, Activation f,
             const NodeOptions& options = {});

// Elementwise, of equal shapes.
NodeId add(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
NodeId multiply(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
// float32 to float64 and back, for example to add a float32 regularizer to a loss.
NodeId cast(Graph& graph, NodeId x, DType dtype, const NodeOptions& options = {});

// The same elements under another shape, without a copy. An unknown extent must stay on axis 0.
NodeId reshape(Graph& graph, NodeId x, Shape shape, const NodeOptions& options = {});
// [n, a, b, ...] to [n, a*b*...].
NodeId flatten(Graph& graph, NodeId x, const NodeOptions& options = {});

// Over all elements, to a scalar, or over the last axis. Sums are accumulated in double, in row-major order.
enum class ReduceOver : std::uint8_t { all, last_axis };
NodeId reduce_sum(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all, const NodeOptions& options = {});
NodeId reduce_mean(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all,
                   const NodeOptions& options = {});

// Over the last axis of [n, k].
NodeId softmax(Graph& graph, NodeId logits, const NodeOptions& options = {});

// Losses: the SUM over the batch, a float64 scalar whatever the model's dtype is, so that parts of a batch
// can be added. Labels must be 0 .. k-1, else forward throws Error(data).

// -log softmax(logits [n, k])[label]; labels int32 [n].
NodeId softmax_cross_entropy(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});
// -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), summed over the outputs of a row. The targets t are int32
// [n] of 0 and 1 for logits [n, 1], or of the logits' shape and dtype.
NodeId sigmoid_cross_entropy(Graph& graph, NodeId logits, NodeId targets, const NodeOptions& options = {});
// (prediction - target)^2, the mean over the outputs of a row. Targets of the predictions' shape and dtype;
// or int32 [n], which stand for themselves with predictions [n, 1] and for one-hot rows with [n, k].
NodeId mean_squared_error(Graph& graph, NodeId predictions, NodeId targets, const NodeOptions& options = {});

// How many rows are right, an int64 scalar: the first largest logit is the label; for logits [n, 1], logit >
// 0 means 1.
NodeId correct_count(Graph& graph, NodeId logits, NodeId labels, const NodeOptions& options = {});

}  // namespace varscope::ops
