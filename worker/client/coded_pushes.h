#pragma once

#include "common/base/ids.h"
#include "common/config/flush_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/transport/push_details.h"
#include "worker/client/gradient_coder.h"
#include "worker/client/ps_client.h"

namespace varscope {

// In which steps gradients of a bucket leave encoded; the config alone decides. `planned`: the steps of the
// run, 0 where nobody knows.
bool goes_encoded(const Bucket& bucket, Clock step, const FlushRule& flush, std::int64_t planned);
// Which part of what is kept back goes up with a gradient that does not: FlushRule::part_sent(), or all of it
// where the gradient goes up in full for another reason.
double residual_part(Clock step, const FlushRule& flush);

// Pushes of compressed gradients where each push is applied by itself (SSP, ASP; docs/compression.md). What
// codes lose of a worker's gradients is kept in the coder, for whatever ticket the worker has next. It goes
// up in full with tickets of the steps of FlushRule, and what is left then goes up by itself. One thread;
// borrows what it is given.
class CodedPushes {
 public:
  struct Parts {
    PsClient& client;
    GradientCoder& coder;
    FlushRule flush;
    std::int64_t planned = 0;  // steps of the run; 0: nobody knows
  };
  explicit CodedPushes(const Parts& parts)
      : parts_(parts), part_of_(parts.client.plan().buckets().size(), Clock(-1)) {}

  // The gradients of the ticket are in gradient buffer 0. REQUIRES: PsClient's of a push. Throws
  // Error(not_finite) as GradientCoder::encode().
  void push(const Bucket& bucket, Clock step, const PushOfTicket& push);
  // Before all come together after step `clock`: pushes what is left, and waits until it is applied. Servers
  // wait for all workers, also for those that have nothing left. REQUIRES: PsClient::wait_all().
  void push_rest(Clock clock);

 private:
  Parts parts_;
  IdVector<BucketId, Clock> part_of_;  // the last step in which a part of what is kept back was taken along
};

}  // namespace varscope
