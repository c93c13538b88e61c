#pragma once

#include <exception>
#include <functional>
#include <string>

#include "common/transport/loopback_transport.h"

namespace varscope::testing {

// All ranks of a hub as threads of this process: `run` is called once for each. Returns the first error, as
// "kind: message", and "" when there is none. Where one fails, or after `limit_s` ("stuck"), all others are
// aborted.
std::string run_ranks(LoopbackHub& hub, int n_ranks, const std::function<void(Rank)>& run, int limit_s = 40);

// Declared after what a rank sends from and receives into, in its `run`: where that fails, all others are
// aborted before its memory goes, from which they would copy.
class AbortOnFailure {
 public:
  explicit AbortOnFailure(LoopbackHub& hub) : hub_(hub), n_before_(std::uncaught_exceptions()) {}
  ~AbortOnFailure() {
    if (std::uncaught_exceptions() > n_before_) hub_.abort();
  }
  AbortOnFailure(const AbortOnFailure&) = delete;
  AbortOnFailure& operator=(const AbortOnFailure&) = delete;

 private:
  LoopbackHub& hub_;
  int n_before_;
};

}  // namespace varscope::testing
