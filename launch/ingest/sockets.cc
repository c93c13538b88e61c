#include "launch/ingest/sockets.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "checkpoint/storage/fs.h"
#include "common/base/error.h"

namespace varscope {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

sockaddr* plain(sockaddr_storage& address) {
  return reinterpret_cast<sockaddr*>(
      &address);  // NOLINT(*-reinterpret-cast): as the calls of sockets want it
}

std::string text_of(sockaddr_storage& address, socklen_t size) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(plain(address), size, host.data(), host.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "unknown";
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host.data(), port.data())
                                       : fmt::format("{}:{}", host.data(), port.data());
}

bool is_loopback(const sockaddr* address) {
  constexpr std::uint32_t kLoopbackNet = 127;
  if (address->sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, address, sizeof in);
    return ntohl(in.sin_addr.s_addr) >> 24 == kLoopbackNet;
  }
  sockaddr_in6 in{};
  std::memcpy(&in, address, sizeof in);
  return IN6_IS_ADDR_LOOPBACK(&in.sin6_addr);
}

// The one place that HOST:PORT names.
Addresses place_of(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  std::string host = colon == std::string::npos ? "" : address.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  const bool has_brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (has_brackets) host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  const bool is_port = !port.empty() && port.size() <= 5 &&
                       port.find_first_not_of("0123456789") == std::string::npos && std::stoi(port) <= 65535;
  addrinfo hints{};
  hints.ai_family = has_brackets ? AF_INET6 : AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (host.empty() || !is_port || ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    fail(
        ErrorKind::config,
        "--from tcp:{}: expected an address of this host and a port, such as tcp:127.0.0.1:9000, tcp:[::1]:9000 "
        "or tcp:0.0.0.0:9000",
        address);
  }
  return Addresses(found);
}

[[noreturn]] void fail_to_listen(const std::string& address, int code) {
  const char* hint = "";
  if (code == EADDRINUSE)
    hint = "; another program has this port: stop it (ss -ltnp shows which it is), or choose another port";
  if (code == EADDRNOTAVAIL)
    hint = "; no network of this host has this address (ip address shows those it has)";
  if (code == EACCES) hint = "; ports below 1024 are for root: choose another one";
  fail(ErrorKind::io, "cannot listen on {}: {}{}", address, std::strerror(code), hint);
}

}  // namespace

void TcpListener::check(const std::string& address) { place_of(address); }

TcpListener::TcpListener(const std::string& address) : address_(address) {
  constexpr int kWaiting = 64;
  const Addresses place = place_of(address);
  fd_ = OwnedDescriptor(::socket(place->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd_.get() < 0) fail_to_listen(address, errno);
  // A port whose last connections are not forgotten yet can be taken again after a crash.
  const int on = 1;
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd_.get(), place->ai_addr, place->ai_addrlen) != 0 || ::listen(fd_.get(), kWaiting) != 0)
    fail_to_listen(address, errno);
  is_loopback_ = varscope::is_loopback(place->ai_addr);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::getsockname(fd_.get(), plain(bound), &size) == 0) address_ = text_of(bound, size);
}

std::optional<TcpConnection> TcpListener::accept() {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  OwnedDescriptor fd(::accept4(fd_.get(), plain(peer), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.get() < 0) {
    if (errno == EMFILE || errno == ENFILE) fail_io("accept a connection on", address_, errno);
    return std::nullopt;  // it has been given up meanwhile
  }
  // A producer whose host is gone is noticed some time, though nothing is sent to it.
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  return TcpConnection(std::move(fd), text_of(peer, size));
}

std::optional<std::size_t> TcpConnection::read(std::span<char> out) {
  const ssize_t n = ::recv(fd_.get(), out.data(), out.size(), 0);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno == EAGAIN || errno == EINTR) return std::nullopt;
  is_gone_ = true;
  return 0;
}

void TcpConnection::send_number(std::uint64_t number) {
  number_ = number;
  flush();
}

void TcpConnection::send_line(std::string_view line) {
  if (number_) out_ += fmt::format("{}\n", *std::exchange(number_, std::nullopt));
  out_.append(line).push_back('\n');
  flush();
}

void TcpConnection::flush() {
  while (!is_gone_ && has_unsent()) {
    if (out_.empty()) out_ = fmt::format("{}\n", *std::exchange(number_, std::nullopt));
    const ssize_t n = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) is_gone_ = true;
    if (n > 0) out_.erase(0, static_cast<std::size_t>(n));
  }
  if (is_gone_) {
    out_.clear();
    number_.reset();
  }
}

void TcpConnection::end_sending() { ::shutdown(fd_.get(), SHUT_WR); }

}  // namespace varscope
