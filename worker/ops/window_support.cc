#include "worker/ops/window_support.h"

namespace varscope::op_support {

void check_window(const InferContext& context, const WindowSize& size, Padding padding) {
  context.require_floating(0);
  context.require_rank(0, 4);
  const Shape& x = context.shape(0);
  if (x[1] < 1 || x[2] < 1 || x[3] < 1) {
    context.fail(
        fmt::format("needs images [n, height, width, channels] of known extents of at least 1 in \"{}\", "
                    "which has shape {}",
                    context.name(0), x.str()));
  }
  if (size.height < 1 || size.width < 1 || size.stride_h < 1 || size.stride_w < 1) {
    context.fail(fmt::format("has a window of {} x {} and strides {} x {}; each must be at least 1",
                             size.height, size.width, size.stride_h, size.stride_w));
  }
  if (padding == Padding::valid && (size.height > x[1] || size.width > x[2])) {
    context.fail(
        fmt::format("a window of {} x {} with padding valid does not fit into images {} of \"{}\"; make it "
                    "smaller, or use padding same",
                    size.height, size.width, x.str(), context.name(0)));
  }
}

}  // namespace varscope::op_support
