#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/bench.h"

namespace varscope::bench {

// What all targets are measured with.
struct SparseOptions {
  int trials = 5;                          // takes of each figure
  bool is_small = false;                   // the smallest sizes: does it run at all?
  std::uint64_t growth_rows = 10'000'000;  // of E6 and E7
  std::string dir;                         // for files; removed afterwards
  std::string program;                     // varscope
  std::string before;                      // a varscope of earlier times, or ""
  std::string python = "python3";
  std::string peer;  // sparse_torch.py
  std::string mpirun = "mpirun";
};

enum class Bound { at_least, at_most };
struct Goal {
  Bound bound = Bound::at_least;
  double value = 0;
  bool is_met_by(double x) const { return bound == Bound::at_least ? x >= value : x <= value; }
};

// One line of the table: ours, what it is held against, and our share of that, take by take.
struct SparseFigure {
  std::string target;  // "E1"
  std::string what;    // "read, uniform"
  std::string unit;    // of both
  Spread ours, ceiling, ratio;
  Goal goal;
  std::string skipped = {};  // why there is no figure; "": there is one
};
using SparseFigures = std::vector<SparseFigure>;

// A figure that has no ceiling: it is the ratio.
inline SparseFigure plain_figure(std::string target, std::string what, std::string unit,
                                 std::vector<double> values, Goal goal) {
  const Spread s = Spread::of(std::move(values));
  return {std::move(target), std::move(what), std::move(unit), s, {}, s, goal};
}
inline SparseFigure skipped_figure(std::string target, std::string what, Goal goal, std::string why) {
  return {std::move(target), std::move(what), "", {}, {}, {}, goal, std::move(why)};
}

// Takes of a speed beside its ceiling's, which is measured before and after each take. Both are functions
// that work and return a speed; the first take of each warms up.
template <class Ours, class Ceiling>
SparseFigure compare(int trials, std::string target, std::string what, std::string unit, Goal goal,
                     const Ours& ours, const Ceiling& ceiling) {
  std::vector<double> mine, ceilings, ratios;
  for (int t = -1; t < trials; ++t) {
    const double before = ceiling(), speed = ours(), after = ceiling();
    if (t < 0) continue;
    mine.push_back(speed);
    ceilings.push_back((before + after) / 2);
    ratios.push_back(speed / ceilings.back());
  }
  return {std::move(target),
          std::move(what),
          std::move(unit),
          Spread::of(mine),
          Spread::of(ceilings),
          Spread::of(ratios),
          goal};
}

// The targets by where they are measured. Each appends its lines.
SparseFigures measure_reads(const SparseOptions&);         // E1
SparseFigures measure_updates(const SparseOptions&);       // E2
SparseFigures measure_growth(const SparseOptions&);        // E6, E7
SparseFigures measure_churn(const SparseOptions&);         // E8
SparseFigures measure_hash_and_cut(const SparseOptions&);  // E12, of the server
SparseFigures measure_unique(const SparseOptions&);        // E5
SparseFigures measure_training(const SparseOptions&);      // E4
SparseFigures measure_dense(const SparseOptions&);         // E12, of a model without tables
SparseFigures measure_saves(const SparseOptions&);         // E9, E10
// E3, E13: starts mpirun, which starts this program with --as-rank; there exchange_as_rank() is main.
SparseFigures measure_exchange(const SparseOptions&);
int exchange_as_rank(const SparseOptions&, int argc, char** argv);

}  // namespace varscope::bench
