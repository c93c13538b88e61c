#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/base/types.h"
#include "common/transport/compression_report.h"

namespace varscope {

// Looks at what compression keeps back of gradients, scope by scope, relative to these. With error feedback
// it stays within bounds that depend on the codec; where it grows and grows the feedback diverges, and what
// is flushed is no gradient any more. One thread.
class ResidualWatch {
 public:
  // The growth since the first measurement that a person is told of.
  static constexpr double kGrowth = 10;
  // All workers' norms of a step. What a person should know; of each scope once.
  std::vector<std::string> add(Clock step, const CompressionReport& report);

 private:
  struct First {
    Clock step;
    double ratio = 0;
    bool has_told = false;
  };
  std::map<std::string, First> scopes_;
};

}  // namespace varscope
