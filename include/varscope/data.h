#pragma once

// Data sources of one's own: a Dataset, a struct of keys with `describe`, and add_source<S>(), which makes
// `type: name` work as the built-in types do.

#include "common/config/data_source.h"
#include "worker/data/dataset.h"
#include "worker/data/source_registry.h"
