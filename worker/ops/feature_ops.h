#pragma once

#include <cstdint>
#include <optional>

#include "worker/graph/graph.h"

// Operations on features of tables: ids of categories, bags of ids, and products of features. Like
// worker/ops/ops.h: each function adds a node, shapes and dtypes are checked at once, values are float32 or
// float64, ids int32 or int64.
namespace varscope::ops {

// 1 at the place of each of `ids` [...] and 0 elsewhere, as [..., depth] of `dtype`, float32 or float64. An
// id that is not 0 .. depth-1 is Error(data) in forward. No gradient flows.
NodeId one_hot(Graph& graph, NodeId ids, std::int64_t depth, DType dtype, const NodeOptions& options = {});

// How the rows of a bag become one, with weights w (1 where there are none):
//   sum: S w v    mean: S w v / S w    sqrtn: S w v / sqrt(S w^2)    (TensorFlow's embedding_lookup_sparse)
enum class Combiner : std::uint8_t { sum, mean, sqrtn };

// One row of [n, d] for each of n bags: rows of `values` [v, d], combined. Bag r holds the ids at the
// positions offsets[r] .. offsets[r+1] - 1 of `ids` [total], in this order; `offsets` int64 [n + 1] are
// ascending and within 0 .. total. What lies before the first and behind the last is not read, so that a part
// of a batch needs its part of the offsets only. `weights` [total] are of the dtype of `values`.
//   ids = graph.placeholder("ids", DType::int64, {Shape::kRagged});
//   offsets = graph.placeholder("offsets", DType::int64, {Shape::kBounds});
// An empty bag is zeros. An id of weight 0 is as if it were not there, whatever it is; a bag of such ids is
// empty. The gradient of `values` is dense: zero but for the rows that occur, to which the bags are added in
// their order. None flows into the weights. Sums are accumulated in double. Error(data) in forward, with row
// and position: an id that is not 0 .. v-1, offsets that do not ascend, a weight that is not finite, or
// negative with mean or sqrtn.
NodeId embedding_bag(Graph& graph, NodeId values, NodeId ids, NodeId offsets, std::optional<NodeId> weights,
                     Combiner combiner, const NodeOptions& options = {});

// The second-order term of a factorization machine (Rendle, ICDM 2010), as [n, 1].
// Over embedded fields [n, f, k], f >= 1: the sum of <x_i, x_j> over all pairs i < j of fields.
NodeId factorization_machine(Graph& graph, NodeId fields, const NodeOptions& options = {});
// Over features x [n, d] with `factors` [d, k]: the sum of <v_i, v_j> x_i x_j over all pairs i < j. Several
// nodes, named <name>/...; two GEMMs of [n, d] x [d, k].
NodeId factorization_machine(Graph& graph, NodeId x, NodeId factors, const NodeOptions& options);
// The same of features that bags hold, as embedding_bag reads them: an id of weight w is a feature i with
// x_i = w. An id that is twice in a bag is two features with the same factors.
NodeId factorization_machine_bag(Graph& graph, NodeId factors, NodeId ids, NodeId offsets,
                                 std::optional<NodeId> weights, const NodeOptions& options = {});

}  // namespace varscope::ops
