#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/bench.h"

namespace varscope::bench {

enum class Bound { at_least, at_most };
struct Goal {
  Bound bound = Bound::at_least;
  double value = 0;
  bool is_met_by(double x) const { return bound == Bound::at_least ? x >= value : x <= value; }
};

// One line of the table: ours, what it is held against, and our share of that, take by take.
struct Figure {
  std::string target;  // "E1", "V3"
  std::string what;    // "read, uniform"
  std::string unit;    // of both
  Spread ours, ceiling, ratio;
  Goal goal;
  std::string skipped = {};  // why there is no figure; "": there is one
  bool is_count = false;     // may be 0, which no speed may
};
using Figures = std::vector<Figure>;

// A figure that has no ceiling: it is the ratio.
inline Figure plain_figure(std::string target, std::string what, std::string unit, std::vector<double> values,
                           Goal goal) {
  const Spread s = Spread::of(std::move(values));
  return {std::move(target), std::move(what), std::move(unit), s, {}, s, goal};
}
// Of how many there were, which may be none.
inline Figure count_figure(std::string target, std::string what, std::vector<double> values, Goal goal) {
  Figure figure = plain_figure(std::move(target), std::move(what), "", std::move(values), goal);
  figure.is_count = true;
  return figure;
}
inline Figure skipped_figure(std::string target, std::string what, Goal goal, std::string why) {
  return {std::move(target), std::move(what), "", {}, {}, {}, goal, std::move(why)};
}

// Takes of a speed beside its ceiling's, which is measured before and after each take. Both are functions
// that work and return a speed; the first take of each warms up.
template <class Ours, class Ceiling>
Figure compare(int trials, std::string target, std::string what, std::string unit, Goal goal,
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

}  // namespace varscope::bench
