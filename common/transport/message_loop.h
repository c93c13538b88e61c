#pragma once

#include <vector>

#include "common/transport/peer_monitor.h"
#include "common/transport/transport.h"

namespace varscope {

// What a rank does with what arrives.
class MessageHandler {
 public:
  virtual ~MessageHandler() = default;
  virtual void on_message(const Message& message) = 0;
  virtual void on_completion(const Completion& completion) = 0;
};

// One rank's polling: hands messages and completions on, shows the peers that this rank lives, and backs off
// while there is nothing to do. Throws Error(stall) that names a silent peer, and whatever the handler and
// the transport throw. Borrows transport and handler. Not thread-safe.
class MessageLoop {
 public:
  // `sender`: of the heartbeats. REQUIRES: the handler is not used before the first poll.
  MessageLoop(Transport& transport, MessageHandler& handler, std::vector<PeerMonitor::Peer> peers, int sender,
              double stall_timeout_s)
      : transport_(transport),
        handler_(handler),
        monitor_(transport, std::move(peers), sender, stall_timeout_s) {}

  // Hands on all that has arrived, messages first; true when there was anything.
  bool poll();
  // From within on_message(): no further message is taken in this poll. What is left is for the next one.
  void end_poll() { is_ended_ = true; }
  // Call often, whether waiting or computing; cheap. `doing` is for the message about a silent peer.
  void show_life(const char* doing) { monitor_.tick(doing); }

  // Before the first of several turns: this rank comes from other work, and spins at first.
  void begin_turns() { transport_.busy(); }
  // One turn of a loop that waits: polls, lets `work` do some of its own (true: there was some), and pauses
  // when there was nothing at all.
  template <class Work>
  void turn(const char* doing, Work work) {
    const bool received = poll();
    const bool worked = work();
    received || worked ? transport_.busy() : transport_.idle();
    show_life(doing);
  }

 private:
  Transport& transport_;
  MessageHandler& handler_;
  PeerMonitor monitor_;
  bool is_ended_ = false;
  Message message_;
  std::vector<Completion> completions_;
};

}  // namespace varscope
