#include "tests/support/jobs/tcp_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>

namespace varscope::testing {

TcpClient::TcpClient(const std::string& address) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const std::size_t colon = address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1)));
  inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
  const timeval patience{kPatienceSeconds, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0) return;
  ::close(fd_);
  throw std::runtime_error("cannot connect to " + address);
}

TcpClient::~TcpClient() { ::close(fd_); }

bool TcpClient::send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::size_t TcpClient::send_some(std::string_view text) {
  const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return n < 0 ? 0 : static_cast<std::size_t>(n);
}

void TcpClient::end_sending() { ::shutdown(fd_, SHUT_WR); }

std::optional<std::string> TcpClient::line() {
  char block[4096];
  std::size_t end = 0;
  while ((end = in_.find('\n')) == std::string::npos) {
    const ssize_t n = ::recv(fd_, block, sizeof block, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::nullopt;
    in_.append(block, static_cast<std::size_t>(n));
  }
  std::string line = in_.substr(0, end);
  in_.erase(0, end + 1);
  newest_ = line.starts_with("ERROR") ? newest_ : std::strtoull(line.c_str(), nullptr, 10);
  return line;
}

bool TcpClient::wait_for(std::string_view expected) {
  while (const std::optional<std::string> next = line()) {
    if (*next == expected) return true;
  }
  return false;
}

}  // namespace varscope::testing
