#include "serve/http/http_server.h"

#include <sys/socket.h>

#include <atomic>
#include <cctype>
#include <future>
#include <optional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "common/base/error.h"

namespace varscope {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

HttpOptions parse_address(const std::string& text, const std::string& key) {
  HttpOptions options;
  const std::size_t at = text.rfind(':');
  const std::string port = at == std::string::npos ? text : text.substr(at + 1);
  const bool is_number =
      !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  options.port = is_number ? std::stoi(port) : -1;
  if (at != std::string::npos) {
    std::string host = text.substr(0, at);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    options.host = host.empty() ? "0.0.0.0" : host == "localhost" ? "127.0.0.1" : host;
  }
  boost::system::error_code bad;
  asio::ip::make_address(options.host, bad);
  if (bad || options.port < 0 || options.port > 65535)
    fail(ErrorKind::config, "{} {}: expected ADDRESS:PORT, such as 127.0.0.1:8500", key, text);
  return options;
}

namespace {

class Session;

constexpr std::size_t kMostRefusing = 64;  // connections at once that are told that there are too many

// What sessions and the server share. The set is of the server's thread.
struct Shared {
  HttpOptions options;
  HttpServer::Handler handler;
  std::set<std::shared_ptr<Session>> sessions;
  std::size_t n_refusing = 0;    // connections that are being told that there are too many
  std::size_t n_body_bytes = 0;  // charged for bodies that are being read
  std::atomic<std::size_t> n_connections{0};
  std::atomic<std::uint64_t> n_refused{0};
  std::atomic<bool> closes{false};    // after answers
  std::atomic<bool> finishes{false};  // idle connections are closed
};

// Why a request is refused by its header; nothing for a good one. What Beast's parser lets pass, and others
// read in another way.
std::optional<HttpResponse> refusal_of(const http::request<http::string_body>& request, bool is_chunked) {
  using http::field;
  const auto bad = [](const char* why) {
    return error_response(400, std::string("this is no HTTP/1.1 request: ") + why);
  };
  const std::size_t n_codings = request.count(field::transfer_encoding);
  if (request.count(field::content_length) + n_codings > 1)
    return bad("it says more than once how long its body is");
  const auto length = request[field::content_length];
  if (length.find_first_not_of("0123456789") != length.npos)  // a list of equal ones
    return bad("its Content-Length is no number");
  if (n_codings > 0 && request.version() < 11) return bad("HTTP/1.0 has no Transfer-Encoding");
  if (n_codings > 0 && (!is_chunked || !beast::iequals(request[field::transfer_encoding], "chunked")))
    return error_response(501,
                          fmt::format("Transfer-Encoding {} is not known: send chunks, or a Content-Length",
                                      std::string(request[field::transfer_encoding])));
  if (request.version() >= 11 && request.count(field::host) != 1) return bad("it needs one Host");
  const auto encoding = request[field::content_encoding];
  if (!encoding.empty() && !beast::iequals(encoding, "identity"))
    return error_response(
        415, fmt::format("Content-Encoding {} is not known: send the body as it is", std::string(encoding)));
  return std::nullopt;
}

// One connection, on the server's thread.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket&& socket, Shared& shared)
      : socket_(std::move(socket)), timer_(socket_.get_executor()), shared_(shared) {
    beast::error_code ignored;
    std::ignore = socket_.set_option(tcp::no_delay(true), ignored);
  }
  void start() { wait_for_request(shared_.options.header_time); }
  // One connection more than there may be.
  void refuse() {
    is_refused_ = true;
    ++shared_.n_refusing;
    HttpResponse response = error_response(503, "there are too many connections; try again");
    response.headers.emplace_back("Retry-After", "1");
    answer_and_close(std::move(response));
  }
  void close_if_idle() {
    if (is_idle_) close();
  }

 private:
  using Error = beast::error_code;

  using Time = asio::steady_timer::time_point;

  // What is under way ends with operation_aborted, and is_late_, after so long. A request has four limits,
  // which hardly ever run out: the timer is left to ring at an earlier one, and looks then how it stands.
  void limit(std::chrono::milliseconds time) {
    is_late_ = false;
    deadline_ = asio::steady_timer::clock_type::now() + time;
    if (rings_at_ > deadline_) ring_in(time);
  }
  void no_limit() { deadline_ = Time::max(); }
  void ring_in(asio::steady_timer::duration time) {
    const auto until = std::min<asio::steady_timer::duration>(time, shared_.options.header_time);
    rings_at_ = asio::steady_timer::clock_type::now() + until;
    timer_.expires_at(rings_at_);
    timer_.async_wait([weak = weak_from_this()](Error error) {
      const auto self = weak.lock();
      if (!error && self) self->on_ring();
    });
  }
  void on_ring() {
    rings_at_ = Time::max();
    if (deadline_ == Time::max()) return;
    const auto left = deadline_ - asio::steady_timer::clock_type::now();
    if (left > left.zero()) return ring_in(left);
    if (is_late_) return close();
    is_late_ = true;
    Error ignored;
    std::ignore = socket_.cancel(ignored);
    // Where nothing was under way, for want of memory, nobody hears of that: the connection ends later.
    deadline_ = asio::steady_timer::clock_type::now() + std::chrono::milliseconds(5000);
    ring_in(std::chrono::milliseconds(5000));
  }

  // The first byte may take as long as a connection may be idle; from then on the header has its own time.
  void wait_for_request(std::chrono::milliseconds time) {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(shared_.options.most_header));
    parser_->body_limit(shared_.options.most_body);
    if (buffer_.size() > 0) return read_header();
    if (shared_.finishes) return close();
    is_idle_ = true;
    limit(time);
    socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](Error error) {
      self->is_idle_ = false;
      if (error) return self->close();
      self->read_header();
    });
  }
  void read_header() {
    limit(shared_.options.header_time);
    http::async_read_header(
        socket_, buffer_, *parser_, [self = shared_from_this()](Error error, std::size_t) {
          if (error) return self->on_read_error(error, "header", self->shared_.options.header_time);
          self->on_header();
        });
  }

  void on_header() {
    const auto& request = parser_->get();
    keep_alive_ = request.keep_alive();
    version_ = request.version();
    is_head_ = request.method() == http::verb::head;
    const auto length = parser_->content_length();
    if (length && *length > shared_.options.most_body) return answer_and_close(too_large());
    if (auto refusal = refusal_of(request, parser_->chunked())) return answer_and_close(std::move(*refusal));
    if (length && !charge(static_cast<std::size_t>(*length))) return answer_and_close(too_many_bytes());
    limit(shared_.options.body_time);
    if (!beast::iequals(request[http::field::expect], "100-continue")) return read_body();
    continue_.emplace(http::status::continue_, version_);
    http::async_write(socket_, *continue_, [self = shared_from_this()](Error error, std::size_t) {
      if (error) return self->close();
      self->read_body();
    });
  }
  void read_body() {
    // Often all of it has come with the header, or there is none.
    Error error;
    parser_->eager(true);
    while (!parser_->is_done() && buffer_.size() > 0) {
      const std::size_t n = parser_->put(buffer_.data(), error);
      buffer_.consume(n);
      if (error == http::error::need_more || (!error && n == 0)) break;
      if (error) return on_read_error(error, "body", shared_.options.body_time);
    }
    if (!charge(parser_->get().body().size())) return answer_and_close(too_many_bytes());
    if (parser_->is_done()) return handle();
    // One part of a chunked body after the other: eager, it would be read to its end at once.
    parser_->eager(false);
    http::async_read_some(socket_, buffer_, *parser_, [self = shared_from_this()](Error error, std::size_t) {
      if (error) return self->on_read_error(error, "body", self->shared_.options.body_time);
      if (!self->charge(self->parser_->get().body().size()))
        return self->answer_and_close(self->too_many_bytes());
      self->read_body();
    });
  }
  // Counts the bytes of this body, n by now, among those of all. False: they are too many.
  bool charge(std::size_t n) {
    if (n <= shared_.options.small_body || n <= n_charged_) return true;
    if (shared_.n_body_bytes - n_charged_ + n > shared_.options.most_bodies) return false;
    shared_.n_body_bytes += n - n_charged_;
    n_charged_ = n;
    return true;
  }
  void end_charge() { shared_.n_body_bytes -= std::exchange(n_charged_, 0); }

  void handle() {
    no_limit();
    auto request = parser_->release();
    HttpRequest r;
    r.method = std::string(request.method_string());
    const std::string target(request.target());
    r.path = target.substr(0, target.find('?'));
    for (const auto& field : request) {
      std::string name(field.name_string());
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      r.headers.emplace(std::move(name), std::string(field.value()));
    }
    r.body = std::move(request.body());
    // The socket stays open until there is an answer.
    r.is_abandoned = [self = shared_from_this(), fd = socket_.native_handle()] {
      char byte = 0;
      return ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    };
    shared_.handler(std::move(r), [self = shared_from_this()](HttpResponse response) {
      // At once where the handler has answered on this thread.
      asio::dispatch(self->socket_.get_executor(),
                     [self, response = std::move(response)]() mutable { self->write(std::move(response)); });
    });
    end_charge();  // from here on it is the handler's
  }

  HttpResponse too_large() const {
    return error_response(413, fmt::format("the body is larger than {} bytes", shared_.options.most_body));
  }
  static HttpResponse too_many_bytes() {
    HttpResponse response = error_response(503, "there are too many large requests; try again");
    response.headers.emplace_back("Retry-After", "1");
    return response;
  }
  void on_read_error(Error error, const char* what, std::chrono::milliseconds time) {
    if (is_late_)
      return answer_and_close(
          error_response(408, fmt::format("the {} did not come within {} s", what, time.count() / 1000)));
    if (error == http::error::body_limit) return answer_and_close(too_large());
    if (error == http::error::header_limit)
      return answer_and_close(error_response(
          431, fmt::format("the header is larger than {} bytes", shared_.options.most_header)));
    const bool is_cut = error == http::error::end_of_stream || error == http::error::partial_message;
    if (error.category() == make_error_code(http::error::bad_version).category() && !is_cut)
      return answer_and_close(error_response(400, "this is no HTTP/1.1 request: " + error.message()));
    close();
  }

  // A client that still sends would lose the answer if the socket were closed with bytes unread: it is told
  // that no more comes, and what it sends is read for a moment.
  void answer_and_close(HttpResponse response) {
    keep_alive_ = false;
    is_unread_ = true;
    parser_.reset();
    end_charge();
    write(std::move(response));
  }
  void write(HttpResponse response) {
    const bool closes = shared_.closes || !keep_alive_;
    response_.emplace(static_cast<http::status>(response.status), version_);
    response_->set(http::field::content_type, response.type);
    response_->set(http::field::cache_control, "no-store");
    for (const auto& [name, value] : response.headers) response_->set(name, value);
    response_->keep_alive(!closes);
    const std::size_t n = response.body.size();
    if (!is_head_) response_->body() = std::move(response.body);
    response_->prepare_payload();
    if (is_head_) response_->content_length(n);
    limit(shared_.options.body_time);
    http::async_write(socket_, *response_, [self = shared_from_this(), closes](Error error, std::size_t) {
      if (error) return self->close();
      if (!closes) return self->wait_for_request(self->shared_.options.idle_time);
      self->is_unread_ ? self->linger() : self->close();
    });
  }
  void linger() {
    Error ignored;
    std::ignore = socket_.shutdown(tcp::socket::shutdown_send, ignored);
    limit(std::chrono::milliseconds(500));
    skip();
  }
  void skip() {
    buffer_.clear();
    socket_.async_read_some(
        buffer_.prepare(std::size_t{64} << 10),
        [self = shared_from_this()](Error error, std::size_t) { error ? self->close() : self->skip(); });
  }
  void close() {
    no_limit();
    end_charge();
    if (std::exchange(is_refused_, false)) --shared_.n_refusing;
    Error ignored;
    std::ignore = socket_.shutdown(tcp::socket::shutdown_both, ignored);
    std::ignore = socket_.close(ignored);
    shared_.sessions.erase(shared_from_this());
    shared_.n_connections = shared_.sessions.size();
  }

  tcp::socket socket_;
  asio::steady_timer timer_;
  Shared& shared_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response<http::empty_body>> continue_;
  unsigned version_ = 11;
  Time deadline_ = Time::max(), rings_at_ = Time::max();  // max: there is none
  bool keep_alive_ = true, is_idle_ = false, is_head_ = false, is_late_ = false, is_unread_ = false,
       is_refused_ = false;
  std::size_t n_charged_ = 0;
};

}  // namespace

struct HttpServer::Impl {
  Impl(const HttpOptions& options, Handler handler) {
    shared.options = options;
    shared.handler = std::move(handler);
    const tcp::endpoint endpoint(asio::ip::make_address(options.host),
                                 static_cast<unsigned short>(options.port));
    boost::system::error_code error;
    // Each returns what it puts into `error`.
    if (acceptor.open(endpoint.protocol(), error) ||
        acceptor.set_option(tcp::acceptor::reuse_address(true), error) || acceptor.bind(endpoint, error) ||
        acceptor.listen(1024, error)) {
      fail(ErrorKind::io, "cannot listen on {}:{}: {}; {}", options.host, options.port, error.message(),
           error == asio::error::address_in_use
               ? "another program does: end it, or choose another port with --listen ADDRESS:PORT"
               : "choose another address with --listen ADDRESS:PORT");
    }
    local = acceptor.local_endpoint();
    accept();
    thread = std::thread([this] { run(); });
  }
  // Without memory for a request the others go on; its connection ends when its time is over.
  void run() {
    while (true) {
      try {
        io.run();
        return;
      } catch (const std::bad_alloc&) {
        continue;
      }
    }
  }
  void accept() {
    acceptor.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (!acceptor.is_open()) return;
      if (!error) {
        begin(std::move(socket));
        return accept();
      }
      // Too many open files, say: the next ones wait until some are closed.
      retry.expires_after(std::chrono::milliseconds(50));
      retry.async_wait([this](beast::error_code stopped) {
        if (!stopped) accept();
      });
    });
  }
  void begin(tcp::socket&& socket) {
    const bool is_full = shared.sessions.size() >= shared.options.most_connections;
    auto session = std::make_shared<Session>(std::move(socket), shared);
    if (is_full) {
      ++shared.n_refused;
      if (shared.n_refusing >= kMostRefusing) return;  // closed, without a word
      return session->refuse();
    }
    shared.sessions.insert(session);
    shared.n_connections = shared.sessions.size();
    session->start();
  }
  // On the server's thread.
  void stop_accepting() {
    beast::error_code ignored;
    std::ignore = acceptor.close(ignored);
    retry.cancel();
    const auto all = shared.sessions;
    for (const auto& session : all) session->close_if_idle();
  }

  Shared shared;  // outlives what `io` holds
  asio::io_context io{1};
  // Also while all that there is waits for replies.
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  tcp::acceptor acceptor{io};
  asio::steady_timer retry{io};
  tcp::endpoint local;
  std::thread thread;
  bool is_finished = false;
};

HttpServer::HttpServer(const HttpOptions& options, Handler handler)
    : impl_(std::make_unique<Impl>(options, std::move(handler))) {}

HttpServer::~HttpServer() { finish(std::chrono::milliseconds(0)); }

int HttpServer::port() const { return impl_->local.port(); }

std::string HttpServer::address() const {
  const auto address = impl_->local.address();
  return address.is_v6() ? fmt::format("[{}]:{}", address.to_string(), port())
                         : fmt::format("{}:{}", address.to_string(), port());
}

bool HttpServer::is_open_to_network() const { return !impl_->local.address().is_loopback(); }
std::size_t HttpServer::n_connections() const { return impl_->shared.n_connections; }
std::uint64_t HttpServer::n_refused() const { return impl_->shared.n_refused; }
void HttpServer::close_after_answers() { impl_->shared.closes = true; }

bool HttpServer::finish(std::chrono::milliseconds most) {
  Impl& s = *impl_;
  if (std::exchange(s.is_finished, true)) return true;
  s.shared.closes = true;
  s.shared.finishes = true;
  std::promise<void> done;
  asio::post(s.io, [&] {
    s.stop_accepting();
    done.set_value();
  });
  done.get_future().wait();
  const auto until = std::chrono::steady_clock::now() + most;
  while (n_connections() > 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const bool is_empty = n_connections() == 0;
  s.io.stop();
  s.thread.join();
  s.shared.sessions.clear();
  return is_empty;
}

}  // namespace varscope
