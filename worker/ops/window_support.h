#pragma once

#include "worker/graph/op.h"
#include "worker/kernels/window.h"

// The check of a window that convolutions and pooling share; private to worker/ops.
namespace varscope::op_support {

// What make_window requires. Throws by InferContext::fail for input 0 that is not [n, h, w, c] with known h,
// w and c of at least 1, for a window or stride below 1, and for a valid window that is larger than the
// image.
void check_window(const InferContext& context, const WindowSize& size, Padding padding);

}  // namespace varscope::op_support
