#include "ps/step_protocol.h"

#include "common/base/error.h"
#include "common/transport/wire.h"

namespace varscope {

const Bucket& own_bucket(const StepProtocol::Parts& parts, WorkerId worker, const MessageHeader& header) {
  const BucketId id(header.bucket);
  if (!parts.shard.has(id)) {
    fail(ErrorKind::protocol, "worker {} {}ed bucket {}, which is not on server {}", worker.value,
         to_string(type_of(header)), id.value, parts.shard.server().value);
  }
  return parts.plan[id];
}

void check_is_pushed(const Bucket& bucket, WorkerId worker) {
  if (bucket.is_pushed()) return;
  fail(ErrorKind::protocol, "worker {} pushed bucket {} ({}), whose values never change", worker.value,
       bucket.id.value, bucket.scope);
}

}  // namespace varscope
