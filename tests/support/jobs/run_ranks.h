#pragma once

#include <functional>
#include <string>

#include "common/transport/loopback_transport.h"

namespace varscope::testing {

// All ranks of a hub as threads of this process: `run` is called once for each. Returns the first error, as
// "kind: message", and "" when there is none. Where one fails, or after `limit_s` ("stuck"), all others are
// aborted.
std::string run_ranks(LoopbackHub& hub, int n_ranks, const std::function<void(Rank)>& run, int limit_s = 40);

}  // namespace varscope::testing
