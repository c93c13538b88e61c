#include "common/transport/step_traffic.h"

#include "common/placement/canonical_sum.h"
#include "common/transport/wire_codec.h"

namespace varscope {

StepTraffic step_traffic(const BucketPlan& plan, const ClusterMap& cluster) {
  const auto n_nodes = static_cast<std::int64_t>(all_contributions(cluster).size());
  StepTraffic all;
  for (const Bucket& bucket : plan.buckets()) {
    if (!bucket.is_pushed()) continue;
    const bool is_encoded = codec_of(bucket, Flow::gradients).has_value();
    all.full_up += n_nodes * bucket.n_bytes();
    all.full_down += cluster.n_workers() * bucket.n_bytes();
    all.up += is_encoded ? cluster.logical_workers * wire_bytes(bucket, Flow::gradients, WireForm::encoded)
                         : n_nodes * bucket.n_bytes();
    all.down += cluster.n_workers() * wire_bytes(bucket, Flow::values, form_of_values(bucket));
  }
  return all;
}

}  // namespace varscope
