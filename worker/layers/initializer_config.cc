#include "worker/layers/initializer_config.h"

#include <algorithm>

namespace varscope {
namespace {

constexpr Choice<InitializerType> kTypes[] = {{InitializerType::zeros, "zeros"},
                                              {InitializerType::ones, "ones"},
                                              {InitializerType::constant, "constant"},
                                              {InitializerType::uniform, "uniform"},
                                              {InitializerType::normal, "normal"},
                                              {InitializerType::truncated_normal, "truncated_normal"},
                                              {InitializerType::glorot_uniform, "glorot_uniform"},
                                              {InitializerType::glorot_normal, "glorot_normal"},
                                              {InitializerType::he_uniform, "he_uniform"},
                                              {InitializerType::he_normal, "he_normal"},
                                              {InitializerType::lecun_uniform, "lecun_uniform"},
                                              {InitializerType::lecun_normal, "lecun_normal"},
                                              {InitializerType::fan_in_uniform, "fan_in_uniform"},
                                              {InitializerType::orthogonal, "orthogonal"},
                                              {InitializerType::identity, "identity"}};

}  // namespace

void InitializerConfig::describe(Keys& keys) {
  keys.required_selector("type", type, kTypes, "distribution of the first values");
  keys.required_key("value", value, "every element", {.only_for = "constant"});
  keys.required_key("low", low, "smallest value", {.only_for = "uniform"});
  keys.required_key("high", high, "largest value", {.only_for = "uniform"});
  keys.key("mean", mean, "mean of the values", {.only_for = "normal, truncated_normal"});
  keys.key("stddev", stddev, "standard deviation of the values, before truncation",
           {.min = 0, .only_for = "normal, truncated_normal"});
  keys.key("gain", gain, "factor of the matrix", {.only_for = "orthogonal, identity"});
}

Initializer InitializerConfig::make(const Shape& shape, std::int64_t fan_in) const {
  switch (type) {
    case InitializerType::zeros:
      return Initializer::constant(0);
    case InitializerType::ones:
      return Initializer::constant(1);
    case InitializerType::constant:
      return Initializer::constant(value);
    case InitializerType::uniform:
      return Initializer::uniform(low, high);
    case InitializerType::normal:
      return Initializer::normal(mean, stddev);
    case InitializerType::glorot_uniform:
      return Initializer::glorot_uniform(shape);
    case InitializerType::glorot_normal:
      return Initializer::glorot_normal(shape);
    case InitializerType::he_uniform:
      return Initializer::he_uniform(shape);
    case InitializerType::he_normal:
      return Initializer::he_normal(shape);
    case InitializerType::truncated_normal:
      return Initializer::truncated_normal(mean, stddev);
    case InitializerType::lecun_uniform:
      return Initializer::lecun_uniform(shape);
    case InitializerType::lecun_normal:
      return Initializer::lecun_normal(shape);
    case InitializerType::orthogonal:
      return Initializer::orthogonal(gain);
    case InitializerType::identity:
      return Initializer::identity(gain);
    case InitializerType::fan_in_uniform:
      return Initializer::fan_in_uniform(std::max<std::int64_t>(1, fan_in));
  }
  fail(ErrorKind::config, "initializer type {} does not exist", static_cast<int>(type));
}

InitializerConfig read_initializer(const ConfigNode& node, std::string_view file, std::string_view path) {
  InitializerConfig config;
  if (node.is_map()) {
    config = bind_keys<InitializerConfig>(node, file, path);
  } else if (double number = 0; node.is_scalar() && !node.quoted && parse_number(node.scalar, number)) {
    config.type = InitializerType::constant;
    config.value = number;
  } else if (node.is_scalar()) {
    ConfigNode map = ConfigNode::map();
    map.mark = node.mark;
    map.add("type", node, node.mark);
    config = bind_keys<InitializerConfig>(map, file, path);
  } else {
    fail_at(node, file, path,
            fmt::format(
                "expected an initializer (glorot_uniform, or a map with type: uniform, low:, high:), got {}",
                node.describe()));
  }
  if (config.type == InitializerType::uniform && !(config.low <= config.high)) {
    fail_at(node, file, path, fmt::format("low {} is above high {}", config.low, config.high));
  }
  return config;
}

}  // namespace varscope
