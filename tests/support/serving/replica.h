#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/serving/http_client.h"

namespace varscope::testing {

inline std::string text_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A running server on a port of its own.
class Replica {
 public:
  explicit Replica(const std::string& model, const Args& more = {}, const std::string& listen = "127.0.0.1:0")
      : job(varscope(Args{"serve", model, "--listen", listen, "--name", "m"} + set({"serve.poll_ms=50"}) +
                     more)) {}
  bool wait_until_listening() {
    const std::regex line("listening on http://127.0.0.1:([0-9]+)");
    return job.wait_until(
        [&] {
          std::smatch m;
          const std::string out = job.out();
          if (std::regex_search(out, m, line)) port = std::stoi(m[1]);
          return port > 0;
        },
        30 * kSlowness);
  }
  bool wait_until_ready() {
    if (!wait_until_listening()) return false;
    return job.wait_until(
        [&] { return status_of(HttpClient(port).ask(http_get("/v2/health/ready"))) == 200; }, 30 * kSlowness);
  }
  std::int64_t step() const {
    const std::string body = body_of(HttpClient(port).ask(http_get("/v2/models/m")));
    return nlohmann::json::parse(body)["parameters"]["step"].get<std::int64_t>();
  }
  Job job;
  int port = 0;
};

}  // namespace varscope::testing
