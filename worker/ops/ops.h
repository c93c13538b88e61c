#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "worker/graph/graph.h"
#include "worker/kernels/kernels.h"
#include "worker/ops/losses.h"
#include "worker/ops/metric_ops.h"

// The operations of a graph; losses, metrics and operations on sequences have headers of their own. Each
// function adds one node and returns it; shapes and dtypes are checked at once (see Graph::add for the
// errors). Values are float32 or float64, the same for all floating inputs of an op. [n, ...] is a batch of n
// rows, unknown until the run.
namespace varscope::ops {

// The node of a variable, as Graph::variable has it; one that is made of others is computed from them by
// concat, add or multiply, so that its gradient flows into theirs. Throws Error(argument) for one that is
// made of none.
NodeId variable(Graph& graph, const Variable& variable);

// a [..., k] times b [k, m] gives [..., m], as one GEMM over all rows of a.
NodeId matmul(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
// x [..., m] plus bias [m] on every row.
NodeId add_bias(Graph& graph, NodeId x, NodeId bias, const NodeOptions& options = {});
NodeId activation(Graph& graph, Activation f, NodeId x, const NodeOptions& options = {});
// f(x [..., k] * w [k, m] + bias [m]) as one GEMM and one sweep each way; the bits of the three separate ops.
NodeId dense(Graph& graph, NodeId x, NodeId w, std::optional<NodeId> bias, Activation f,
             const NodeOptions& options = {});
// With Transpose::yes f(x [..., m] * w^T + bias [k]) for w [k, m], such as the tied weights of an
// autoencoder.
NodeId dense(Graph& graph, NodeId x, NodeId w, Transpose transpose, std::optional<NodeId> bias, Activation f,
             const NodeOptions& options = {});

// Elementwise, of equal shapes.
NodeId add(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
NodeId subtract(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
NodeId multiply(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});
// The sum of one input or more, added from left to right.
NodeId add_n(Graph& graph, const std::vector<NodeId>& inputs, const NodeOptions& options = {});

// Elementwise. The derivative of |x| at 0 is 0; that of sqrt(0) is infinite.
NodeId absolute(Graph& graph, NodeId x, const NodeOptions& options = {});
NodeId square(Graph& graph, NodeId x, const NodeOptions& options = {});
NodeId negative(Graph& graph, NodeId x, const NodeOptions& options = {});
NodeId sqrt(Graph& graph, NodeId x, const NodeOptions& options = {});
NodeId exponential(Graph& graph, NodeId x, const NodeOptions& options = {});
NodeId scale(Graph& graph, NodeId x, double factor, const NodeOptions& options = {});  // factor * x

// float32 to float64 and back, for example to add a float32 regularizer to a loss.
NodeId cast(Graph& graph, NodeId x, DType dtype, const NodeOptions& options = {});

// The same elements under another shape, without a copy. An unknown extent must stay on axis 0.
NodeId reshape(Graph& graph, NodeId x, Shape shape, const NodeOptions& options = {});
// [n, a, b, ...] to [n, a*b*...].
NodeId flatten(Graph& graph, NodeId x, const NodeOptions& options = {});

// Inputs of one rank that agree on every axis but `axis`, one behind the other along it. Axis 0 only where
// every extent is known, as for the parts of a variable: a batch of unknown size cannot be lengthened.
NodeId concat(Graph& graph, const std::vector<NodeId>& inputs, std::size_t axis,
              const NodeOptions& options = {});
// x[:, index, ...] of x [n, a, ...], as [n, ...]; 0 <= index < a.
NodeId take(Graph& graph, NodeId x, std::int64_t index, const NodeOptions& options = {});
// The inner products of the rows of a and b [..., k], as [..., 1]; accumulated in double. Of [..., 1, k] and
// [..., m, k], in either order, those of the one row with each of the m: [..., m, 1].
NodeId dot(Graph& graph, NodeId a, NodeId b, const NodeOptions& options = {});

// Over all elements, to a scalar, or over the last axis. Sums are accumulated in double, in row-major order.
enum class ReduceOver : std::uint8_t { all, last_axis };
NodeId reduce_sum(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all, const NodeOptions& options = {});
NodeId reduce_mean(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all,
                   const NodeOptions& options = {});

// The gradient flows to the first of equal extremes. Of nothing (an empty batch) -inf and inf.
NodeId reduce_max(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all, const NodeOptions& options = {});
NodeId reduce_min(Graph& graph, NodeId x, ReduceOver over = ReduceOver::all, const NodeOptions& options = {});

// Over the last axis of [..., k].
NodeId softmax(Graph& graph, NodeId logits, const NodeOptions& options = {});

}  // namespace varscope::ops
