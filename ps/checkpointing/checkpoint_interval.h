#pragma once

#include <algorithm>
#include <cmath>

namespace varscope {

// Seconds of training between two checkpoints that lose least, when one costs `cost_s` of training and
// failures come every `mtbf_s` on average: J. T. Daly, "A higher order estimate of the optimum checkpoint
// interval for restart dumps", FGCS 22 (2006), equation 37, whose first term is sqrt(2 cost mtbf) of J. W.
// Young, CACM 17 (1974). Not less than `write_s`, the time until the disk is free again. REQUIRES positive
// mtbf_s.
inline double best_checkpoint_interval(double cost_s, double mtbf_s, double write_s) {
  const double x = cost_s / (2 * mtbf_s);
  const double daly =
      x < 1 ? std::sqrt(2 * cost_s * mtbf_s) * (1 + std::sqrt(x) / 3 + x / 9) - cost_s : mtbf_s;
  return std::max(daly, write_s);
}

}  // namespace varscope
