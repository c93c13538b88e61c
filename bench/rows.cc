// Rows of a table on a server beside the same work on rows whose addresses are known, and what they take of
// memory and time as a table grows (docs/performance.md). Google Benchmark: see --help for its options.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "common/base/row_id.h"
#include "common/base/tensor.h"
#include "ps/tables/table_shard.h"

namespace varscope::bench {
namespace {

constexpr std::int64_t kUnits = 16;
constexpr std::size_t kRequest = 8'192, kRequests = 256, kAhead = 16;
enum class Draw : std::uint8_t { uniform, zipf };

OptimizerConfig rule() {
  OptimizerConfig config;
  config.type = OptimizerType::rowwise_adagrad;
  return config;
}

// The id of row i, in no order.
std::uint64_t id_of(std::uint64_t i) { return i * 0x9e3779b97f4a7c15U; }

// A table of `n` rows on one server.
class Table {
 public:
  Table() : variables_({spec()}), plan_(RowPlan::make(variables_, 1)), optimizer_(rule()) {
    shard_ = std::make_unique<TableShard>(
        TableShard::Parts{variables_[0], plan_[TableId(0)], ServerId(0), optimizer_, 1});
    gradients_.assign(kRequest * kUnits, 0.01F);
    for (std::uint32_t i = 0; i < kRequest; ++i) positions_.push_back(i);
  }
  TableShard& shard() { return *shard_; }
  // A step that pushes to all of them. REQUIRES: ascending by mix_row_id(), at most kRequest.
  void step(std::span<const std::uint64_t> ids) {
    const TableShard::Contribution all{ids, std::span(positions_).first(ids.size()),
                                       reinterpret_cast<const std::byte*>(gradients_.data())};
    shard_->apply(Clock(shard_->clock().value + 1), std::span(&all, 1), tree_);
  }
  void fill(std::uint64_t n) {
    std::vector<std::uint64_t> ids;
    for (std::uint64_t i = 0; i < n; ++i) {
      ids.push_back(id_of(i));
      if (ids.size() < kRequest && i + 1 < n) continue;
      std::ranges::sort(ids, {}, mix_row_id);
      step(ids);
      ids.clear();
    }
  }

 private:
  static VariableSpec spec() {
    VariableSpec s;
    s.name = "user/embedding";
    s.scope = "user";
    s.shape = Shape{0, kUnits};
    s.initializer = Initializer::uniform(-0.05, 0.05);
    s.table = TableSpec{IdType::int64, TableSpec::kDefaultParts};
    return s;
  }
  VariableTable variables_;
  RowPlan plan_;
  Optimizer optimizer_;
  ReductionTree tree_{{{0, 0}}, 1};
  std::vector<float> gradients_;
  std::vector<std::uint32_t> positions_;
  std::unique_ptr<TableShard> shard_;
};

// Which rows the requests are for: unique in each, by mix_row_id() of their ids.
std::vector<std::vector<std::uint64_t>> requests(Draw draw, std::uint64_t n) {
  std::mt19937_64 random(1);
  std::vector<double> sums;
  for (std::uint64_t i = 1; draw == Draw::zipf && i <= n; ++i)
    sums.push_back((sums.empty() ? 0 : sums.back()) + std::pow(static_cast<double>(i), -1.05));
  std::vector<std::vector<std::uint64_t>> all(kRequests);
  for (auto& rows : all) {
    for (std::size_t i = 0; i < kRequest; ++i) {
      const double u = static_cast<double>(random() >> 11) * 0x1p-53;
      rows.push_back(
          draw == Draw::uniform
              ? static_cast<std::uint64_t>(u * static_cast<double>(n))
              : static_cast<std::uint64_t>(std::ranges::upper_bound(sums, u * sums.back()) - sums.begin()));
    }
    std::ranges::sort(rows, {}, [](std::uint64_t row) { return mix_row_id(id_of(row)); });
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  }
  return all;
}

// Calls f(request) in turn, and counts its rows.
template <class F>
void run(benchmark::State& state, const std::vector<std::vector<std::uint64_t>>& all, const F& f) {
  std::size_t at = 0;
  std::int64_t n = 0;
  for (auto _ : state) {
    f(all[at]);
    n += static_cast<std::int64_t>(all[at].size());
    at = (at + 1) % all.size();
  }
  state.SetItemsProcessed(n);
}

std::vector<std::vector<std::uint64_t>> ids_of(std::vector<std::vector<std::uint64_t>> all) {
  for (auto& rows : all) std::ranges::transform(rows, rows.begin(), id_of);
  return all;
}

void table_read(benchmark::State& state, Draw draw) {
  const auto n = static_cast<std::uint64_t>(state.range(0));
  Table table;
  table.fill(n);
  std::vector<float> out(kRequest * kUnits);
  run(state, ids_of(requests(draw, n)), [&](const std::vector<std::uint64_t>& ids) {
    table.shard().read(ids, Clock(0), reinterpret_cast<std::byte*>(out.data()));
    benchmark::ClobberMemory();
  });
}

void table_update(benchmark::State& state, Draw draw) {
  const auto n = static_cast<std::uint64_t>(state.range(0));
  Table table;
  table.fill(n);
  run(state, ids_of(requests(draw, n)), [&](const std::vector<std::uint64_t>& ids) { table.step(ids); });
}

// Rows of `row_bytes` at addresses that the caller knows, in no order.
class Plain {
 public:
  Plain(std::uint64_t n, std::size_t row_bytes)
      : n_(n), row_bytes_(row_bytes), memory_(allocate_aligned(n * row_bytes)) {
    std::memset(memory_.get(), 0, n * row_bytes);
  }
  std::byte* row(std::uint64_t i) const { return memory_.get() + i * 0x9e3779b1U % n_ * row_bytes_; }
  std::vector<std::vector<std::byte*>> addresses(Draw draw) const {
    std::vector<std::vector<std::byte*>> all;
    for (const auto& rows : requests(draw, n_)) {
      all.emplace_back();
      for (const std::uint64_t i : rows) all.back().push_back(row(i));
    }
    return all;
  }

 private:
  std::uint64_t n_;
  std::size_t row_bytes_;
  AlignedBytes memory_;
};

template <class F>
void run_by_address(benchmark::State& state, Draw draw, std::size_t row_bytes, const F& f) {
  const Plain plain(static_cast<std::uint64_t>(state.range(0)), row_bytes);
  const auto all = plain.addresses(draw);
  std::size_t at = 0;
  std::int64_t n = 0;
  for (auto _ : state) {
    const std::vector<std::byte*>& rows = all[at];
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i + kAhead < rows.size()) {
        __builtin_prefetch(rows[i + kAhead]);
        __builtin_prefetch(rows[i + kAhead] + row_bytes - 1);
      }
      f(i, rows[i]);
    }
    benchmark::ClobberMemory();
    n += static_cast<std::int64_t>(rows.size());
    at = (at + 1) % all.size();
  }
  state.SetItemsProcessed(n);
}

void plain_read(benchmark::State& state, Draw draw) {
  constexpr std::size_t kBytes = kUnits * sizeof(float);
  std::vector<float> out(kRequest * kUnits);
  run_by_address(state, draw, kBytes,
                 [&](std::size_t i, const std::byte* row) { std::memcpy(&out[i * kUnits], row, kBytes); });
}

// Values, and one accumulator.
void plain_update(benchmark::State& state, Draw draw) {
  const Optimizer optimizer(rule());
  std::vector<float> gradients(kRequest * kUnits, 0.01F);
  run_by_address(state, draw, (kUnits + 2) * sizeof(float), [&](std::size_t i, std::byte* row) {
    std::byte* const slot = row + kUnits * sizeof(float);
    optimizer.update_row(DType::float32, row, reinterpret_cast<std::byte*>(&gradients[i * kUnits]),
                         std::span(&slot, 1), kUnits, Clock(1), 1);
  });
}

// Steps that each bring 1024 new ids, until there are so many rows: bytes a row beyond values and slots, from
// a tenth of them on, and times over the median's.
void growth(benchmark::State& state) {
  constexpr std::size_t kNew = 1'024, kHeld = (kUnits + 1) * sizeof(float);
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (auto _ : state) {
    Table table;
    std::vector<double> times, bytes;
    for (std::uint64_t i = 0; i < n; i += kNew) {
      std::vector<std::uint64_t> ids;
      for (std::uint64_t j = i; j < i + kNew; ++j) ids.push_back(id_of(j));
      std::ranges::sort(ids, {}, mix_row_id);
      const std::int64_t started = now_ns();
      table.step(ids);
      times.push_back(static_cast<double>(now_ns() - started) * 1e-6);
      if (i % (n / 64) < kNew && i >= n / 10)
        bytes.push_back(static_cast<double>(table.shard().n_bytes()) / static_cast<double>(i + kNew) -
                        static_cast<double>(kHeld));
    }
    std::ranges::sort(times);
    double sum = 0;
    for (const double b : bytes) sum += b;
    state.counters["worst_bytes"] = *std::ranges::max_element(bytes);
    state.counters["mean_bytes"] = sum / static_cast<double>(bytes.size());
    state.counters["median_ms"] = times[times.size() / 2];
    state.counters["p999_ms"] = times[times.size() * 999 / 1000];
    state.counters["max_ms"] = times.back();
  }
}

constexpr std::int64_t kSmall = 64 << 10, kLarge = 4 << 20;

BENCHMARK_CAPTURE(table_read, uniform, Draw::uniform)->Arg(kSmall)->Arg(kLarge);
BENCHMARK_CAPTURE(plain_read, uniform, Draw::uniform)->Arg(kSmall)->Arg(kLarge);
BENCHMARK_CAPTURE(table_read, zipf, Draw::zipf)->Arg(kSmall)->Arg(kLarge);
BENCHMARK_CAPTURE(plain_read, zipf, Draw::zipf)->Arg(kSmall)->Arg(kLarge);
BENCHMARK_CAPTURE(table_update, uniform, Draw::uniform)->Arg(kSmall)->Arg(kLarge);
BENCHMARK_CAPTURE(plain_update, uniform, Draw::uniform)->Arg(kSmall)->Arg(kLarge);
BENCHMARK(growth)->Arg(kSmall)->Arg(10'000'000)->Iterations(1);

}  // namespace
}  // namespace varscope::bench

BENCHMARK_MAIN();
