#include "worker/kernels/window.h"

#include <algorithm>

namespace varscope {

const char* to_string(Padding padding) { return padding == Padding::same ? "same" : "valid"; }

WindowAxis WindowAxis::make(std::int64_t input, std::int64_t window, std::int64_t stride, Padding padding) {
  if (padding == Padding::valid) return {input, window, stride, (input - window) / stride + 1, 0};
  const std::int64_t output = (input + stride - 1) / stride;
  const std::int64_t padded = std::max<std::int64_t>(0, (output - 1) * stride + window - input);
  return {input, window, stride, output, padded / 2};
}

Window2d make_window(const Shape& images, const WindowSize& size, Padding padding) {
  return {WindowAxis::make(images[1], size.height, size.stride_h, padding),
          WindowAxis::make(images[2], size.width, size.stride_w, padding), images[3]};
}

}  // namespace varscope
