#include "common/transport/wire.h"

#include "common/base/error.h"

namespace varscope {

const char* to_string(MessageType type) {
  switch (type) {
    case MessageType::push:
      return "push";
    case MessageType::value:
      return "value";
    case MessageType::pull:
      return "pull";
    case MessageType::ack:
      return "ack";
    case MessageType::heartbeat:
      return "heartbeat";
    case MessageType::step_report:
      return "step report";
    case MessageType::go:
      return "go";
    case MessageType::eval_report:
      return "evaluation report";
    case MessageType::finished:
      return "finished";
    case MessageType::cut:
      return "cut";
    case MessageType::shard_report:
      return "shard report";
    case MessageType::hash_request:
      return "hash request";
    case MessageType::hash_report:
      return "hash report";
    case MessageType::shutdown:
      return "shutdown";
    case MessageType::norm_sums:
      return "sums of squares";
    case MessageType::request:
      return "request";
    case MessageType::norm_scales:
      return "norm factors";
    case MessageType::finite_request:
      return "request for what is not finite";
    case MessageType::finite_report:
      return "report of what is not finite";
    case MessageType::histograms:
      return "report of histograms";
    case MessageType::rows_wanted:
      return "request for rows";
    case MessageType::rows:
      return "answer with rows";
    case MessageType::rows_push:
      return "push of rows";
    case MessageType::save_base:
      return "base of a save";
    case MessageType::feed:
      return "file to learn from";
    case MessageType::ticket_request:
      return "request for a ticket";
    case MessageType::drained:
      return "report of a drain";
    case MessageType::cut_given_up:
      return "word of a cut that was given up";
    case MessageType::staleness:
      return "report of how stale reads were";
    case MessageType::gradient_done:
      return "word of a gradient";
  }
  return "unknown message";
}

MessageHeader make_header(MessageType type, int sender, Clock clock) {
  MessageHeader h;
  h.magic = kMessageMagic;
  h.version = kWireVersion;
  h.type = static_cast<std::uint16_t>(type);
  h.sender = sender;
  h.clock = clock.value;
  return h;
}

void check_header(const MessageHeader& header, std::size_t n_body, Rank from) {
  if (header.magic != kMessageMagic || header.version != kWireVersion) {
    fail(ErrorKind::protocol,
         "rank {} sent a message of another program or version (magic {:#x}, wire version {})", from.value,
         header.magic, header.version);
  }
  if (header.type < 1 || header.type > static_cast<std::uint16_t>(MessageType::gradient_done)) {
    fail(ErrorKind::protocol, "rank {} sent a message of unknown type {}", from.value, header.type);
  }
  if (header.n_body != n_body) {
    fail(ErrorKind::protocol, "rank {} sent a {} that claims {} bytes of body but has {}", from.value,
         to_string(type_of(header)), header.n_body, n_body);
  }
}

}  // namespace varscope
