#pragma once

// Dataflow graphs: Graph holds placeholders, variables and operations; the functions in varscope::ops add the
// operations, losses and metrics that varscope has. An operation of one's own derives from Op.

#include "worker/graph/graph.h"
#include "worker/graph/op.h"
#include "worker/ops/feature_ops.h"
#include "worker/ops/image_ops.h"
#include "worker/ops/losses.h"
#include "worker/ops/metric_ops.h"
#include "worker/ops/normalization.h"
#include "worker/ops/ops.h"
#include "worker/ops/sequence_ops.h"
