#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "worker/data/batch.h"
#include "worker/data/dataset.h"

namespace varscope::testing {

// All ids of rows of an input that is no bag, sample behind sample.
inline std::vector<std::uint64_t> row_ids_of(const Dataset& data, std::size_t input = 0) {
  const Batch batch(data.spec(), DType::float32, data.size());
  std::vector<std::int64_t> rows(static_cast<std::size_t>(data.size()));
  std::iota(rows.begin(), rows.end(), 0);
  const BatchView view = batch.view(data.size());
  data.read(rows, view);
  const auto ids = view.inputs[input].as<std::int64_t>();
  return {ids.begin(), ids.end()};
}

// The arrays of a bag whose ids are of rows, of some samples; `first`: that of its ids.
struct BagIds {
  std::vector<std::uint64_t> ids;
  std::vector<std::int64_t> offsets;
  std::vector<double> weights;
};
inline BagIds bag_ids_of(const Dataset& data, const std::vector<std::int64_t>& rows, std::size_t first = 0) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const Batch batch(data.spec(), DType::float64, n);
  const BatchView view = batch.view(n);
  data.read(rows, view);
  BagIds bags;
  for (const std::int64_t at : view.inputs[first + 1].as<std::int64_t>()) bags.offsets.push_back(at);
  const bool has_weights = first + 2 < data.inputs().size() && data.inputs()[first + 2].is_ragged() &&
                           data.inputs()[first + 2].features == Features::real;
  for (std::int64_t i = 0; i < bags.offsets.back(); ++i) {
    bags.ids.push_back(static_cast<std::uint64_t>(view.inputs[first].data<std::int64_t>()[i]));
    if (has_weights) bags.weights.push_back(view.inputs[first + 2].data<double>()[i]);
  }
  return bags;
}

}  // namespace varscope::testing
