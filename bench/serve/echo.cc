#include "bench/serve/echo.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "bench/products.h"
#include "bench/program.h"

namespace varscope::bench {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using Answer = http::response<http::string_body>;

Answer answer_in(const std::string& file) {
  const std::string bytes = text_of_file(file);
  http::response_parser<http::string_body> parser;
  beast::error_code error;
  parser.eager(true);
  std::size_t at = 0;
  while (!error && !parser.is_done() && at < bytes.size())
    at += parser.put(asio::buffer(bytes.data() + at, bytes.size() - at), error);
  if (error || !parser.is_done())
    throw std::runtime_error(fmt::format("{} has no whole HTTP answer: {}", file, error.message()));
  return parser.release();
}

// What is done between a request and its answer. Of one thread.
class Work {
 public:
  explicit Work(const EchoOptions& options) : reads_json_(options.reads_json) {
    set_blas_threads(1);
    if (options.rows > 0) products_.emplace(options.rows, options.widths);
  }
  void run(const std::string& body) {
    if (reads_json_) read(body);
    if (products_) products_->run();
  }

 private:
  void read(const std::string& body) {
    numbers_.clear();
    simdjson::dom::element json;
    if (parser_.parse(body).get(json) != simdjson::SUCCESS) throw std::runtime_error("the body is no JSON");
    for (const simdjson::dom::element input : json["inputs"].get_array()) {
      for (const simdjson::dom::element number : input["data"].get_array())
        numbers_.push_back(static_cast<float>(number.get_double()));
    }
  }
  bool reads_json_;
  std::optional<Products> products_;
  simdjson::dom::parser parser_;
  std::vector<float> numbers_;
};

class EchoSession : public std::enable_shared_from_this<EchoSession> {
 public:
  EchoSession(tcp::socket&& socket, const Answer& answer, Work& work)
      : socket_(std::move(socket)), answer_(answer), work_(work) {
    socket_.set_option(tcp::no_delay(true));
  }
  void read() {
    request_.emplace();
    http::async_read(socket_, buffer_, *request_,
                     [self = shared_from_this()](beast::error_code error, std::size_t) {
                       if (!error) self->write();
                     });
  }

 private:
  void write() {
    work_.run(request_->body());
    sent_.emplace(answer_);
    http::async_write(socket_, *sent_, [self = shared_from_this()](beast::error_code error, std::size_t) {
      if (!error) self->read();
    });
  }
  tcp::socket socket_;
  const Answer& answer_;
  Work& work_;
  beast::flat_buffer buffer_;
  std::optional<http::request<http::string_body>> request_;
  std::optional<Answer> sent_;
};

class EchoServer {
 public:
  explicit EchoServer(const EchoOptions& options) : answer_(answer_in(options.answer)), work_(options) {}
  void run() {
    accept();
    fmt::print("listening on http://127.0.0.1:{}\n", acceptor_.local_endpoint().port());
    std::fflush(stdout);
    io_.run();
  }

 private:
  void accept() {
    acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (!error) std::make_shared<EchoSession>(std::move(socket), answer_, work_)->read();
      accept();
    });
  }
  Answer answer_;
  Work work_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};
};

}  // namespace

int run_echo(const EchoOptions& options) {
  EchoServer(options).run();
  return 0;
}

}  // namespace varscope::bench
