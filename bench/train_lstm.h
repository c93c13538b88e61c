#pragma once

#include <string>

namespace varscope::bench {

// Forward and backward of a language model, embedding 10,000 x 200 -> LSTM 200 -> dense 10,000 -> softmax
// cross-entropy, and of its LSTM alone, each beside a loop of the same GEMM calls and nothing else: batch 20,
// 20 steps, float32, one thread, no servers. Prints medians over `trials`; writes them to json_file unless it
// is empty.
void run_lstm(int trials, const std::string& json_file);

}  // namespace varscope::bench
