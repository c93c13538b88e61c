#include "worker/ops/window.h"

#include <algorithm>

namespace varscope {

const char* to_string(Padding padding) { return padding == Padding::same ? "same" : "valid"; }

WindowAxis WindowAxis::make(std::int64_t input, std::int64_t window, std::int64_t stride, Padding padding) {
  if (padding == Padding::valid) return {input, window, stride, (input - window) / stride + 1, 0};
  const std::int64_t output = (input + stride - 1) / stride;
  const std::int64_t padded = std::max<std::int64_t>(0, (output - 1) * stride + window - input);
  return {input, window, stride, output, padded / 2};
}

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

Window2d make_window(const Shape& images, const WindowSize& size, Padding padding) {
  return {WindowAxis::make(images[1], size.height, size.stride_h, padding),
          WindowAxis::make(images[2], size.width, size.stride_w, padding), images[3]};
}

}  // namespace varscope
