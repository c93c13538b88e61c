#pragma once

// Layers of one's own for models in YAML: a function that adds a layer's operations and variables to a graph
// (LayerContext, LayerVariables, keys by read_keys), and the LayerRegistry that knows it by its `type`. With
// <varscope/program.h> they are in all of the program. docs/custom_layers.md is the guide.

#include "common/config/binder.h"
#include "worker/layers/initializer_config.h"
#include "worker/layers/layer.h"
#include "worker/layers/layer_variables.h"
