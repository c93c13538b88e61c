#pragma once

#include <cstdint>

#include "worker/graph/graph.h"

// Operations that normalise activations, and dropout. Like worker/ops/ops.h: each function adds a node,
// shapes and dtypes are checked at once, values are float32 or float64. Means and variances are accumulated
// in double, in an order that depends on shapes only.
namespace varscope::ops {

// Inverted dropout (Srivastava et al., 2014): an element is zero with probability `rate`, 0 <= rate < 1, and
// else x / (1 - rate), so that evaluation leaves the node out. The mask is a pure function of RunInfo's seed,
// step and logical worker, of `key`, and of the element's number in the run. `key` is the op's own and stays
// the same from job to job: the hash of the node's name, for example.
NodeId dropout(Graph& graph, NodeId x, double rate, std::uint64_t key, const NodeOptions& options = {});

// train: by the mean and variance of this run's rows, that is of one logical worker's part of the batch;
// inference: by the moving ones, which are then constants.
enum class BatchNormMode : std::uint8_t { train, inference };
// A row of x [..., c] is one entry of all axes but the last: of an image each pixel is one. Fewer have no
// variance.
inline constexpr std::int64_t kLeastBatchNormRows = 2;
// (x [..., c] - mean) / sqrt(variance + epsilon) * gamma [c] + beta [c], with mean and variance over all axes
// but the last (Ioffe and Szegedy, 2015). In train mode moving_mean [c] and moving_variance [c] are
// statistics (Op::is_statistic) that backward writes as it writes gradients: the mean, and the variance times
// n / (n - 1) for n rows as in TensorFlow's fused op and PyTorch, each times RunInfo::weight. A part of the
// batch with one row, which only the last, short batch of an epoch has, is normalised by the moving values,
// as in inference, and its statistics are these values: the moving averages stay where they are.
NodeId batch_norm(Graph& graph, NodeId x, NodeId gamma, NodeId beta, NodeId moving_mean,
                  NodeId moving_variance, double epsilon, BatchNormMode mode,
                  const NodeOptions& options = {});

// The same over the last axis of x [..., c], for each row by itself (Ba, Kiros, Hinton, 2016).
NodeId layer_norm(Graph& graph, NodeId x, NodeId gamma, NodeId beta, double epsilon,
                  const NodeOptions& options = {});

}  // namespace varscope::ops
