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
// where the derivative is near zero). What is fed is kept beside the graph, in the order of the calls.
struct GradientCheck {
  VariableStore store;
  Graph graph;
  std::vector<std::pair<NodeId, Tensor>> fed;

  // Values in (-1.5, 1.5), away from the kinks at 0. Asked for again, the same node.
  NodeId variable(const char* name, const Shape& shape) {
    if (const auto known = graph.find(name)) return *known;
    VariableOptions options;
    options.dtype = DType::float64;
    options.initializer = Initializer::uniform(-1.5, 1.5);
    return graph.variable(store.get_variable(name, shape, options));
  }
  // Uniform in [-1, 1), another tensor for each key.
  static Tensor random(const Shape& shape, std::uint64_t key) {
    Tensor t(DType::float64, shape);
    const RandomStream stream(3, RandomPurpose::test, key);
    for (std::size_t i = 0; i < t.as<double>().size(); ++i) t.as<double>()[i] = 2 * stream.uniform(i) - 1;
    return t;
  }
  // A placeholder that every run feeds with `value`; `shape` may leave its batch unknown.
  NodeId feed(Tensor value, const Shape& shape) {
    const NodeId id = graph.placeholder(fmt::format("fed{}", fed.size()), value.dtype(), shape);
    fed.emplace_back(id, std::move(value));
    return id;
  }
  NodeId feed(Tensor value) {
    const Shape shape = value.shape();
    return feed(std::move(value), shape);
  }
  NodeId feed_random(const Shape& shape) { return feed(random(shape, fed.size() + 1)); }
  // Labels that run through the classes.
  NodeId feed_labels(const Shape& shape, std::int32_t n_classes) {
    Tensor t(DType::int32, shape);
    std::int32_t i = 0;
    for (std::int32_t& label : t.as<std::int32_t>()) label = (7 * i++ + 1) % n_classes;
    return feed(std::move(t));
  }
  // A scalar that weighs the elements of `x` differently.
  NodeId scalar(NodeId x) {
    const Shape shape = graph.node(x).type.shape;
    return ops::reduce_sum(graph, ops::multiply(graph, x, feed_random(shape)));
  }
  Feeds feeds() const {
    Feeds f;
    for (const auto& [id, tensor] : fed) f.emplace_back(id, tensor.view());
    return f;
  }
  double value(NodeId loss) { return Session(graph, 17).run({loss}, feeds())[0].as<double>()[0]; }

  void check(NodeId loss) {
    Session session(graph, 17);
    const auto gradients = session.gradients(loss, feeds());
    const auto loss_at = [&] { return session.run({loss}, feeds())[0].as<double>()[0]; };
    constexpr double kStep = 1e-5;
    for (const Variable* v : graph.variables()) {
      if (!v->trainable()) continue;
      const auto values = session.value(*v).as<double>();
      const auto analytic = gradients.at(v->name()).as<double>();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double kept = values[i];
        values[i] = kept + kStep;
        const double above = loss_at();
        values[i] = kept - kStep;
        const double below = loss_at();
        values[i] = kept;
        const double numeric = (above - below) / (2 * kStep);
        EXPECT_NEAR(analytic[i], numeric, 1e-6 * std::max(0.05, std::abs(numeric)) + 2e-9 * std::abs(above))
            << v->name() << "[" << i << "]";
      }
    }
  }
};

}  // namespace varscope::testing
