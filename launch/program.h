#pragma once

#include "checkpoint/storage/fs.h"
#include "worker/layers/layer.h"

namespace varscope {

// All of the program `varscope`: commands, messages, exit codes. A program with layers of its own is
//
//   int main(int argc, char** argv) {
//     auto layers = varscope::LayerRegistry::built_in();
//     layers.add({"my_layer", "what it does", build_my_layer, describe_my_layer});
//     return varscope::run_program(argc, argv, layers);
//   }
//
// Returns the process's exit code (docs/failures.md). Call it once, from main.
int run_program(int argc, char** argv, const LayerRegistry& layers);
// `train` reads and writes its checkpoints through `fs`, from several threads at once, and `ingest` its
// directory; the other commands use the real file system.
int run_program(int argc, char** argv, const LayerRegistry& layers, Fs& fs);
// With the built-in layers.
int run_program(int argc, char** argv);

}  // namespace varscope
