// Rows on a server beside the same work on rows whose addresses are known, and what they take of memory and
// time as a table grows and changes: E1, E2, E6, E7, E8, and E12's share of hashes and cuts.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>

#include "bench/sparse/bench_table.h"
#include "bench/sparse/figures.h"
#include "common/base/clock.h"

namespace varscope::bench {
namespace {

std::uint64_t n_rows(const SparseOptions& options) { return options.is_small ? 64 << 10 : 4 << 20; }
int n_requests(const SparseOptions& options) { return options.is_small ? 8 : 256; }
const char* name_of(Draw draw) { return draw == Draw::uniform ? "uniform" : "Zipf 1.05"; }

constexpr const char* kRate = "M rows/s";
// Million rows a second, over all requests.
template <class Work>
double rate(std::size_t n, Work work) {
  return static_cast<double>(n) / seconds_of(work) * 1e-6;
}

std::byte* bytes(std::vector<float>& v) { return reinterpret_cast<std::byte*>(v.data()); }

double read_all(BenchTable& table, const Requests& ids, std::vector<float>& out) {
  return rate(n_rows_of(ids), [&] {
    for (const auto& request : ids) {
      table.shard().read(request, table.shard().clock(), bytes(out));
      clobber_memory();
    }
  });
}

double update_all(BenchTable& table, const Requests& ids) {
  return rate(n_rows_of(ids), [&] {
    for (const auto& request : ids) table.step(request);
  });
}

std::int64_t thread_cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

// What steps that each bring 1024 new ids take, in ms, and what the table takes of memory.
struct Growth {
  double worst_bytes = 0, mean_bytes = 0;  // a row beyond values and slots, from a tenth of the rows on
  double median = 0, p999 = 0, most = 0, cpu_p999 = 0, cpu_most = 0;
};

double at_share(std::vector<double>& sorted, double share) {
  return sorted[static_cast<std::size_t>(static_cast<double>(sorted.size() - 1) * share)];
}

Growth grow(std::uint64_t n) {
  constexpr std::uint64_t kNew = 1'024, kHeld = (kUnits + 1) * sizeof(float);
  BenchTable table;
  std::vector<double> times, cpu, held;
  for (std::uint64_t i = 0; i < n; i += kNew) {
    const std::vector<std::uint64_t> ids = sorted_ids(i, i + kNew);
    const std::int64_t started = now_ns(), cpu_started = thread_cpu_ns();
    table.step(ids);
    cpu.push_back(static_cast<double>(thread_cpu_ns() - cpu_started) * 1e-6);
    times.push_back(static_cast<double>(now_ns() - started) * 1e-6);
    if (i % (n / 64) < kNew && i >= n / 10)
      held.push_back(static_cast<double>(table.shard().n_bytes()) / static_cast<double>(i + kNew) -
                     static_cast<double>(kHeld));
  }
  std::ranges::sort(times);
  std::ranges::sort(cpu);
  Growth g{.worst_bytes = *std::ranges::max_element(held)};
  for (const double b : held) g.mean_bytes += b / static_cast<double>(held.size());
  g.median = at_share(times, 0.5);
  g.p999 = at_share(times, 0.999);
  g.most = times.back();
  g.cpu_p999 = at_share(cpu, 0.999);
  g.cpu_most = cpu.back();
  return g;
}

template <class Of>
std::vector<double> each(const std::vector<Growth>& all, Of of) {
  std::vector<double> values;
  std::ranges::transform(all, std::back_inserter(values), of);
  return values;
}

}  // namespace

SparseFigures measure_reads(const SparseOptions& options) {
  SparseFigures figures;
  BenchTable table;
  table.fill(n_rows(options));
  constexpr std::size_t kBytes = kUnits * sizeof(float);
  const PlainRows plain(n_rows(options), kBytes);
  std::vector<float> out(kRequest * kUnits);
  for (const Draw draw : {Draw::uniform, Draw::zipf}) {
    const Requests rows = draw_requests(draw, n_rows(options), n_requests(options)), ids = ids_of(rows);
    const auto addresses = plain.addresses(rows);
    figures.push_back(compare(
        options.trials, "E1", fmt::format("rows read, {}", name_of(draw)), kRate,
        {Bound::at_least, draw == Draw::uniform ? 0.5 : 0.6}, [&] { return read_all(table, ids, out); },
        [&] {
          return rate(n_rows_of(rows), [&] {
            for (const auto& request : addresses) {
              plain.each(request, [&](std::size_t i, const std::byte* row) {
                std::memcpy(&out[i * kUnits], row, kBytes);
              });
              clobber_memory();
            }
          });
        }));
  }
  return figures;
}

SparseFigures measure_updates(const SparseOptions& options) {
  SparseFigures figures;
  BenchTable table;
  table.fill(n_rows(options));
  // Values, and one accumulator.
  const PlainRows plain(n_rows(options), (kUnits + 2) * sizeof(float));
  const Optimizer optimizer(rowwise_adagrad());
  const PushConstants push = optimizer.constants(UpdateStep::whole(Clock(1)));
  std::vector<float> gradients(kRequest * kUnits, 0.01F);
  for (const Draw draw : {Draw::uniform, Draw::zipf}) {
    const Requests rows = draw_requests(draw, n_rows(options), n_requests(options)), ids = ids_of(rows);
    const auto addresses = plain.addresses(rows);
    const auto update = [&](std::size_t i, std::byte* row) {
      std::byte* const slot = row + kUnits * sizeof(float);
      optimizer.update_row(DType::float32, row, bytes(gradients) + i * kUnits * sizeof(float),
                           std::span(&slot, 1), kUnits, push, 1);
    };
    figures.push_back(compare(
        options.trials, "E2", fmt::format("rows updated, {}", name_of(draw)), kRate, {Bound::at_least, 0.6},
        [&] { return update_all(table, ids); },
        [&] {
          return rate(n_rows_of(rows), [&] {
            for (const auto& request : addresses) plain.each(request, update);
          });
        }));
  }
  return figures;
}

SparseFigures measure_growth(const SparseOptions& options) {
  std::vector<Growth> all(static_cast<std::size_t>(options.trials));
  for (Growth& g : all) g = grow(options.growth_rows);
  const auto figure = [&](const char* target, const char* what, const char* unit, double most, auto of) {
    return plain_figure(target, what, unit, each(all, of), {Bound::at_most, most});
  };
  using G = const Growth&;
  return {
      figure("E6", "bytes a row beyond values and slots, worst", "B", 40, [](G g) { return g.worst_bytes; }),
      figure("E6", "the same, mean", "B", 32, [](G g) { return g.mean_bytes; }),
      figure("E7", "steps of 1024 new ids, p99.9 over median", "x", 5, [](G g) { return g.p999 / g.median; }),
      figure("E7", "the same, most over median", "x", 20, [](G g) { return g.most / g.median; }),
      figure("E7", "the same, most", "ms", 5, [](G g) { return g.most; }),
      figure("E7", "the same, p99.9 of CPU time over median", "x", 5,
             [](G g) { return g.cpu_p999 / g.median; }),
      figure("E7", "the same, most of CPU time", "ms", 5, [](G g) { return g.cpu_most; })};
}

SparseFigures measure_churn(const SparseOptions& options) {
  TableSpec spec;
  spec.parts = options.is_small ? 4 : TableSpec::kDefaultParts;
  spec.max_rows = spec.parts * TableSpec::kLeastRowsPerPart;
  spec.when_full = WhenFull::lru;
  const auto n = static_cast<std::uint64_t>(spec.max_rows);
  BenchTable churned(spec);
  churned.fill(n * 10);
  const auto kept = static_cast<std::uint64_t>(churned.shard().n_rows());
  BenchTable fresh(spec);
  fresh.fill(kept);
  std::vector<float> out(kRequest * kUnits);
  // Those that came last are there: half of what may be, and no part has had more since.
  Requests last = draw_requests(Draw::uniform, n / 2, n_requests(options)), first = last;
  for (auto& request : last) {
    for (std::uint64_t& row : request) row = id_of(n * 10 - 1 - row);
    std::ranges::sort(request, {}, mix_row_id);
  }
  SparseFigure speed = compare(
      options.trials, "E8", "rows read after 10 times as many came and went, over fresh", kRate,
      {Bound::at_least, 1 / 1.2}, [&] { return read_all(churned, last, out); },
      [&, ids = ids_of(first)] { return read_all(fresh, ids, out); });
  const double share =
      static_cast<double>(churned.shard().n_bytes()) / static_cast<double>(fresh.shard().n_bytes());
  SparseFigure memory =
      plain_figure("E8", "memory of the same over fresh", "x", {share}, {Bound::at_most, 1.1});
  if (kept > n) {  // the limit is not kept: this is no churn
    memory.skipped = speed.skipped = fmt::format("{} rows are there, of {} at most", kept, n);
  }
  return {memory, speed};
}

SparseFigures measure_hash_and_cut(const SparseOptions& options) {
  BenchTable table;
  table.fill(n_rows(options));
  const Requests ids = ids_of(draw_requests(Draw::uniform, n_rows(options), n_requests(options)));
  std::vector<float> values(kRequest * kUnits, 0.5F);
  // Each update takes the old values out of the sum and the new ones in: the same, of values in the cache.
  const auto hash = [&] {
    RowHashSum sum;
    const auto n = static_cast<std::size_t>(kUnits) * sizeof(float);
    const double s = seconds_of([&] {
      for (const auto& request : ids) {
        for (std::size_t i = 0; i < request.size(); ++i) {
          const std::span<const std::byte> row(bytes(values) + i * n, n);
          sum.remove(request[i], row);
          clobber_memory();
          sum.add(request[i], row);
        }
      }
    });
    return sum == RowHashSum() ? s : 0;  // never 0
  };
  std::vector<double> with, without, hash_ratio, cut, others, cut_ratio;
  for (int t = -1; t < options.trials; ++t) {
    const auto n = static_cast<double>(n_rows_of(ids)) * 1e-6;
    const double hashes = hash(), update = n / update_all(table, ids);
    const double other = seconds_of([&] { table.step(ids[0]); });
    table.shard().cut();
    const double after_cut = seconds_of([&] { table.step(ids[1]); });
    PartRows rows;
    for (const int part : table.shard().parts()) table.shard().read_part(part, TableShard::kAll, rows);
    table.shard().end_cut();
    if (t < 0) continue;
    with.push_back(n / update);
    without.push_back(n / (update - hashes));
    hash_ratio.push_back(with.back() / without.back());
    cut.push_back(static_cast<double>(ids[1].size()) / after_cut * 1e-6);
    others.push_back(static_cast<double>(ids[0].size()) / other * 1e-6);
    cut_ratio.push_back(cut.back() / others.back());
  }
  return {{"E12",
           "rows updated, over the same without the time of hashes alone",
           kRate,
           Spread::of(with),
           Spread::of(without),
           Spread::of(hash_ratio),
           {Bound::at_least, 0.9}},
          {"E12",
           "the first step after a cut over the one before it",
           kRate,
           Spread::of(cut),
           Spread::of(others),
           Spread::of(cut_ratio),
           {Bound::at_least, 0.7}}};
}

}  // namespace varscope::bench
