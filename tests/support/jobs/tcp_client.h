#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace varscope::testing {

// One end of a TCP connection, for tests; no call waits longer than `kPatienceSeconds`. Not thread-safe.
class TcpClient {
 public:
  static constexpr int kPatienceSeconds = 60;

  explicit TcpClient(const std::string& address);  // "127.0.0.1:9000"; throws std::runtime_error
  ~TcpClient();
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;

  bool send(std::string_view text);              // false: the other side is gone
  std::size_t send_some(std::string_view text);  // what is taken at once; 0: nothing is
  void end_sending();
  // The next line, without its end; nothing: the other side has ended, or is silent.
  std::optional<std::string> line();
  // Lines until one of them is this; nothing is left of them. False where it does not come.
  bool wait_for(std::string_view line);
  // The newest number that came; 0: none.
  unsigned long long newest() const { return newest_; }

 private:
  int fd_;
  std::string in_;
  unsigned long long newest_ = 0;
};

}  // namespace varscope::testing
