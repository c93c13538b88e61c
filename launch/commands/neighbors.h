#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "worker/layers/layer.h"

namespace varscope {

struct NeighborsOptions {
  std::string model;  // a run's directory, a directory of checkpoints, or a checkpoint
  std::vector<std::string> words;
  std::int64_t top = 10;  // neighbors of each
  std::string variable;   // the embedding; empty: the one that words go into
  bool json = false;
};

// `varscope neighbors`: for each word the words whose rows of an embedding point the same way, by the cosine
// of the angle between them, the nearest first; of equal ones the smaller id. The checkpoint says the model
// and its words, so neither config nor data are needed. The embedding is a table or a dense variable; each
// part of a table is read once, and memory holds the parts of the words that were asked for, and one more.
// Rows of zeros, or with NaN or infinity, have no direction, and are nobody's neighbors. Prints to standard
// output. Throws Error(config, checkpoint, io).
void neighbors(const NeighborsOptions& options, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
