// A model of two layers of one's own, run in one process: y = relu(x W1) W2 with constant weights.
//
// This project has headers that are called as some of varscope's sources are: they are its own that it gets.
#include <varscope/varscope.h>

#include <cstdio>

#include "common/base/error.h"
#include "common/error.h"
#include "worker/graph.h"
#include "worker/graph/graph.h"

static_assert(theirs::kError + theirs::kBaseError + theirs::kGraph + theirs::kGraphGraph == 1111);

int main() {
  using namespace varscope;
  VariableStore store;
  Graph graph;
  VariableOptions half, two;
  half.initializer = Initializer::constant(0.5);
  two.initializer = Initializer::constant(2);
  const NodeId x = graph.placeholder("x", DType::float32, {Shape::kUnknown, 4});
  const NodeId w1 = graph.variable(store.get_variable("w1", {4, 3}, half));
  const NodeId w2 = graph.variable(store.get_variable("w2", {3, 1}, two));
  const NodeId b1 = graph.variable(store.get_variable("b1", {3}, half));
  const NodeId b2 = graph.variable(store.get_variable("b2", {1}, two));
  const NodeId y =
      ops::dense(graph, ops::dense(graph, x, w1, b1, Activation::relu), w2, b2, Activation::linear);

  Session session(graph, 1);
  const Tensor input(DType::float32, {2, 4});
  for (float& v : input.as<float>()) v = 1;
  const float found = session.run({y}, {{x, input.view()}})[0].as<float>()[1];
  const float expected = 3 * (4 * 0.5F + 0.5F) * 2 + 2;
  std::printf("y = %g, expected %g\n", found, expected);
  return found == expected ? 0 : 1;
}
