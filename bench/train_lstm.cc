#include "bench/train_lstm.h"

#include <fmt/format.h>

#include <map>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "checkpoint/storage/atomic_file.h"
#include "worker/graph/executor.h"
#include "worker/kernels/blas.h"
#include "worker/ops/ops.h"
#include "worker/ops/sequence_ops.h"

namespace varscope::bench {
namespace {

constexpr std::int64_t kBatch = 20, kSteps = 20, kUnits = 200, kWords = 10000, kGates = 4 * kUnits;
constexpr std::int64_t kRows = kBatch * kSteps;

// The products of `Executor`'s forward and backward, on memory of its own.
class GemmLoop {
 public:
  void lstm_forward() {
    call(Transpose::no, Transpose::no, kRows, kGates, kUnits, x_, weights_, gates_);
    for (int t = 0; t < kSteps; ++t)
      call(Transpose::no, Transpose::no, kBatch, kGates, kUnits, h_, weights_, gates_, 1.0F);
  }
  void lstm_backward() {
    for (int t = 1; t < kSteps; ++t)
      call(Transpose::no, Transpose::yes, kBatch, kUnits, kGates, gates_, weights_, h_);
    call(Transpose::yes, Transpose::no, 2 * kUnits, kGates, kRows, xh_, gates_, weight_gradient_);
    call(Transpose::no, Transpose::yes, kRows, kUnits, kGates, gates_, weights_, x_);
  }
  void dense_forward() { call(Transpose::no, Transpose::no, kRows, kWords, kUnits, x_, output_, logits_); }
  void dense_backward() {
    call(Transpose::no, Transpose::yes, kRows, kUnits, kWords, logits_, output_, x_);
    call(Transpose::yes, Transpose::no, kUnits, kWords, kRows, x_, logits_, output_gradient_);
  }

 private:
  static Tensor of(std::int64_t rows, std::int64_t cols) {
    Tensor t(DType::float32, {rows, cols});
    for (float& v : t.as<float>()) v = 1e-4F;
    return t;
  }
  static void call(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                   const Tensor& a, const Tensor& b, const Tensor& c, float beta = 0) {
    gemm<float>(ta, tb, m, n, k, a.view().data<float>(), b.view().data<float>(), beta,
                c.view().data<float>());
  }
  Tensor x_ = of(kRows, kUnits), h_ = of(kBatch, kUnits), xh_ = of(kRows, 2 * kUnits),
         gates_ = of(kRows, kGates);
  Tensor weights_ = of(2 * kUnits, kGates), weight_gradient_ = of(2 * kUnits, kGates);
  Tensor output_ = of(kUnits, kWords), output_gradient_ = of(kUnits, kWords), logits_ = of(kRows, kWords);
};

// A graph and an executor with everything bound.
class Model {
 public:
  NodeId variable(const char* name, const Shape& shape) {
    const Variable& v = store_.get_variable(name, shape, {.initializer = Initializer::uniform(-0.1, 0.1)});
    return graph.variable(v);
  }
  NodeId words(const char* name) {
    Tensor ids(DType::int32, {kBatch, kSteps});
    std::int32_t i = 0;
    for (std::int32_t& id : ids.as<std::int32_t>()) id = static_cast<std::int32_t>(7919 * ++i % kWords);
    const NodeId node = graph.placeholder(name, DType::int32, ids.shape());
    fed_.emplace(node, std::move(ids));
    return node;
  }
  NodeId lstm(NodeId x) {
    const Tensor zero(DType::float32, {kBatch, kUnits});
    const NodeId h = graph.placeholder("h", DType::float32, zero.shape());
    fed_.emplace(h, zero.clone());
    const NodeId w = variable("w", {2 * kUnits, kGates}), b = variable("b", {kGates});
    return ops::lstm(graph, x, w, b, h, h);
  }
  void finish(NodeId loss) {
    executor_.emplace(graph, loss, kBatch);
    for (const Variable* v : graph.variables()) {
      values_.emplace_back(v->dtype(), v->shape());
      v->spec().fill(values_.back().view(), 1, 0);
      gradients_.emplace_back(v->dtype(), v->shape());
      executor_->bind(*v, values_.back().view(), gradients_.back().view());
    }
    for (const auto& [node, value] : fed_) executor_->feed(node, value.view());
  }
  void step() {
    for (const auto& s : executor_->forward_steps()) executor_->forward(s);
    executor_->start_backward(1.0 / kBatch);
    for (const auto& s : executor_->backward_steps()) executor_->backward(s);
  }
  Graph graph;

 private:
  VariableStore store_;
  std::map<NodeId, Tensor> fed_;
  std::vector<Tensor> values_, gradients_;
  std::optional<Executor> executor_;
};

// Steps per second of ours and of the bare products, and their ratio, over the trials.
struct Figures {
  std::vector<double> ours, bare, ratio;
};

template <class Ours, class Bare>
void measure(Figures& figures, int steps, Ours ours, Bare bare) {
  const auto rate = [&](auto& work) {
    return steps / seconds_of([&] {
             for (int i = 0; i < steps; ++i) work();
           });
  };
  const double before = rate(bare);
  figures.ours.push_back(rate(ours));
  figures.bare.push_back((before + rate(bare)) / 2);
  figures.ratio.push_back(figures.ours.back() / figures.bare.back());
}

nlohmann::json report(const char* name, const Figures& figures) {
  const Spread o = Spread::of(figures.ours), b = Spread::of(figures.bare), r = Spread::of(figures.ratio);
  require_positive(name, o);
  require_positive("the same GEMM calls alone", b);
  fmt::print("{}: {:.0f} words/s; the same GEMM calls alone {:.0f}; ratio {:.2f} [{:.2f} .. {:.2f}]\n", name,
             o.median * kRows, b.median * kRows, r.median, r.min, r.max);
  return {{"words_per_s", o.median * kRows},
          {"gemm_words_per_s", b.median * kRows},
          {"ratio", {{"median", r.median}, {"min", r.min}, {"max", r.max}}}};
}

}  // namespace

void run_lstm(int trials, const std::string& json_file) {
  set_blas_threads(1);
  Model alone;
  alone.finish(ops::reduce_sum(alone.graph, alone.lstm(alone.variable("x", {kBatch, kSteps, kUnits}))));
  Model whole;
  const NodeId embedded =
      ops::embedding(whole.graph, whole.variable("table", {kWords, kUnits}), whole.words("ids"));
  const NodeId h = whole.lstm(embedded);
  const NodeId bias = whole.variable("output_bias", {kWords});
  const NodeId logits =
      ops::dense(whole.graph, h, whole.variable("output", {kUnits, kWords}), bias, Activation::linear);
  whole.finish(ops::softmax_cross_entropy(whole.graph, logits, whole.words("next")));
  GemmLoop gemm;
  const auto bare_lstm = [&] {
    gemm.lstm_forward();
    gemm.lstm_backward();
  };
  const auto bare_whole = [&] {
    gemm.lstm_forward();
    gemm.dense_forward();
    gemm.dense_backward();
    gemm.lstm_backward();
  };
  Figures of_lstm, of_whole, warm;
  measure(
      warm, 1, [&] { alone.step(), whole.step(); }, bare_whole);
  for (int t = 0; t < trials; ++t) {
    measure(
        of_lstm, 20, [&] { alone.step(); }, bare_lstm);
    measure(
        of_whole, 5, [&] { whole.step(); }, bare_whole);
  }
  const nlohmann::json j{{"lstm", report("LSTM alone", of_lstm)},
                         {"language_model", report("language model", of_whole)}};
  if (!json_file.empty()) {
    PosixFs fs;
    write_named_file(fs, json_file, j.dump(2) + "\n");
  }
}

}  // namespace varscope::bench
