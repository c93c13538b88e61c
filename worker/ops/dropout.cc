#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string_view>

#include "common/base/hash.h"
#include "common/base/philox.h"
#include "worker/kernels/normalization_kernels.h"
#include "worker/ops/normalization.h"
#include "worker/ops/op_support.h"

namespace varscope {
namespace {

using namespace op_support;

// The workspace is the mask, a byte per element. Without a rate there is none: the op copies.
class Dropout final : public Op {
 public:
  Dropout(double rate, std::uint64_t key) : rate_(rate), key_(key) {}
  const char* type() const override { return "dropout"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    context.require_floating(0);
    if (!(rate_ >= 0 && rate_ < 1)) {
      context.fail(fmt::format("has rate {}; a rate is at least 0 and less than 1", rate_));
    }
    return context.type(0);
  }
  std::optional<TensorType> workspace(std::span<const TensorType* const> inputs) const override {
    if (rate_ == 0) return std::nullopt;
    return TensorType{DType::uint8, inputs[0]->shape};
  }

  void forward(const ForwardContext& ctx) const override {
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* x = ctx.inputs[0]->data<T>();
      const std::int64_t n = ctx.output.n_elements();
      if (rate_ == 0) return kernels::copy(ctx.output.data<T>(), x, n);
      std::uint8_t* kept = ctx.workspace.data<std::uint8_t>();
      const RandomStream stream(ctx.run.seed, RandomPurpose::dropout, stream_of(ctx.run));
      std::array<std::uint32_t, 1024> words;
      for (std::int64_t begin = 0; begin < n; begin += static_cast<std::int64_t>(words.size())) {
        const auto count = std::min<std::int64_t>(n - begin, static_cast<std::int64_t>(words.size()));
        // Element e has word e % 4 of the stream's element e / 4.
        stream.words(static_cast<std::uint64_t>(begin) / 4,
                     std::span(words).first(static_cast<std::size_t>(count)));
        kernels::dropout(ctx.output.data<T>() + begin, kept + begin, x + begin, words.data(), threshold(),
                         scale<T>(), count);
      }
    });
  }
  void backward(const BackwardContext& ctx) const override {
    const InputGradient& g = ctx.input_gradients[0];
    if (!wanted(g)) return;
    with_floating(ctx.output.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const T* dy = ctx.output_gradient.data<T>();
      const std::int64_t n = ctx.output.n_elements();
      if (rate_ == 0) return contribute(g, dy, n);
      kernels::dropout_gradient(sum_of(g), g.gradient->data<T>(), dy, ctx.workspace.data<std::uint8_t>(),
                                scale<T>(), n);
    });
  }

 private:
  // A word below it drops its element: rate * 2^32, which is below 2^32.
  std::uint32_t threshold() const { return static_cast<std::uint32_t>(std::ldexp(rate_, 32)); }
  template <class T>
  T scale() const {
    return static_cast<T>(1 / (1 - rate_));
  }
  std::uint64_t stream_of(const RunInfo& run) const {
    const std::uint64_t words[] = {key_, static_cast<std::uint64_t>(run.step),
                                   static_cast<std::uint64_t>(run.logical_worker)};
    std::array<char, sizeof words> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<char>(words[i / 8] >> (8 * (i % 8)) & 0xff);
    }
    return hash64(std::string_view(bytes.data(), bytes.size()));
  }
  double rate_;
  std::uint64_t key_;
};

}  // namespace

NodeId ops::dropout(Graph& graph, NodeId x, double rate, std::uint64_t key, const NodeOptions& options) {
  return graph.add(std::make_unique<Dropout>(rate, key), {x}, options);
}

}  // namespace varscope
