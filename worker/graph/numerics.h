#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "worker/graph/graph.h"

namespace varscope {

// The first element that is NaN or infinite, in row-major order; nothing for other dtypes than float32 and
// float64.
struct NotFinite {
  std::int64_t element = 0;
  const char* what = "";  // "nan", "inf", "-inf"
};
std::optional<NotFinite> find_not_finite(const TensorView& view);

// How messages call a node: `node "hidden1/dense" (dense, job.yaml:12:7)`.
std::string node_text(const Graph::Node& node);

}  // namespace varscope
