#pragma once

#include <cstdint>
#include <optional>

#include "worker/graph/graph.h"
#include "worker/kernels/kernels.h"
#include "worker/kernels/window.h"

// Operations on images [n, h, w, c]: n of them, channels last (NHWC). Like worker/ops/ops.h: each function
// adds a node, shapes and dtypes are checked at once, values are float32 or float64.
namespace varscope::ops {

struct Conv2dOptions {
  std::int64_t stride_h = 1, stride_w = 1;
  Padding padding = Padding::same;
};
// f(x [n, h, w, c] * filter [kh, kw, c, m] + bias [m]), a cross-correlation, gives [n, h', w', m]. Computed
// as GEMMs over columns (im2col: Chellapilla, Puri, Simard, 2006), a block of output pixels at a time, so
// that the columns stay in the cache. An activation that needs its argument in backward (gelu, swish)
// becomes a second node, "<name>/gelu", which is the one returned.
NodeId conv2d(Graph& graph, NodeId x, NodeId filter, std::optional<NodeId> bias, Activation f,
              const Conv2dOptions& conv = {}, const NodeOptions& options = {});

struct Pool2dOptions {
  std::int64_t window_h = 2, window_w = 2;
  std::int64_t stride_h = 2, stride_w = 2;
  Padding padding = Padding::valid;
};
// [n, h, w, c] to [n, h', w', c]. Cells outside the image count for nothing: they are no maximum, and an
// average divides by the number of cells inside. The gradient of a maximum goes to its first cell in
// row-major order; not-a-number is the maximum.
NodeId max_pool2d(Graph& graph, NodeId x, const Pool2dOptions& pool = {}, const NodeOptions& options = {});
NodeId average_pool2d(Graph& graph, NodeId x, const Pool2dOptions& pool = {},
                      const NodeOptions& options = {});

// The mean over height and width of each channel: [n, h, w, c] to [n, c]. Accumulated in double.
NodeId global_average_pool2d(Graph& graph, NodeId x, const NodeOptions& options = {});

}  // namespace varscope::ops
