#pragma once

// Runs a graph in this process, without servers: Session has values and gradients of one thread; an Executor
// is bound to values that others own, so that several threads may share them.

#include "worker/graph/executor.h"
#include "worker/graph/session.h"
