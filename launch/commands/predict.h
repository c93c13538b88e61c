#pragma once

#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "worker/layers/layer.h"

namespace varscope {

struct PredictOptions {
  std::string model;                   // a run's directory, a directory of checkpoints, or a checkpoint
  std::string config;                  // for checkpoints that do not say what they are of
  std::vector<std::string> overrides;  // of the config
  std::string in;
  std::string out = "-";             // "-" is standard output
  std::string format;                // csv, jsonl, npy or npz; empty: by the ending of `out`
  std::vector<std::string> outputs;  // logits, probabilities, classes, values; empty: what fits the model
  std::vector<std::string> keep;     // columns that are copied
};

// Writes a row for each row of the input file, in its order, in constant memory; the bits of a row do not
// depend on the others (worker/train/predictor.h). The file is whole or not there. Where the input has the
// label column, the metrics follow on standard output, those that eval prints. Throws Error(config, data,
// checkpoint, io).
void predict(const PredictOptions& options, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
