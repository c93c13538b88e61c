#include "common/transport/step_traffic.h"

#include "common/placement/canonical_sum.h"
#include "common/transport/wire_codec.h"

namespace varscope {
namespace {

// Gradients of a bucket that all workers together send in a step, in full and encoded; and its values that
// they receive.
struct Counts {
  std::int64_t full, encoded, values;
};

Counts counts_of(const ClusterMap& cluster, const StepRule& rule) {
  const std::int64_t n_workers = cluster.n_workers(), n_leaves = cluster.logical_workers;
  if (rule.is_bsp())
    return {static_cast<std::int64_t>(all_contributions(cluster).size()), n_leaves, n_workers};
  const std::int64_t n_tickets = rule.is_dynamic() ? n_leaves : n_workers;
  return {n_tickets, n_tickets, n_tickets};
}

}  // namespace

StepTraffic step_traffic(const BucketPlan& plan, const ClusterMap& cluster, const StepRule& rule) {
  const Counts n = counts_of(cluster, rule);
  StepTraffic all;
  for (const Bucket& bucket : plan.buckets()) {
    if (!bucket.is_pushed()) continue;
    const bool is_encoded = codec_of(bucket, Flow::gradients).has_value();
    all.full_up += n.full * bucket.n_bytes();
    all.full_down += n.values * bucket.n_bytes();
    all.up += is_encoded ? n.encoded * wire_bytes(bucket, Flow::gradients, WireForm::encoded)
                         : n.full * bucket.n_bytes();
    all.down += n.values * wire_bytes(bucket, Flow::values, form_of_values(bucket));
  }
  return all;
}

}  // namespace varscope
