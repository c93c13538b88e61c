#pragma once

#include "worker/graph/graph.h"

// Operations on batches of sequences: [n, T, ...] is n rows (unknown until the run) of T time steps. Values
// are float32 or float64, the same for all floating inputs of an op; see worker/graph/op.h for the errors.
namespace varscope::ops {

// The rows `ids` (int32 or int64, [...]) of table [v, d], as [..., d]. The table's gradient is dense: zero
// but for the rows that occur, which are added in the order of the ids. An id that is not 0 .. v-1 is
// Error(data) in forward.
NodeId embedding(Graph& graph, NodeId table, NodeId ids, const NodeOptions& options = {});

// Long short-term memory (Hochreiter and Schmidhuber, Neural Computation 1997; without peepholes, as Zaremba,
// Sutskever and Vinyals, 2014) over all steps of x [n, T, d]; yields h of every step, [n, T, units].
// With [x_t, h_t-1] * weights [d + units, 4 units] + bias [4 units] cut into i, j, f, o (the order of
// TensorFlow's BasicLSTMCell):
//   c_t = sigmoid(f + forget_bias) * c_t-1 + sigmoid(i) * tanh(j),  h_t = sigmoid(o) * tanh(c_t).
// h0 and c0, [n, units], are the state before the first step. No gradient flows into them: back-propagation
// is truncated to the T steps. Local variables that carry state (Executor::bind_state) get h and c of the
// last step as their next value.
struct LstmOptions {
  double forget_bias = 1;
};
NodeId lstm(Graph& graph, NodeId x, NodeId weights, NodeId bias, NodeId h0, NodeId c0, LstmOptions lstm = {},
            const NodeOptions& options = {});

// Gated recurrent unit (Cho et al., EMNLP 2014) over x [n, T, d]; yields h of every step, [n, T, units].
// weights [d + units, 2 units] and bias [2 units] are of the gates r, u in this order, candidate_weights
// [d + units, units] and candidate_bias [units] of the candidate (as TensorFlow's GRUCell):
//   r, u = sigmoid([x_t, h_t-1] * weights + bias),  c = tanh([x_t, r * h_t-1] * candidate_weights + ...),
//   h_t = u * h_t-1 + (1 - u) * c.
// h0 [n, units] as for lstm.
NodeId gru(Graph& graph, NodeId x, NodeId weights, NodeId bias, NodeId candidate_weights,
           NodeId candidate_bias, NodeId h0, const NodeOptions& options = {});
// The form that cuDNN has, and with it PyTorch and, by default, Keras (reset_after): r is applied after the
// product with h_t-1, to which candidate_recurrent_bias [units] belongs. With the rows of candidate_weights
// cut into Wx [d, units] and Wh [units, units]:
//   c = tanh(x_t * Wx + candidate_bias + r * (h_t-1 * Wh + candidate_recurrent_bias)).
// What is said of gru holds for the rest.
NodeId gru_reset_after(Graph& graph, NodeId x, NodeId weights, NodeId bias, NodeId candidate_weights,
                       NodeId candidate_bias, NodeId candidate_recurrent_bias, NodeId h0,
                       const NodeOptions& options = {});

}  // namespace varscope::ops
