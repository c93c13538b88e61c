#pragma once

#include <cstdint>
#include <optional>

#include "worker/graph/graph.h"
#include "worker/ops/kernels.h"
#include "worker/ops/window.h"

// Operations on images [n, h, w, c]: n of them, channels last (NHWC). Like worker/ops/ops.h: each function
// adds a node, shapes and dtypes are checked at once, values are float32 or float64.
namespace varscope::ops {

struct Conv2dOptions {
  std::int64_t stride_h = 1, stride_w = 1;
  Padding padding = Padding::same;
};
// f(x [n, h, w, c] * filter [kh, kw, c, m] + bias [m]), a cross-correlation, gives [n, h', w', m]. Computed
// as GEMMs over columns (im2col: Chellapilla, Puri, Simard, 2006), a block of output pixels at a time, so
// that the columns stay in the cache. An activation that needs its argument in backward (gelu) becomes a
// second node, "<name>/gelu", which is the one returned.
NodeId conv2d(Graph& graph, NodeId x, NodeId filter, std::optional<NodeId> bias, Activation f,
              const Conv2dOptions& conv = {}, const NodeOptions& options = {});

}  // namespace varscope::ops
