#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "serve/engine/servable.h"
#include "worker/layers/layer.h"

namespace varscope {

// How the checkpoints that are served become models in memory: by what each says of its model
// (launch/job/saved_model.h), or by a config. Values are read once, rows of tables all of them, slots
// not. Borrows the file system and the layers. `config`: "" or the YAML file for checkpoints that do not
// say what they are of, whose data are read then; `overrides` are of it (--set). The function throws
// Error(checkpoint) also for a model of another kind than those that answer rows.
LoadServable servable_loader(Fs& fs, const std::string& config, const LayerRegistry& layers,
                             const std::vector<std::string>& overrides = {});

}  // namespace varscope
