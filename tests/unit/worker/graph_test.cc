#include "worker/graph/graph.h"

#include <gtest/gtest.h>

#include <memory>

#include "worker/ops/ops.h"

namespace varscope {
namespace {

// Runs `body`, which must throw; returns the error.
template <class Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::argument, "");
}

void expect_words(const Error& e, std::initializer_list<const char*> words) {
  for (const char* word : words)
    EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << word << " in: " << e.what();
}

constexpr std::int64_t kAny = Shape::kUnknown;

TEST(Graph, InfersShapesWithAnUnknownBatch) {
  Graph g;
  VariableStore store;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 28, 28});
  const NodeId w = g.variable(store.get_variable("w", {784, 10}));
  const NodeId rows = ops::flatten(g, x);
  const NodeId y = ops::matmul(g, rows, w);
  EXPECT_EQ(g.node(rows).type, (TensorType{DType::float32, {kAny, 784}}));
  EXPECT_EQ(g.node(y).type, (TensorType{DType::float32, {kAny, 10}}));
  EXPECT_EQ(g.node(ops::reduce_sum(g, y)).type.shape, Shape{});
  EXPECT_EQ(g.node(ops::reduce_mean(g, y, ops::ReduceOver::last_axis)).type.shape, Shape{kAny});
  EXPECT_EQ(g.flops(y, 128), 2 * 128 * 784 * 10);
  EXPECT_EQ(g.flops(x, 128), 0);
  EXPECT_EQ(g.node(x).type.str(), "float32 [?, 28, 28]");
}

TEST(Graph, AVariableHasOneNode) {
  Graph g;
  VariableStore store;
  const Variable& v = store.get_variable("v", {2});
  EXPECT_EQ(g.variable(v), g.variable(v));
  EXPECT_EQ(g.variables(), std::vector<const Variable*>{&v});
  EXPECT_EQ(g.find(v), g.find("v"));
}

TEST(Graph, AVariableMadeOfOthersIsComputedOnce) {
  Graph g;
  VariableStore store;
  VariableOptions in_two;
  in_two.partitioner = fixed_size_partitioner(2);
  const Variable& v = store.get_variable("v", {4, 3}, in_two);
  expect_words(error_of([&] { g.variable(v); }), {"\"v\"", "made of 2 others", "ops::variable"});
  const NodeId node = ops::variable(g, v);
  EXPECT_STREQ(g.node(node).op->type(), "concat");
  EXPECT_EQ(g.node(node).name, "v");
  EXPECT_EQ(g.node(node).inputs.size(), 2U);
  const std::size_t size = g.size();
  EXPECT_EQ(ops::variable(g, v), node);
  EXPECT_EQ(g.variable(v), node);
  EXPECT_EQ(g.find(v), node);
  EXPECT_EQ(g.size(), size);
  EXPECT_EQ(ops::variable(g, *v.parts()[0]), g.node(node).inputs[0]);
  expect_words(error_of([&] { g.set_node(v, node); }), {"\"v\"", "has a node already"});
}

TEST(Graph, MakesNamesUnique) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 2});
  EXPECT_EQ(g.node(ops::activation(g, Activation::relu, x)).name, "relu");
  EXPECT_EQ(g.node(ops::activation(g, Activation::relu, x)).name, "relu_1");
  EXPECT_EQ(g.node(ops::activation(g, Activation::relu, x, {"a/relu", ""})).name, "a/relu");
  EXPECT_EQ(g.find("nothing"), std::nullopt);
  expect_words(error_of([&] { g.placeholder("x", DType::float32, {}); }),
               {"\"x\"", "has a node of this name"});
}

TEST(Graph, NamesNodeAndBothShapesOfAMismatch) {
  Graph g;
  VariableStore store;
  const auto scope = store.scope("hidden1");
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 784});
  const NodeId w = g.variable(store.get_variable("weights", {256, 10}));
  const Error cpp = error_of([&] { ops::matmul(g, x, w, {"hidden1/matmul", ""}); });
  EXPECT_EQ(cpp.kind(), ErrorKind::argument);
  expect_words(cpp, {"\"hidden1/matmul\"", "[?, 784]", "[256, 10]", "\"hidden1/weights\"", "\"x\""});
  const Error yaml = error_of([&] { ops::matmul(g, x, w, {"hidden1/matmul", "job.yaml:14:5"}); });
  EXPECT_EQ(yaml.kind(), ErrorKind::config);
  EXPECT_EQ(std::string(yaml.what()).find("job.yaml:14:5: node "), 0U) << yaml.what();
}

TEST(Graph, RejectsUnknownInputs) {
  Graph g;
  g.placeholder("x", DType::float32, {});
  expect_words(error_of([&] {
                 ops::activation(g, Activation::relu, NodeId(1), {"r", ""});
               }),
               {"\"r\"", "input 1", "1 nodes"});
  EXPECT_THROW(ops::activation(g, Activation::relu, NodeId(-1)), Error);
  EXPECT_THROW(g.node(NodeId(7)), Error);
}

TEST(Graph, RejectsWhatDoesNotFit) {
  Graph g;
  VariableStore store;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 3});
  const NodeId d = g.placeholder("d", DType::float64, {kAny, 3});
  const NodeId labels = g.placeholder("labels", DType::int32, {kAny});
  const NodeId bias = g.variable(store.get_variable("bias", {4}));
  const NodeId w = g.variable(store.get_variable("w", {3, 5}));
  expect_words(error_of([&] { ops::add(g, x, d); }), {"dtypes differ", "float32", "float64"});
  expect_words(error_of([&] { ops::add_bias(g, x, bias); }), {"[?, 3]", "[4]", "bias of 3"});
  expect_words(error_of([&] { ops::dense(g, x, w, bias, Activation::relu); }), {"[3, 5]", "[4]"});
  expect_words(error_of([&] { ops::activation(g, Activation::relu, labels); }),
               {"needs float32 or float64", "int32"});
  expect_words(error_of([&] { ops::matmul(g, x, bias); }), {"rank 2", "[4]"});
  expect_words(error_of([&] { ops::multiply(g, x, bias); }), {"[?, 3]", "[4]", "differ"});
  expect_words(error_of([&] { ops::reshape(g, x, {kAny, 4}); }), {"3 elements a row", "[?, 4]"});
  expect_words(error_of([&] { ops::reshape(g, x, {3}); }), {"[?, 3]", "[3]"});
  expect_words(error_of([&] { ops::softmax_cross_entropy(g, x, x); }), {"int32", "\"x\""});
  expect_words(error_of([&] { ops::sigmoid_cross_entropy(g, x, labels); }), {"[..., 1]"});
  expect_words(error_of([&] { ops::mean_squared_error(g, x, bias); }), {"[?, 3]", "[4]"});
  expect_words(error_of([&] { ops::cast(g, x, DType::int32); }), {"int32"});
  const std::size_t n = g.size();
  EXPECT_THROW(ops::add(g, x, d), Error);
  EXPECT_EQ(g.size(), n) << "a node that does not fit must not stay";
}

}  // namespace
}  // namespace varscope
