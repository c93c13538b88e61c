#pragma once

// Arrays: Tensor owns its memory, TensorView borrows it; Shape and DType say what is in it.

#include "common/base/tensor.h"
