#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "launch/ingest/descriptor.h"

namespace varscope {

// One end of a TCP connection that was accepted. No call waits. Not thread-safe.
class TcpConnection {
 public:
  TcpConnection(OwnedDescriptor fd, std::string peer) : fd_(std::move(fd)), peer_(std::move(peer)) {}

  int fd() const { return fd_.get(); }
  const std::string& peer() const { return peer_; }  // "127.0.0.1:51234"

  // The number of bytes that were there; 0: the other side sends no more, or is gone; nothing: none yet.
  std::optional<std::size_t> read(std::span<char> out);

  // Sends the line as soon as the other side takes it. A number that has not begun to be sent is replaced by
  // the next one, so that memory stays small where nobody reads.
  void send_number(std::uint64_t number);
  void send_line(std::string_view line);
  void flush();
  bool has_unsent() const { return !out_.empty() || number_.has_value(); }
  // No more is sent; the other side reads what was, and then the end.
  void end_sending();
  bool is_gone() const { return is_gone_; }  // nothing can be sent any more

 private:
  OwnedDescriptor fd_;
  std::string peer_;
  std::string out_;  // what of the lines that were begun is left
  std::optional<std::uint64_t> number_;
  bool is_gone_ = false;
};

// Waits for TCP connections. Not thread-safe.
class TcpListener {
 public:
  // `address` is "127.0.0.1:9000", "[::1]:9000" or "localhost:9000"; port 0 takes a free one. Throws
  // Error(config) for anything else, Error(io) where it cannot be listened to.
  explicit TcpListener(const std::string& address);
  static void check(const std::string& address);  // throws that Error(config)

  int fd() const { return fd_.get(); }
  const std::string& address() const { return address_; }  // with the port that it has
  bool is_loopback() const { return is_loopback_; }
  // Nothing where nobody waits (any more). Throws Error(io) where this process may open no more files.
  std::optional<TcpConnection> accept();

 private:
  OwnedDescriptor fd_;
  std::string address_;
  bool is_loopback_ = false;
};

}  // namespace varscope
