#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace varscope::bench {

// What bounds a server of predictions: HTTP by the same library, on one thread, that answers each request
// with the same bytes, and nothing around the work below.
struct EchoOptions {
  std::string answer;                     // a file with all bytes of the answer, header and body
  std::int64_t rows = 0;                  // of the products; 0: none are computed
  std::vector<std::int64_t> widths = {};  // of the perceptron
  bool reads_json = false;                // the body is parsed, and its numbers converted to floats
};

// Says "listening on http://127.0.0.1:PORT" and answers until it is killed.
int run_echo(const EchoOptions& options);

}  // namespace varscope::bench
