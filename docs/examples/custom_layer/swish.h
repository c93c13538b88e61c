#pragma once

#include <varscope/layers.h>

// The layer `{type: swish, beta: 1}`: x * sigmoid(beta x) with a trained beta (Ramachandran, Zoph and Le,
// 2017).
varscope::LayerType swish_layer();
