#pragma once

#include "bench/bench.h"

namespace varscope::bench {

// Forward and backward of a convolutional network, conv5x5x32 - pool2 - conv5x5x64 - pool2 - dense10 on
// [128, 28, 28, 1] float32, in this process with one thread, beside a loop of the GEMM calls that its ops
// issue, on memory that is in the cache. The two alternate.
struct ConvFigures {
  Spread samples_per_s, gemm_samples_per_s, ratio;
};
ConvFigures run_conv(int trials, int steps);

}  // namespace varscope::bench
