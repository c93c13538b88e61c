#pragma once

#include "worker/layers/layer.h"

// The built-in layer types, by file; private to worker/layers.
namespace varscope {

void add_dense_layers(LayerRegistry& registry);
void add_array_layers(LayerRegistry& registry);
void add_feature_layers(LayerRegistry& registry);
void add_image_layers(LayerRegistry& registry);
void add_normalization_layers(LayerRegistry& registry);
void add_sequence_layers(LayerRegistry& registry);

}  // namespace varscope
