#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/storage/fs.h"
#include "launch/commands/predict.h"
#include "worker/layers/layer.h"

namespace varscope {

struct GenerateOptions {
  std::int64_t n = 0;  // words
  std::string prompt;
  double temperature = 1;
  std::int64_t seed = 1;
};

// `varscope predict --generate`: what a language model says after a prompt, word by word. Each word is
// drawn by softmax(logits / temperature), 0 meaning the likeliest one, and is what the model reads next;
// the draws are a function of the seed and of the number of the word. options.out gets the prompt and the
// words as a line of text or, where it is .csv or .jsonl (or --format says so), a row for each word with
// its probability, as the model has it, and the likeliest words in its place. The file is whole or not
// there. Throws Error(config, checkpoint, io).
void generate(const PredictOptions& options, const GenerateOptions& how, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
