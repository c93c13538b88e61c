#include "common/transport/push_details.h"

#include <cmath>
#include <cstring>

#include "common/base/error.h"

namespace varscope {

std::string_view bytes_of(const PushDetails& details) {
  return {reinterpret_cast<const char*>(&details), sizeof(details)};
}

PushDetails push_details(std::string_view body, Rank from) {
  PushDetails details;
  if (body.size() < sizeof(details)) {
    fail(ErrorKind::protocol, "rank {} sent a push with {} bytes of details instead of {}", from.value,
         body.size(), sizeof(details));
  }
  std::memcpy(&details, body.data(), sizeof(details));
  if (!(details.share >= 0 && details.share <= 1) || details.n_leaves < 1) {
    fail(ErrorKind::protocol, "rank {} sent a push of {} leaves with share {}", from.value, details.n_leaves,
         details.share);
  }
  if (details.next_step < PushDetails::kNone || details.held_after < 0) {
    fail(ErrorKind::protocol, "rank {} sent a push before step {} that waits for a cut of step {}",
         from.value, details.next_step, details.held_after);
  }
  return details;
}

}  // namespace varscope
