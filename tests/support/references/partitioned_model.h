#pragma once

#include <algorithm>
#include <vector>

#include "tests/support/references/checkpoint_fixture.h"

namespace varscope::testing {

// A grid of rows x columns parts, as a partitioner makes them: the first ones are larger.
inline std::vector<VariableSpec> partition(const VariableSpec& whole,
                                           const std::vector<std::int64_t>& n_parts) {
  std::vector<VariableSpec> parts = {whole};
  parts[0].part = {whole.name, whole.shape, Shape(std::vector<std::int64_t>(whole.shape.rank(), 0)), 0, 1};
  for (std::size_t axis = 0; axis < n_parts.size(); ++axis) {
    std::vector<VariableSpec> finer;
    for (const VariableSpec& v : parts) {
      std::int64_t begin = 0;
      for (std::int64_t i = 0; i < n_parts[axis]; ++i) {
        const std::int64_t n = v.shape[axis] / n_parts[axis] + (i < v.shape[axis] % n_parts[axis] ? 1 : 0);
        finer.push_back(v);
        finer.back().shape = v.shape.with_dim(axis, n);
        finer.back().part.offset = v.part.offset.with_dim(axis, begin);
        begin += n;
      }
    }
    parts = std::move(finer);
  }
  if (parts.size() == 1) return {whole};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i].name = fmt::format("{}/part_{}", whole.name, i);
    parts[i].part.index = static_cast<int>(i);
    parts[i].part.n_parts = static_cast<int>(parts.size());
  }
  return parts;
}

// The same values in parts.
inline Model partitioned(const Model& model, const std::vector<std::int64_t>& n_parts) {
  std::vector<VariableSpec> all;
  for (const VariableSpec& v : model.table.variables()) {
    const auto parts =
        v.shape.rank() == 2 && v.shape.n_elements() > 0 ? partition(v, n_parts) : std::vector{v};
    all.insert(all.end(), parts.begin(), parts.end());
  }
  Model out(VariableTable(all), model.slots, 99);
  for (auto& [key, tensor] : out.values) {
    const VariableSpec& v = *out.table.find(key.first);
    const Slice box = v.is_part() ? Slice{v.part.full_shape, v.part.offset, v.shape} : whole(v.shape);
    const std::vector<std::byte> bytes = cut_out(model.value(v.full_name(), key.second), box);
    std::copy(bytes.begin(), bytes.end(), tensor.view().bytes());
  }
  return out;
}

}  // namespace varscope::testing
