// E5: what a worker makes of the ids of a batch, beside the standard library's sort and unique.
#include <algorithm>
#include <vector>

#include "bench/sparse/bench_table.h"
#include "bench/sparse/figures.h"
#include "common/base/philox.h"
#include "worker/data/zipf.h"
#include "worker/tables/row_ids.h"

namespace varscope::bench {
namespace {

constexpr std::int64_t kSamples = 2'048, kFeatures = 26;

// By Zipf's law of 20 million ids for each feature, none of them shared.
Tensor batch() {
  const RandomStream random(1, RandomPurpose::test, 0);
  const Zipf zipf(20'000'000, 1.05);
  Tensor ids(DType::int64, Shape{kSamples, kFeatures});
  std::uint64_t draw = 0;
  for (std::int64_t i = 0; i < kSamples * kFeatures; ++i) {
    std::optional<std::int64_t> rank;
    while (!rank) rank = zipf.rank(random.uniform(draw++));
    ids.view().as<std::int64_t>()[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(mix_row_id(
        static_cast<std::uint64_t>(*rank) * kFeatures + static_cast<std::uint64_t>(i % kFeatures)));
  }
  return ids;
}

}  // namespace

SparseFigures measure_unique(const SparseOptions& options) {
  const int repeats = options.is_small ? 3 : 50;
  const VariableTable variables({bench_variable()});
  const RowPlan plan = RowPlan::make(variables, 1);
  const Tensor ids = batch();
  const auto all = ids.view().as<std::int64_t>();
  const double million = static_cast<double>(all.size()) * repeats * 1e-6;
  RowIds rows(plan[TableId(0)], {{.input = "ids"}}, 1);
  std::vector<std::uint64_t> sorted;
  SparseFigure figure = compare(
      options.trials, "E5",
      "53,248 ids of a batch to rows and positions, over std::sort + std::unique of them", "M ids/s",
      {Bound::at_least, 3},
      [&] {
        return million / seconds_of([&] {
                 for (int i = 0; i < repeats; ++i) {
                   rows.clear();
                   rows.add(0, 0, {.ids = ids.view()});
                   rows.finish();
                 }
               });
      },
      [&] {
        return million / seconds_of([&] {
                 for (int i = 0; i < repeats; ++i) {
                   sorted.assign(all.begin(), all.end());
                   std::ranges::sort(sorted);
                   sorted.erase(std::ranges::unique(sorted).begin(), sorted.end());
                 }
               });
      });
  if (static_cast<std::size_t>(rows.size()) != sorted.size())
    fail(ErrorKind::argument, "E5: {} rows of {} different ids", rows.size(), sorted.size());
  return {figure};
}

}  // namespace varscope::bench
