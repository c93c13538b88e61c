#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/types.h"

namespace varscope {

// With backup workers: whose part of one step was dropped. A value type.
struct DroppedStep {
  std::vector<WorkerId> workers;  // in rising order; also those that had no samples
  std::int64_t samples = 0;       // of them all
  std::int64_t of_samples = 0;    // of the step, those that count too
};

// Of all steps since the start. A value type.
struct DroppedSummary {
  struct Worker {
    std::int64_t steps = 0, samples = 0;
  };
  int n_backups = 0;
  std::int64_t samples = 0, of_samples = 0;  // dropped, and of all that there were
  IdVector<WorkerId, Worker> workers;
};
// For a person: "320 of 960 samples (33.3 %); most of worker 2: 200 in 20 steps".
std::string text_of(const DroppedSummary& summary);

}  // namespace varscope
