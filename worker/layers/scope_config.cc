#include "worker/layers/scope_config.h"

#include <cstdint>

#include "worker/layers/initializer_config.h"

namespace varscope {
namespace {

enum class RegularizerType : std::uint8_t { none, l1, l2, l1_l2 };
constexpr Choice<RegularizerType> kRegularizers[] = {{RegularizerType::none, "none"},
                                                     {RegularizerType::l1, "l1"},
                                                     {RegularizerType::l2, "l2"},
                                                     {RegularizerType::l1_l2, "l1_l2"}};
struct RegularizerKeys {
  RegularizerType type = RegularizerType::none;
  double factor = 0, l1 = 0, l2 = 0;
  void describe(Keys& keys) {
    keys.required_selector("type", type, kRegularizers,
                           "what is added to the loss: factor * sum|w| (l1), factor * sum w^2 (l2), or both");
    keys.required_key("factor", factor, "factor of the sum", {.min = 0, .only_for = "l1, l2"});
    keys.required_key("l1", l1, "factor of sum|w|", {.min = 0, .only_for = "l1_l2"});
    keys.required_key("l2", l2, "factor of sum w^2", {.min = 0, .only_for = "l1_l2"});
  }
};

constexpr Choice<Constraint::Kind> kConstraints[] = {{Constraint::Kind::none, "none"},
                                                     {Constraint::Kind::non_neg, "non_neg"},
                                                     {Constraint::Kind::max_norm, "max_norm"},
                                                     {Constraint::Kind::unit_norm, "unit_norm"}};
struct ConstraintKeys {
  Constraint::Kind type = Constraint::Kind::none;
  double limit = 0;
  void describe(Keys& keys) {
    keys.required_selector("type", type, kConstraints,
                           "what servers make hold after every update; norms are of the weights "
                           "that lead to one output");
    keys.required_key("limit", limit, "the largest norm", {.above = 0, .only_for = "max_norm"});
  }
};

enum class PartitionerType : std::uint8_t { none, fixed_size, variable_axis_size, min_max };
constexpr Choice<PartitionerType> kPartitioners[] = {
    {PartitionerType::none, "none"},
    {PartitionerType::fixed_size, "fixed_size"},
    {PartitionerType::variable_axis_size, "variable_axis_size"},
    {PartitionerType::min_max, "min_max"}};
constexpr double kMostParts = 1 << 20, kMostBytes = std::int64_t{1} << 50, kMostSteps = 1e12;
struct PartitionerKeys {
  PartitionerType type = PartitionerType::none;
  std::int64_t parts = 0, axis = 0, max_parts = 0, max_bytes = 0, min_bytes = 256 << 10;
  void describe(Keys& keys) {
    keys.required_selector("type", type, kPartitioners, "how variables are cut into parts");
    keys.required_key("parts", parts, "number of parts",
                      {.min = 1, .max = kMostParts, .only_for = "fixed_size"});
    keys.key("axis", axis, "axis that is cut",
             {.min = 0, .max = 31, .only_for = "fixed_size, variable_axis_size, min_max"});
    keys.required_key("max_bytes", max_bytes, "largest part",
                      {.unit = "bytes", .min = 1, .max = kMostBytes, .only_for = "variable_axis_size"});
    keys.required_key("max_parts", max_parts, "largest number of parts",
                      {.min = 1, .max = kMostParts, .only_for = "variable_axis_size, min_max"});
    keys.key("min_bytes", min_bytes, "smallest part",
             {.unit = "bytes", .min = 1, .max = kMostBytes, .only_for = "min_max"});
  }
};

enum class CompressionType : std::uint8_t { none, bf16, fp16, onebit, topk };
constexpr Choice<CompressionType> kCompressions[] = {{CompressionType::none, "none"},
                                                     {CompressionType::bf16, "bf16"},
                                                     {CompressionType::fp16, "fp16"},
                                                     {CompressionType::onebit, "onebit"},
                                                     {CompressionType::topk, "topk"}};
constexpr Choice<ValueForm> kValueForms[] = {{ValueForm::full, "full"}, {ValueForm::bf16, "bf16"}};
struct CompressionKeys {
  CompressionType type = CompressionType::none;
  ValueForm values = ValueForm::full;
  double ratio = Compression().ratio;
  std::int64_t min_bytes = Compression().min_bytes, start_step = Compression::kAutomatic;
  void describe(Keys& keys) {
    keys.selector("type", type, kCompressions,
                  "what becomes of a gradient's numbers: 16 bits (bf16, fp16), a sign (onebit), or only the "
                  "largest are sent (topk); the last two keep what they lose for later");
    keys.key("ratio", ratio, "share of a gradient's elements that is sent",
             {.max = 1, .above = 0, .only_for = "topk"});
    keys.choice("values", values, kValueForms,
                "form of the values that workers compute with; servers keep all bits");
    keys.key("min_bytes", min_bytes, "smaller variables are not compressed",
             {.unit = "bytes", .min = 0, .max = kMostBytes});
    keys.key(
        "start_step", start_step,
        "gradients of steps up to this one go up in full; -1: of none (bf16, fp16), or of a tenth of the run, "
        "100 where its length is not known (onebit, topk)",
        {.unit = "steps", .min = -1, .max = kMostSteps});
  }
};

// A bare name stands for a map with that type.
template <class K>
K read_named(const ConfigNode& node, std::string_view file, std::string_view path, const char* example) {
  if (node.is_map()) return bind_keys<K>(node, file, path);
  if (!node.is_scalar())
    fail_at(node, file, path, fmt::format("expected {}, got {}", example, node.describe()));
  ConfigNode map = ConfigNode::map();
  map.mark = node.mark;
  map.add("type", node, node.mark);
  return bind_keys<K>(map, file, path);
}

}  // namespace

Regularizer read_regularizer(const ConfigNode& node, std::string_view file, std::string_view path) {
  const auto keys = read_named<RegularizerKeys>(node, file, path, "a regularizer ({type: l2, factor: 1e-4})");
  switch (keys.type) {
    case RegularizerType::none:
      return Regularizer::none();
    case RegularizerType::l1:
      return Regularizer::l1(keys.factor);
    case RegularizerType::l2:
      return Regularizer::l2(keys.factor);
    case RegularizerType::l1_l2:
      return Regularizer::l1_l2(keys.l1, keys.l2);
  }
  return Regularizer::none();
}

Constraint read_constraint(const ConfigNode& node, std::string_view file, std::string_view path) {
  const auto keys = read_named<ConstraintKeys>(node, file, path, "a constraint ({type: max_norm, limit: 3})");
  return {keys.type, keys.type == Constraint::Kind::unit_norm ? 1 : keys.limit};
}

Partitioner read_partitioner(const ConfigNode& node, std::string_view file, std::string_view path) {
  const auto keys =
      read_named<PartitionerKeys>(node, file, path, "a partitioner ({type: fixed_size, parts: 2})");
  const auto axis = static_cast<int>(keys.axis);
  switch (keys.type) {
    case PartitionerType::none:
      return {};
    case PartitionerType::fixed_size:
      return fixed_size_partitioner(keys.parts, axis);
    case PartitionerType::variable_axis_size:
      return variable_axis_size_partitioner(keys.max_bytes, axis, keys.max_parts);
    case PartitionerType::min_max:
      return min_max_variable_partitioner(keys.max_parts, axis, keys.min_bytes);
  }
  return {};
}

Compression read_compression(const ConfigNode& node, std::string_view file, std::string_view path) {
  const auto keys =
      read_named<CompressionKeys>(node, file, path, "a compression ({type: topk, ratio: 0.01})");
  Compression c{.ratio = keys.ratio,
                .values = keys.values,
                .min_bytes = keys.min_bytes,
                .start_step = keys.start_step,
                .made_at = fmt::format("{}{}: ", position_of(node.mark, file), path)};
  switch (keys.type) {
    case CompressionType::none:
      break;
    case CompressionType::bf16:
      c.type = CodecType::bf16;
      break;
    case CompressionType::fp16:
      c.type = CodecType::fp16;
      break;
    case CompressionType::onebit:
      c.type = CodecType::onebit;
      break;
    case CompressionType::topk:
      c.type = CodecType::topk;
      break;
  }
  return c;
}

void ScopeKeys::describe(Keys& keys) {
  keys.key("initializer", initializer, "first weights of the variables inside",
           {.type_name = "an initializer"});
  keys.key("regularizer", regularizer, "of all variables inside, biases too", {.type_name = "a regularizer"});
  keys.key("constraint", constraint, "of all variables inside, biases too", {.type_name = "a constraint"});
  keys.key("partitioner", partitioner, "of all variables inside", {.type_name = "a partitioner"});
  keys.key("compression", compression, "of the large weights inside", {.type_name = "a compression"});
  keys.choice("dtype", dtype, {"", "float32", "float64"}, "of the variables inside; empty is inherited");
  keys.choice("trainable", trainable, {"", "true", "false"},
              "whether the variables inside are trained; empty is inherited");
}

ScopeOptions ScopeKeys::options(std::string_view file, std::string_view path) const {
  ScopeOptions o;
  if (!initializer.is_null()) {
    const InitializerConfig config = read_initializer(initializer, file, join_keys(path, "initializer"));
    o.initializer = InitializerFor([config](const Shape& shape) { return config.make(shape); });
  }
  if (!regularizer.is_null())
    o.regularizer = read_regularizer(regularizer, file, join_keys(path, "regularizer"));
  if (!constraint.is_null()) o.constraint = read_constraint(constraint, file, join_keys(path, "constraint"));
  if (!partitioner.is_null())
    o.partitioner = read_partitioner(partitioner, file, join_keys(path, "partitioner"));
  if (!compression.is_null())
    o.compression = read_compression(compression, file, join_keys(path, "compression"));
  if (!dtype.empty()) o.dtype = dtype_from_string(dtype);
  if (!trainable.empty()) o.trainable = trainable == "true";
  return o;
}

void check_scope_name(const ConfigNode& node, std::string_view key, std::string_view name,
                      std::string_view file, std::string_view path) {
  if (!name.ends_with('/') && name.find("//") == std::string_view::npos) return;
  const ConfigNode* value = node.find(key);
  fail_at(value != nullptr ? *value : node, file, join_keys(path, key),
          fmt::format("\"{}\" is not a scope name: there is nothing between or behind its slashes", name));
}

std::string explain_scope_keys(std::string_view path) { return explain_keys<ScopeKeys>(path); }

std::string explain_scope_values() {
  return "a regularizer: none, or a map\n" + explain_keys<RegularizerKeys>("regularizer") +
         "a constraint: a name, or a map\n" + explain_keys<ConstraintKeys>("constraint") +
         "a partitioner: none, or a map\n" + explain_keys<PartitionerKeys>("partitioner") +
         "a compression: a name, or a map\n" + explain_keys<CompressionKeys>("compression");
}

}  // namespace varscope
