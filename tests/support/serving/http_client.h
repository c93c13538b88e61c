#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace varscope::testing {

// A client that sends bytes as it likes.
class HttpClient {
 public:
  explicit HttpClient(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    const timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    is_connected_ = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  HttpClient(HttpClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        is_connected_(other.is_connected_),
        text_(std::move(other.text_)) {}
  HttpClient(const HttpClient&) = delete;
  ~HttpClient() {
    if (fd_ >= 0) ::close(fd_);
  }
  void send(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // The next answer, header and body; "" where the connection has ended.
  std::string answer() {
    while (true) {
      const std::size_t head = text_.find("\r\n\r\n");
      if (head != std::string::npos) {
        std::string names = text_.substr(0, head);  // a proxy may write them in lower case
        for (char& c : names) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        const std::size_t at = names.find("\r\ncontent-length: ");
        const std::size_t n = at < head ? static_cast<std::size_t>(std::stoi(text_.substr(at + 18, 20))) : 0;
        if (text_.size() >= head + 4 + n) {
          std::string one = text_.substr(0, head + 4 + n);
          text_.erase(0, one.size());
          return one;
        }
      }
      std::array<char, 65536> bytes{};
      const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), 0);
      if (n <= 0) return "";
      text_.append(bytes.data(), static_cast<std::size_t>(n));
    }
  }
  void end_sending() const { ::shutdown(fd_, SHUT_WR); }
  bool is_connected() const { return is_connected_; }
  bool is_closed() { return answer().empty(); }
  std::string ask(const std::string& text) {
    send(text);
    return answer();
  }

 private:
  int fd_;
  bool is_connected_ = false;
  std::string text_;
};

inline std::string http_post(const std::string& path, const std::string& body, const std::string& more = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: h\r\n" + more +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
inline std::string http_get(const std::string& path) {
  return "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n";
}
inline std::string body_of(const std::string& answer) {
  const std::size_t head = answer.find("\r\n\r\n");
  return head == std::string::npos ? "" : answer.substr(head + 4);
}
inline int status_of(const std::string& answer) {
  return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3));
}

}  // namespace varscope::testing
