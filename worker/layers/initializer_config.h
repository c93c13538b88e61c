#pragma once

#include <cstdint>
#include <string_view>

#include "common/config/binder.h"
#include "common/config/config_node.h"
#include "common/variables/initializer.h"

namespace varscope {

enum class InitializerType : std::uint8_t {
  zeros,
  ones,
  constant,
  uniform,
  normal,
  truncated_normal,
  glorot_uniform,
  glorot_normal,
  he_uniform,
  he_normal,
  lecun_uniform,
  lecun_normal,
  fan_in_uniform,
  orthogonal,
  identity
};

// An initializer as YAML writes it: a name (`he_normal`), a number (a constant), or a map with a type
// (`{type: uniform, low: -0.1, high: 0.1}`).
struct InitializerConfig {
  InitializerType type = InitializerType::zeros;
  double value = 0;                // constant
  double low = 0, high = 0;        // uniform
  double mean = 0, stddev = 0.05;  // normal, truncated_normal
  double gain = 1;                 // orthogonal, identity
  void describe(Keys& keys);

  // For a variable of this shape. `fan_in` is the layer's, which its bias shares; used by fan_in_uniform
  // only, which else takes the shape's.
  Initializer make(const Shape& shape, std::int64_t fan_in) const;
  Initializer make(const Shape& shape) const {
    return make(shape, static_cast<std::int64_t>(fans_of(shape).in));
  }
};

// Throws Error(config) at the node.
InitializerConfig read_initializer(const ConfigNode& node, std::string_view file, std::string_view path);

}  // namespace varscope
