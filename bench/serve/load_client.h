#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace varscope::bench {

// What a client asks, and how.
struct LoadOptions {
  int port = 0;
  std::string request;  // all bytes of it, header and body
  int connections = 1;  // kept alive
  double seconds = 1;
  // 0: closed loop, each connection asks again when it is answered. Else open loop: so many requests a second
  // are due at even distances, whether or not others are answered; one that finds no free connection waits,
  // and its time counts from when it was due. So a server that stands still cannot hide it.
  double rate = 0;
  // Called once after so many seconds, by the thread that asks: must be quick.
  double event_s = 0;
  std::function<void()> event = {};
};

struct LoadResult {
  struct Answer {
    float due_s = 0;   // since the start
    float took_s = 0;  // from due to the last byte
  };
  std::vector<Answer> answers;     // with status 200, in the order they came in
  std::int64_t n_failed = 0;       // another status, or a connection that broke off
  std::string first_failure = {};  // what came instead
  double seconds = 0;              // from the start to the last answer
  double per_second() const;
  // Share `p` of the answers whose requests were due within [from, to) were faster. 0 without any.
  double quantile_s(double p, double from = 0, double to = 1e9) const;
};

// A client on one thread, over so many connections to 127.0.0.1; each answer is read whole and its status
// looked at. Throws std::runtime_error where nobody listens, or nothing comes for 10 s.
LoadResult put_load(const LoadOptions& options);

// One request, its answer whole. Throws as put_load does.
std::string ask_once(int port, const std::string& request);

// So many connections that each got one answer to `request`, and are idle since. Closed at the end.
class IdleConnections {
 public:
  IdleConnections(int port, const std::string& request, int n);
  ~IdleConnections();
  IdleConnections(const IdleConnections&) = delete;
  IdleConnections& operator=(const IdleConnections&) = delete;

 private:
  std::vector<int> sockets_;
};

std::string http_get(const std::string& path);
// `more`: header lines, each with "\r\n".
std::string http_post(const std::string& path, const std::string& body, const std::string& more = "");

}  // namespace varscope::bench
