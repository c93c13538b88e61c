#include "common/transport/message_loop.h"

namespace varscope {

bool MessageLoop::poll() {
  bool received = false;
  is_ended_ = false;
  while (!is_ended_ && transport_.poll_message(message_)) {
    monitor_.heard(message_.from);
    handler_.on_message(message_);
    received = true;
  }
  completions_.clear();
  transport_.poll_completions(completions_);
  for (const Completion& c : completions_) handler_.on_completion(c);
  return received || !completions_.empty();
}

}  // namespace varscope
