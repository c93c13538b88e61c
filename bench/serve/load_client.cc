#include "bench/serve/load_client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "common/base/clock.h"

namespace varscope::bench {
namespace {

constexpr double kSilence_s = 10;

int connect_to(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const std::string why = std::strerror(errno);
    if (fd >= 0) ::close(fd);
    throw std::runtime_error(fmt::format("cannot connect to 127.0.0.1:{}: {}", port, why));
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

// The bytes of the first whole answer in `text`; nothing while there is none.
std::optional<std::size_t> whole_answer(std::string_view text) {
  constexpr std::string_view kLength = "\r\ncontent-length:";
  const std::size_t head = text.find("\r\n\r\n");
  if (head == std::string_view::npos) return std::nullopt;
  const auto same = [](char a, char b) { return (a | 0x20) == b || a == b; };
  const auto found = std::search(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(head),
                                 kLength.begin(), kLength.end(), same);
  std::size_t n = 0;
  for (auto at = found == text.begin() + static_cast<std::ptrdiff_t>(head)
                     ? text.end()
                     : found + static_cast<std::ptrdiff_t>(kLength.size());
       at != text.end() && *at != '\r'; ++at) {
    if (*at >= '0' && *at <= '9') n = n * 10 + static_cast<std::size_t>(*at - '0');
  }
  if (text.size() < head + 4 + n) return std::nullopt;
  return head + 4 + n;
}

bool is_good(std::string_view answer) { return answer.size() > 12 && answer.substr(8, 5) == " 200 "; }

// One connection, which has at most one request under way.
class Connection {
 public:
  explicit Connection(int port) : port_(port), fd_(connect_to(port)) {}
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  Connection(Connection&& other) noexcept
      : port_(other.port_), fd_(std::exchange(other.fd_, -1)), is_busy_(other.is_busy_) {}
  Connection(const Connection&) = delete;

  bool is_busy() const { return is_busy_; }
  double due_s() const { return due_s_; }
  pollfd wanted() const {
    return {fd_, static_cast<short>((is_busy_ ? POLLIN : 0) | (left_.empty() ? 0 : POLLOUT)), 0};
  }
  void ask(std::string_view request, double due_s) {
    is_busy_ = true;
    due_s_ = due_s;
    left_ = request;
    send();
  }
  // What has come since: "" while the answer is not whole; a connection that has ended is made anew, and the
  // answer is what was there and " (closed)".
  std::string_view step() {
    send();
    while (true) {
      const std::size_t had = text_.size();
      text_.resize(had + kChunk);
      const ssize_t n = ::recv(fd_, text_.data() + had, kChunk, 0);
      text_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(0, n)));
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
      if (n <= 0) return broken();
      const auto whole = whole_answer(text_);
      if (!whole) continue;
      is_busy_ = false;
      return std::string_view(text_).substr(0, *whole);
    }
  }
  void forget_answer() { text_.clear(); }
  int release() { return std::exchange(fd_, -1); }  // the socket is the caller's

 private:
  static constexpr std::size_t kChunk = std::size_t{64} << 10;
  void send() {
    while (!left_.empty()) {
      const ssize_t n = ::send(fd_, left_.data(), left_.size(), MSG_NOSIGNAL);
      if (n <= 0) return;  // later, or step() sees what is wrong
      left_.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  std::string_view broken() {
    ::close(fd_);
    fd_ = connect_to(port_);
    is_busy_ = false;
    left_ = {};
    text_ += " (closed)";
    return text_;
  }
  int port_, fd_;
  bool is_busy_ = false;
  double due_s_ = 0;
  std::string_view left_;  // of the request
  std::string text_;
};

// What put_load does.
class Loader {
 public:
  explicit Loader(const LoadOptions& options) : options_(options) {
    for (int i = 0; i < options.connections; ++i) connections_.emplace_back(options.port);
  }
  LoadResult run() {
    prctl(PR_SET_TIMERSLACK, 1);  // waits end when they are due
    started_ = last_answer_ = now_ns();
    while (true) {
      const double now = since_start();
      if (options_.event && now >= options_.event_s) std::exchange(options_.event, {})();
      ask(now);
      const bool is_open = now < options_.seconds || waits_ > 0;
      if (!is_open && std::ranges::none_of(connections_, &Connection::is_busy)) break;
      wait(now);
      if (static_cast<double>(now_ns() - last_answer_) * 1e-9 > kSilence_s)
        throw std::runtime_error(
            fmt::format("nothing came from port {} for {} s", options_.port, kSilence_s));
    }
    result_.seconds = static_cast<double>(last_answer_ - started_) * 1e-9;
    return std::move(result_);
  }

 private:
  double since_start() const { return static_cast<double>(now_ns() - started_) * 1e-9; }
  double due_of(std::int64_t i) const { return static_cast<double>(i) / options_.rate; }
  void ask(double now) {
    if (options_.rate > 0) {
      const auto due = static_cast<std::int64_t>(std::min(now, options_.seconds) * options_.rate) + 1;
      waits_ += due - n_due_;
      n_due_ = due;
    }
    if (options_.rate > 0 ? waits_ == 0 : now >= options_.seconds) return;
    for (Connection& c : connections_) {
      if (c.is_busy()) continue;
      if (options_.rate > 0 && waits_ == 0) return;
      c.ask(options_.request, options_.rate > 0 ? due_of(n_due_ - waits_) : now);
      if (options_.rate > 0) --waits_;
    }
  }
  void wait(double now) {
    polls_.clear();
    for (const Connection& c : connections_) polls_.push_back(c.wanted());
    double most = 0.1;
    if (options_.rate > 0 && waits_ == 0) most = std::min(most, std::max(0.0, due_of(n_due_) - now));
    const timespec time{0, static_cast<long>(most * 1e9)};
    if (::ppoll(polls_.data(), polls_.size(), &time, nullptr) <= 0) return;
    for (std::size_t i = 0; i < polls_.size(); ++i) {
      if (polls_[i].revents != 0 && connections_[i].is_busy()) take(connections_[i]);
    }
  }
  void take(Connection& c) {
    const std::string_view answer = c.step();
    if (answer.empty()) return;
    last_answer_ = now_ns();
    if (is_good(answer)) {
      const double took = since_start() - c.due_s();
      result_.answers.push_back({static_cast<float>(c.due_s()), static_cast<float>(took)});
    } else if (result_.n_failed++ == 0) {
      result_.first_failure = std::string(answer.substr(0, 400));
    }
    c.forget_answer();
  }

  LoadOptions options_;
  std::vector<Connection> connections_;
  std::vector<pollfd> polls_;
  std::int64_t started_ = 0, last_answer_ = 0;
  std::int64_t n_due_ = 0, waits_ = 0;  // requests that were due; those of them that are not sent
  LoadResult result_;
};

std::string ask_on(Connection& c, const std::string& request) {
  c.ask(request, 0);
  const std::int64_t until = now_ns() + static_cast<std::int64_t>(kSilence_s * 1e9);
  while (now_ns() < until) {
    pollfd poll = c.wanted();
    ::poll(&poll, 1, 100);
    const std::string_view answer = c.step();
    if (!answer.empty()) return std::string(answer);
  }
  throw std::runtime_error(fmt::format("no answer within {} s", kSilence_s));
}

}  // namespace

double LoadResult::per_second() const {
  return seconds > 0 ? static_cast<double>(answers.size()) / seconds : 0;
}

double LoadResult::quantile_s(double p, double from, double to) const {
  std::vector<double> times;
  for (const Answer& a : answers) {
    if (a.due_s >= from && a.due_s < to) times.push_back(a.took_s);
  }
  if (times.empty()) return 0;
  const auto at = std::min(times.size() - 1, static_cast<std::size_t>(p * static_cast<double>(times.size())));
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(at), times.end());
  return times[at];
}

LoadResult put_load(const LoadOptions& options) { return Loader(options).run(); }

std::string ask_once(int port, const std::string& request) {
  Connection c(port);
  return ask_on(c, request);
}

IdleConnections::IdleConnections(int port, const std::string& request, int n) {
  for (int i = 0; i < n; ++i) {
    Connection c(port);
    const std::string answer = ask_on(c, request);
    if (!is_good(answer)) throw std::runtime_error("instead of an answer came: " + answer);
    sockets_.push_back(c.release());
  }
}
IdleConnections::~IdleConnections() {
  for (const int fd : sockets_) ::close(fd);
}

std::string http_get(const std::string& path) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
}
std::string http_post(const std::string& path, const std::string& body, const std::string& more) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}Content-Length: {}\r\n\r\n{}", path, more,
                     body.size(), body);
}

}  // namespace varscope::bench
