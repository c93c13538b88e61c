#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/types.h"

namespace varscope {

// What a push says of itself where each is applied by itself (SSP, ASP), beside its header: `clock` there is
// the step of its ticket, `leaf_begin` the ticket's first leaf. The first bytes of the message's body, as
// they lie in memory.
struct PushDetails {
  // The step that its worker computes next: the answer holds what that may be computed with. kNotKnown: the
  // answer is what there is, with the worker's own push; a pull follows where that turns out to be too old.
  // kNone: an ack is the answer.
  static constexpr std::int64_t kNotKnown = 0, kNone = -1;
  std::int64_t next_step = kNotKnown;
  // Not to be applied before the cut after this step has been made, or given up.
  std::int64_t held_after = 0;
  // Samples (by weight) over those of its step's global batch; 0: none, and no gradient follows.
  double share = 0;
  std::int32_t n_leaves = 0;
  std::int32_t padding = 0;
};
static_assert(sizeof(PushDetails) == 32);

// What a worker says of a push where each is applied by itself.
struct PushOfTicket {
  int leaf_begin = 0;
  PushDetails details;
};

std::string_view bytes_of(const PushDetails& details);
// Throws Error(protocol) where the body is too short, or says what cannot be.
PushDetails push_details(std::string_view body, Rank from);

}  // namespace varscope
