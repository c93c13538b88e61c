#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/storage/fs.h"
#include "worker/layers/layer.h"

namespace varscope {

struct ServeOptions {
  std::string model;   // a run's directory, a directory of checkpoints, or a checkpoint
  std::string config;  // for checkpoints that do not say what they are of
  std::string listen = "127.0.0.1:8500";
  std::string name;  // of the model; empty: that of the run's directory
  std::string version = "latest";
  std::string require;       // METRIC<=NUMBER; empty: nothing
  std::int64_t threads = 0;  // 0: all cores but one, at least one
  std::int64_t max_batch = 64, max_delay_us = 0, max_queue = 1024;
  std::int64_t memory_mib = 0;  // 0: no limit
  std::int64_t poll_ms = 1000, drain_ms = 5000;
  bool is_exact = true;  // a row has the same bits in any batch
  bool replaces = false, no_wait = false;
};

// `varscope serve`: answers requests over HTTP (serve/http/service.h) by the newest checkpoint of a
// directory, and by each newer one from the moment it is committed; until SIGTERM or SIGINT. Then it is not
// ready any more, answers for drain_ms what comes, and ends with 0 when all is answered; a second signal ends
// it at once. Returns the exit code. Throws Error(config, checkpoint, io).
int serve(const ServeOptions& options, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
