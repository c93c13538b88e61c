#include <optional>

#include "worker/layers/activation_names.h"
#include "worker/layers/built_in.h"
#include "worker/layers/layer_variables.h"
#include "worker/ops/image_ops.h"
#include "worker/ops/ops.h"

namespace varscope {
namespace {

constexpr double kMostPixels = 1 << 16;  // of a side

constexpr Choice<Padding> kPaddings[] = {{Padding::same, "same"}, {Padding::valid, "valid"}};

// One number for both axes, or [height, width].
struct Pair {
  std::int64_t height, width;
};
Pair pair_of(const LayerContext& context, const char* key, const std::vector<std::int64_t>& list) {
  if (list.size() == 1) return {list[0], list[0]};
  if (list.size() == 2) return {list[0], list[1]};
  context.fail_key(key, fmt::format("expected [height, width] or [side], got {} numbers", list.size()));
}

// Images without channels, [n, h, w], have one.
NodeId as_images(const LayerContext& context) {
  context.require_inputs(1);
  const Shape& s = context.shape();
  if (s.rank() == 4) return context.input();
  if (s.rank() == 3)
    return ops::reshape(context.graph, context.input(), Shape{Shape::kUnknown, s[1], s[2], 1},
                        context.op("channel"));
  context.fail_key("type", fmt::format("needs images [?, height, width, channels], got shape {}", s.str()));
}

struct ConvKeys {
  VariableKeys variables;
  std::int64_t filters = 0;
  std::vector<std::int64_t> kernel;
  std::vector<std::int64_t> stride{1};
  Padding padding = Padding::same;
  Activation activation = Activation::linear;
  bool bias = true;
  ConfigNode bias_initializer;
  void describe(Keys& keys) {
    variables.describe(keys);
    keys.required_key("filters", filters, "channels of the output", {.min = 1, .max = 1 << 20});
    keys.required_key("kernel", kernel, "size of the filters: [side] or [height, width]",
                      {.unit = "pixels", .min = 1, .max = kMostPixels});
    keys.key("stride", stride, "step of the filters: [both] or [height, width]",
             {.unit = "pixels", .min = 1, .max = kMostPixels});
    keys.choice(
        "padding", padding, kPaddings,
        "same: zeros around the image, so that the output is as large as the input / stride; valid: none");
    keys.choice("activation", activation, kActivationNames, "applied to the outputs");
    keys.key("bias", bias, "whether a bias is added for each filter");
    keys.key("bias_initializer", bias_initializer, "first bias; without it zeros",
             {.type_name = "an initializer"});
  }
};

LayerInfo build_conv2d(const LayerContext& context) {
  const auto keys = read_keys<ConvKeys>(context);
  const Pair kernel = pair_of(context, "kernel", keys.kernel),
             stride = pair_of(context, "stride", keys.stride);
  LayerVariables variables(context, keys.variables, "conv2d");
  const NodeId x = as_images(context);
  const std::int64_t channels = context.type(x).shape[3];
  const std::int64_t fan_in = kernel.height * kernel.width * channels;
  const NodeId filter =
      variables.weights("weights", {kernel.height, kernel.width, channels, keys.filters}, fan_in);
  std::optional<NodeId> bias;
  if (keys.bias) {
    bias = variables.other("bias", {keys.filters}, Initializer::constant(0), &keys.bias_initializer,
                           "bias_initializer", fan_in);
  }
  const ops::Conv2dOptions options{stride.height, stride.width, keys.padding};
  LayerInfo info;
  info.scope = variables.scope();
  info.output = ops::conv2d(context.graph, x, filter, bias, keys.activation, options, context.op("conv2d"));
  info.text = fmt::format("{}: conv2d {}x{}, {} -> {}, {}, {}", info.scope, kernel.height, kernel.width,
                          context.type(x).shape.str(), context.type(info.output).shape.str(),
                          to_string(keys.activation), variables.text());
  return info;
}

struct PoolKeys {
  std::vector<std::int64_t> window{2};
  std::vector<std::int64_t> stride;
  Padding padding = Padding::valid;
  void describe(Keys& keys) {
    keys.key("window", window, "[side] or [height, width]", {.unit = "pixels", .min = 1, .max = kMostPixels});
    keys.key("stride", stride, "[both] or [height, width]; without it the window's size",
             {.unit = "pixels", .min = 1, .max = kMostPixels});
    keys.choice("padding", padding, kPaddings,
                "same: windows may reach beyond the border; valid: they may not");
  }
};

template <class Op>
LayerInfo build_pool(const LayerContext& context, const char* name, Op op) {
  const auto keys = read_keys<PoolKeys>(context);
  const Pair window = pair_of(context, "window", keys.window);
  const Pair stride = keys.stride.empty() ? window : pair_of(context, "stride", keys.stride);
  const NodeId x = as_images(context);
  LayerInfo info;
  info.output = op(context.graph, x,
                   ops::Pool2dOptions{window.height, window.width, stride.height, stride.width, keys.padding},
                   context.op(name));
  info.text = fmt::format("{}: {}x{}, {} -> {}", name, window.height, window.width,
                          context.type(x).shape.str(), context.type(info.output).shape.str());
  return info;
}

struct NoKeys {
  void describe(Keys&) {}
};

LayerInfo build_global_pool(const LayerContext& context) {
  read_keys<NoKeys>(context);
  const NodeId x = as_images(context);
  LayerInfo info;
  info.output = ops::global_average_pool2d(context.graph, x, context.op("global_average_pool2d"));
  info.text = fmt::format("global_average_pool2d: {} -> {}", context.type(x).shape.str(),
                          context.type(info.output).shape.str());
  return info;
}

}  // namespace

void add_image_layers(LayerRegistry& registry) {
  registry.add({"conv2d", "filters over images [height, width, channels]; images without channels get one",
                build_conv2d, describe_keys<ConvKeys>});
  registry.add({"max_pool2d", "the largest value of each window",
                [](const LayerContext& c) { return build_pool(c, "max_pool2d", ops::max_pool2d); },
                describe_keys<PoolKeys>});
  registry.add({"average_pool2d", "the mean of each window",
                [](const LayerContext& c) { return build_pool(c, "average_pool2d", ops::average_pool2d); },
                describe_keys<PoolKeys>});
  registry.add({"global_average_pool2d", "the mean of each channel over the whole image: [channels]",
                build_global_pool, describe_keys<NoKeys>});
}

}  // namespace varscope
