#include "bench/sparse/bench_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace varscope::bench {

OptimizerConfig rowwise_adagrad() {
  OptimizerConfig config;
  config.type = OptimizerType::rowwise_adagrad;
  return config;
}

VariableSpec bench_variable(const TableSpec& spec) {
  VariableSpec s;
  s.name = "user/embedding";
  s.scope = "user";
  s.shape = Shape{0, kUnits};
  s.initializer = Initializer::uniform(-0.05, 0.05);
  s.table = spec;
  return s;
}

std::vector<std::uint64_t> sorted_ids(std::uint64_t first, std::uint64_t end) {
  std::vector<std::uint64_t> ids;
  ids.reserve(end - first);
  for (std::uint64_t i = first; i < end; ++i) ids.push_back(id_of(i));
  std::ranges::sort(ids, {}, mix_row_id);
  return ids;
}

BenchTable::BenchTable(const TableSpec& spec)
    : variables_({bench_variable(spec)}),
      plan_(RowPlan::make(variables_, 1)),
      optimizer_(rowwise_adagrad()),
      gradients_(kRequest * kUnits, 0.01F) {
  for (std::uint32_t i = 0; i < kRequest; ++i) positions_.push_back(i);
  shard_ = std::make_unique<TableShard>(
      TableShard::Parts{variables_[0], plan_[TableId(0)], ServerId(0), optimizer_, 1});
}

void BenchTable::step(std::span<const std::uint64_t> ids) {
  const TableShard::Contribution all{ids, std::span(positions_).first(ids.size()),
                                     reinterpret_cast<const std::byte*>(gradients_.data())};
  shard_->apply(UpdateStep::whole(Clock(shard_->clock().value + 1)), std::span(&all, 1), tree_);
}

void BenchTable::fill(std::uint64_t end, std::uint64_t first) {
  for (std::uint64_t i = first; i < end; i += kRequest) step(sorted_ids(i, std::min(end, i + kRequest)));
}

Requests draw_requests(Draw draw, std::uint64_t n_rows, int n) {
  std::mt19937_64 random(1);
  std::vector<double> sums;
  for (std::uint64_t i = 1; draw == Draw::zipf && i <= n_rows; ++i)
    sums.push_back((sums.empty() ? 0 : sums.back()) + std::pow(static_cast<double>(i), -1.05));
  Requests all(static_cast<std::size_t>(n));
  for (auto& rows : all) {
    for (std::size_t i = 0; i < kRequest; ++i) {
      const double u = static_cast<double>(random() >> 11) * 0x1p-53;
      rows.push_back(
          draw == Draw::uniform
              ? static_cast<std::uint64_t>(u * static_cast<double>(n_rows))
              : static_cast<std::uint64_t>(std::ranges::upper_bound(sums, u * sums.back()) - sums.begin()));
    }
    std::ranges::sort(rows, {}, [](std::uint64_t row) { return mix_row_id(id_of(row)); });
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  }
  return all;
}

Requests ids_of(Requests rows) {
  for (auto& request : rows) std::ranges::transform(request, request.begin(), id_of);
  return rows;
}

std::size_t n_rows_of(const Requests& requests) {
  std::size_t n = 0;
  for (const auto& rows : requests) n += rows.size();
  return n;
}

PlainRows::PlainRows(std::uint64_t n, std::size_t row_bytes)
    : n_(n), row_bytes_(row_bytes), memory_(allocate_aligned(n * row_bytes)) {
  std::memset(memory_.get(), 0, n * row_bytes);
}

std::vector<std::vector<std::byte*>> PlainRows::addresses(const Requests& requests) const {
  std::vector<std::vector<std::byte*>> all;
  for (const auto& rows : requests) {
    all.emplace_back();
    for (const std::uint64_t i : rows) all.back().push_back(row(i));
  }
  return all;
}

}  // namespace varscope::bench
