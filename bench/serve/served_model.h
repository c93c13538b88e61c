#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/program.h"

namespace varscope::bench {

// What all targets are measured with.
struct ServeBenchOptions {
  int trials = 5;         // takes of each figure
  double seconds = 1;     // of a take
  bool is_small = false;  // the smallest sizes: does it run at all?
  std::string program;    // varscope
  std::string python = "python3";
  std::string peers;  // serve_peers.py
};

// Widths of the perceptron that answers: of images of 28 x 28, ten classes.
inline const std::vector<std::int64_t> kWidths{784, 256, 128, 10};

// Trains a perceptron of these hidden widths for so many steps on images that are drawn, and keeps a
// checkpoint of each `every` steps. Gives the directory of its checkpoints, which lies in `dir`.
// Throws std::runtime_error.
std::string train_perceptron(const ServeBenchOptions& options, const std::string& dir,
                             const std::vector<std::int64_t>& hidden, int steps, int every);

// One row as the Open Inference Protocol has it, all bytes of the request: with binary data both
// ways, or JSON.
std::string binary_request();
std::string json_request();

}  // namespace varscope::bench
