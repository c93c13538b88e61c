#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "common/placement/bucket_plan.h"
#include "common/variables/variable_table.h"

namespace varscope::testing {

inline VariableSpec make_spec(std::string name, DType dtype, Shape shape,
                              Initializer initializer = Initializer::constant(0), bool trainable = true) {
  VariableSpec v;
  v.name = std::move(name);
  const auto slash = v.name.rfind('/');
  v.scope = slash == std::string::npos ? "" : v.name.substr(0, slash);
  v.dtype = dtype;
  v.shape = std::move(shape);
  v.initializer = std::move(initializer);
  v.trainable = trainable;
  return v;
}

// A multi-layer perceptron 784-256-128-10, as the examples train it.
inline VariableTable mlp_table(DType dtype = DType::float32) {
  std::vector<VariableSpec> all;
  const std::vector<std::pair<std::string, Shape>> layers = {
      {"hidden1", Shape{784, 256}}, {"hidden2", Shape{256, 128}}, {"output", Shape{128, 10}}};
  for (const auto& [scope, shape] : layers) {
    all.push_back(make_spec(scope + "/weights", dtype, shape, Initializer::glorot_uniform(shape)));
    all.push_back(make_spec(scope + "/biases", dtype, Shape{shape[1]}));
  }
  return VariableTable(std::move(all));
}

// The bytes of the largest server over the mean of all.
inline double imbalance(const VariableTable& variables, int n_servers) {
  const BucketPlan plan = BucketPlan::make(variables, n_servers);
  std::int64_t largest = 0;
  for (int s = 0; s < n_servers; ++s) largest = std::max(largest, plan.server_bytes(ServerId(s)));
  return static_cast<double>(largest) * n_servers / static_cast<double>(variables.n_bytes());
}

// For any model that is worth several servers.
inline void expect_balanced(const VariableTable& variables, double limit = 1.25) {
  for (int n_servers : {1, 2, 3, 4, 8}) {
    EXPECT_LE(imbalance(variables, n_servers), limit) << n_servers << " servers";
  }
}

}  // namespace varscope::testing
