#include "bench/train_conv.h"

#include <algorithm>
#include <map>
#include <vector>

#include "worker/graph/executor.h"
#include "worker/kernels/blas.h"
#include "worker/kernels/im2col.h"
#include "worker/ops/image_ops.h"
#include "worker/ops/ops.h"

namespace varscope::bench {
namespace {

constexpr std::int64_t kBatch = 128, kClasses = 10, kFilter = 5;

class ConvNet {
 public:
  ConvNet() : loss_(build()), executor_(graph_, loss_, kBatch) {
    for (const Variable* v : graph_.variables()) {
      values_.emplace_back(v->dtype(), v->shape());
      v->spec().fill(values_.back().view(), 1, 0);
      gradients_.emplace_back(v->dtype(), v->shape());
      executor_.bind(*v, values_.back().view(), gradients_.back().view());
    }
    for (std::int64_t i = 0; i < images_.n_elements(); ++i)
      images_.view().data<float>()[i] = static_cast<float>((i * 37) % 101) * 0.01F;
    for (std::int64_t i = 0; i < kBatch; ++i)
      labels_.view().data<std::int32_t>()[i] = static_cast<std::int32_t>(i % kClasses);
    executor_.feed(x_, images_.view());
    executor_.feed(y_, labels_.view());
  }
  void step() {
    for (const auto& s : executor_.forward_steps()) executor_.forward(s);
    executor_.start_backward(1.0 / static_cast<double>(kBatch));
    for (const auto& s : executor_.backward_steps()) executor_.backward(s);
  }

 private:
  NodeId build() {
    const auto weights = [&](const char* name, const Shape& shape) {
      VariableOptions options;
      options.initializer = Initializer::uniform(-0.05, 0.05);
      return graph_.variable(store_.get_variable(name, shape, options));
    };
    x_ = graph_.placeholder("x", DType::float32, {Shape::kUnknown, 28, 28, 1});
    y_ = graph_.placeholder("y", DType::int32, {Shape::kUnknown});
    NodeId h = ops::conv2d(graph_, x_, weights("filter1", {kFilter, kFilter, 1, 32}), weights("bias1", {32}),
                           Activation::relu);
    h = ops::max_pool2d(graph_, h);
    h = ops::conv2d(graph_, h, weights("filter2", {kFilter, kFilter, 32, 64}), weights("bias2", {64}),
                    Activation::relu);
    h = ops::flatten(graph_, ops::max_pool2d(graph_, h));
    h = ops::dense(graph_, h, weights("weights", {7 * 7 * 64, kClasses}), weights("bias", {kClasses}),
                   Activation::linear);
    return ops::softmax_cross_entropy(graph_, h, y_);
  }

  VariableStore store_;
  Graph graph_;
  NodeId x_, y_, loss_;
  Executor executor_;
  std::vector<Tensor> values_, gradients_;
  Tensor images_{DType::float32, {kBatch, 28, 28, 1}};
  Tensor labels_{DType::int32, {kBatch}};
};

// The GEMM calls of one step, each on the same three matrices: they stay in the cache.
class ConvGemms {
 public:
  ConvGemms() {
    add_conv({kBatch, 28, 28, 1}, 32, InputGemm::no);
    add_conv({kBatch, 14, 14, 32}, 64, InputGemm::yes);
    const std::int64_t features = 7 * 7 * 64;
    add(Transpose::no, Transpose::no, kBatch, kClasses, features, 0);
    add(Transpose::no, Transpose::yes, kBatch, features, kClasses, 0);
    add(Transpose::yes, Transpose::no, features, kClasses, kBatch, 0);
    a_.assign(largest_, 0.01F);
    b_ = c_ = a_;
  }
  void step() {
    for (const Call& g : calls_) gemm(g.ta, g.tb, g.m, g.n, g.k, a_.data(), b_.data(), g.beta, c_.data());
    if (!(c_[0] < 1e30F)) std::fill(c_.begin(), c_.end(), 0.0F);  // what accumulates must stay finite
  }

 private:
  struct Call {
    Transpose ta, tb;
    std::int64_t m, n, k;
    float beta;
  };
  enum class InputGemm : std::uint8_t { no, yes };

  void add(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float beta) {
    calls_.push_back({ta, tb, m, n, k, beta});
    largest_ = std::max(largest_, static_cast<std::size_t>(std::max({m * k, k * n, m * n})));
  }
  void add_conv(const Shape& x, std::int64_t filters, InputGemm input) {
    const Window2d w = make_window(x, {kFilter, kFilter, 1, 1}, Padding::same);
    const std::int64_t pixels = x[0] * w.outputs(), cells = w.cells();
    const std::int64_t rows = kernels::column_block_rows(w, DType::float32);
    for (std::int64_t begin = 0; begin < pixels; begin += rows) {
      const std::int64_t n = std::min(rows, pixels - begin);
      add(Transpose::no, Transpose::no, n, filters, cells, 0);
      add(Transpose::yes, Transpose::no, cells, filters, n, 1);
      if (input == InputGemm::yes) add(Transpose::no, Transpose::yes, n, cells, filters, 0);
    }
  }
  std::vector<Call> calls_;
  std::size_t largest_ = 0;
  std::vector<float> a_, b_, c_;
};

}  // namespace

ConvFigures run_conv(int trials, int steps) {
  ConvNet net;
  ConvGemms gemms;
  const auto rate = [&](auto& work) {  // samples/s
    return static_cast<double>(kBatch * steps) / seconds_of([&] {
             for (int i = 0; i < steps; ++i) work.step();
           });
  };
  std::vector<double> ours, bare, ratio;
  for (int t = -1; t < trials; ++t) {
    const double before = rate(gemms), net_rate = rate(net), after = rate(gemms);
    if (t < 0) continue;
    ours.push_back(net_rate);
    bare.push_back((before + after) / 2);
    ratio.push_back(net_rate / bare.back());
  }
  return {Spread::of(ours), Spread::of(bare), Spread::of(ratio)};
}

}  // namespace varscope::bench
