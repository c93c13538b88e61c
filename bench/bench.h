#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/transport/transport.h"

namespace varscope::bench {

// Median, least and greatest of several takes of one figure.
struct Spread {
  double median = 0, min = 0, max = 0;
  static Spread of(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    if (values.empty()) return {};
    const std::size_t n = values.size();
    const double middle = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    return {middle, values.front(), values.back()};
  }
};

// Ends the program with code 1 and the figure's name when it cannot be one: a benchmark that measured nothing
// fails.
inline void require_positive(const std::string& what, const Spread& s) {
  if (s.min > 0 && std::isfinite(s.max)) return;
  std::fprintf(stderr, "bench: %s is %g [%g .. %g], which is no speed: nothing was measured\n", what.c_str(),
               s.median, s.min, s.max);
  std::exit(1);
}

// What main() returns: the benchmark's own code, or 1 with "name: what" for an error.
inline int run_main(const char* name, int (*run)(int, char**), int argc, char** argv) noexcept {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return 1;
  }
}

template <class Work>
double seconds_of(Work work) {
  const std::int64_t started = now_ns();
  work();
  return static_cast<double>(now_ns() - started) * 1e-9;
}

}  // namespace varscope::bench
