#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "common/base/philox.h"
#include "worker/graph/session.h"
#include "worker/ops/ops.h"

namespace varscope::testing {

// A small float64 graph whose gradients are compared with central finite differences:
//
//   GradientCheck g;
//   g.check(g.scalar(ops::matmul(g.graph, g.variable("a", {3, 5}), g.variable("w", {5, 2}))));
//
// Every element of every trainable variable is compared, with a relative error of 1e-6 (and an absolute one
// where the derivative is near zero).
struct GradientCheck {
  VariableStore store;
  Graph graph;
  int n_labels = 0;
  std::vector<std::pair<NodeId, Tensor>> fed;

  // Values in (-1.5, 1.5), away from the kinks at 0.
  NodeId variable(const char* name, const Shape& shape) {
    VariableOptions options;
    options.dtype = DType::float64;
    options.initializer = Initializer::uniform(-1.5, 1.5);
    return graph.variable(store.get_variable(name, shape, options));
  }
  // [n] labels of n_classes, fed as int32.
  NodeId labels(std::int64_t n, std::int32_t n_classes) {
    Tensor t(DType::int32, {n});
    for (std::int64_t i = 0; i < n; ++i)
      t.as<std::int32_t>()[static_cast<std::size_t>(i)] = static_cast<std::int32_t>((i * 7 + 1) % n_classes);
    return feed(fmt::format("labels{}", n_labels++), {n}, std::move(t));
  }
  // Uniform in [-1, 1).
  static Tensor random(const Shape& shape) {
    Tensor t(DType::float64, shape);
    const RandomStream stream(3, RandomPurpose::test, 1);
    for (std::size_t i = 0; i < t.as<double>().size(); ++i) t.as<double>()[i] = 2 * stream.uniform(i) - 1;
    return t;
  }
  // A placeholder of this shape that every run feeds with `value`.
  NodeId feed(std::string name, const Shape& shape, Tensor value) {
    const NodeId id = graph.placeholder(std::move(name), value.dtype(), shape);
    fed.emplace_back(id, std::move(value));
    return id;
  }
  // A scalar that weighs the elements of `x` differently.
  NodeId scalar(NodeId x) {
    const Shape shape = graph.node(x).type.shape;
    const NodeId weights = feed(fmt::format("weights{}", graph.size()), shape, random(shape));
    return ops::reduce_sum(graph, ops::multiply(graph, x, weights));
  }
  Feeds feeds() const {
    Feeds f;
    for (const auto& [id, tensor] : fed) f.emplace_back(id, tensor.view());
    return f;
  }

  void check(NodeId loss) {
    Session session(graph, 17);
    const auto gradients = session.gradients(loss, feeds());
    const auto loss_at = [&] { return session.run({loss}, feeds())[0].as<double>()[0]; };
    for (const Variable* v : graph.variables()) {
      if (!v->trainable()) continue;
      const auto values = session.value(*v).as<double>();
      const auto analytic = gradients.at(v->name()).as<double>();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double kept = values[i];
        const double h = 1e-5;
        values[i] = kept + h;
        const double above = loss_at();
        values[i] = kept - h;
        const double below = loss_at();
        values[i] = kept;
        const double numeric = (above - below) / (2 * h);
        EXPECT_NEAR(analytic[i], numeric, 1e-6 * std::max(0.05, std::abs(numeric)) + 2e-9 * std::abs(above))
            << v->name() << "[" << i << "]";
      }
    }
  }
};

}  // namespace varscope::testing
