#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "common/config/job_config.h"
#include "common/config/metric_names.h"

namespace varscope {

// Which checkpoints of a directory stay. One that any of the rules keeps stays; so does a pinned one.
struct RetentionPolicy {
  std::int64_t keep = 5;              // the newest committed ones; 0: all, whatever the other rules say
  std::int64_t keep_every_steps = 0;  // those of steps that are multiples of this; 0: off
  // From the oldest on, each that is at least so many hours away from the last one this rule has kept; the
  // oldest too. By the manifests' times. 0: off.
  double keep_every_hours = 0;
  struct Best {
    std::string metric;
    std::int64_t count = 1;
    MetricOrder order = MetricOrder::larger;
  };
  // The best by a metric in METRICS. Of equal ones first those nearer to the step that was evaluated, then
  // the older ones. Checkpoints without the metric are none of them.
  std::optional<Best> best = {};
};

// What `checkpoint.keep...` says. REQUIRES: a config that parse_job has accepted.
RetentionPolicy retention_of(const CheckpointConfig& config);

struct RetentionVerdict {
  CheckpointEntry entry;
  bool stays = true;
  std::string why;  // it stays: "newest", "pinned", "every 100 steps", ...
};

// Decides for each checkpoint of a scan (newest first), in its order. A pure function of what is on disk and
// the policy, so that a restarted job and `varscope checkpoint prune` decide alike. Pinned ones are not
// counted by `keep`. Damaged ones stay while they are newer than the oldest that `keep` counts, and are kept
// by no other rule. Neither are those that are not finite; of them the newest checkpoint of all stays. With a
// rule for the best, those whose METRICS cannot be read stay. Removing what does not stay changes no verdict
// on the others. Throws Error(argument) for negative numbers.
std::vector<RetentionVerdict> judge_retention(Fs& fs, std::vector<CheckpointEntry> entries,
                                              const RetentionPolicy& policy);

}  // namespace varscope
