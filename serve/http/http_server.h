#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace varscope {

struct HttpRequest {
  std::string method;                          // "GET"
  std::string path;                            // of the target, without a query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  // Whether the client has closed the connection meanwhile. From any thread, until the answer is given.
  std::function<bool()> is_abandoned;
  const std::string* header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? nullptr : &found->second;
  }
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// {"error": text} with this status.
HttpResponse error_response(int status, const std::string& text);

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8500;  // 0: one that is free
  std::size_t most_body = std::size_t{64} << 20, most_header = std::size_t{16} << 10;
  // Of all bodies together that are being read, but for those that are small: more are refused as busy.
  std::size_t most_bodies = std::size_t{512} << 20, small_body = std::size_t{64} << 10;
  std::size_t most_connections = 1024;
  std::chrono::milliseconds header_time{10'000}, body_time{30'000}, idle_time{75'000};
};
// "127.0.0.1:8500", "[::1]:8500", ":8500" (all interfaces). `key`: who says it, for messages. Throws
// Error(config).
HttpOptions parse_address(const std::string& text, const std::string& key = "--listen");

// HTTP/1.1 over TCP: one thread, plain completion handlers. What a client may take of memory and time is
// limited: a body or header that is too long is refused before it is read (413, 431), what does not come in
// time with 408, connections and bodies beyond the most with 503; who does not take an answer in time is cut
// off. Headers that proxies may read in another way than this (two lengths, a length and chunks, no Host) are
// refused, so that nobody smuggles a request past them. Requests of a connection are answered in their order.
// TLS and log-in are a proxy's job.
class HttpServer final {
 public:
  using Reply = std::function<void(HttpResponse)>;
  // Called on the server's thread; `reply` once, from any thread. Must not throw, and not wait.
  using Handler = std::function<void(HttpRequest, Reply)>;

  // Listens from here on. Throws Error(io) for an address that is in use or not ours, with what to do.
  HttpServer(const HttpOptions& options, Handler handler);
  ~HttpServer();

  int port() const;
  std::string address() const;  // "127.0.0.1:8500"
  // Whether others than this host can reach it.
  bool is_open_to_network() const;
  std::size_t n_connections() const;
  std::uint64_t n_refused() const;  // connections beyond the most

  // From now on answers end their connection. Still accepts.
  void close_after_answers();
  // Accepts no more; then waits until all that has been asked is answered, for so long at most. Idle
  // connections are closed. False: something was left. All replies must have been given, or never be, when
  // this has returned.
  bool finish(std::chrono::milliseconds most);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscope
