#pragma once

// Saver saves and restores variables of a model in this process, as TensorFlow's does: which ones, under
// which names, which checkpoints stay (RetentionPolicy). AssignmentMap and WarmStart take values from a
// checkpoint of another model. docs/saver.md is the guide.

#include "checkpoint/directory/retention.h"
#include "checkpoint/restore/assignment_map.h"
#include "checkpoint/restore/saver.h"
#include "checkpoint/restore/warm_start.h"
