#pragma once

#include <string>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"
#include "launch/job/saved_model.h"
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
  std::vector<std::string> fetch;    // nodes of the graph, or layers, whose values are written too
  bool gradients = false;            // of the answers by the inputs
};

// What a checkpoint is of: what it says itself, or where a config is named that and its data. Throws
// Error(checkpoint) for one that does not say it, without a config.
SavedModel model_of(const PredictOptions& options, const std::string& path, const Manifest& manifest);

// Writes a row for each row of the input file, in its order, in constant memory; the bits of a row do not
// depend on the others (worker/train/predictor.h). The file is whole or not there. Where the input has the
// label column, the metrics follow on standard output, those that eval prints. Throws Error(config, data,
// checkpoint, io).
void predict(const PredictOptions& options, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
