#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/config/serve_config.h"
#include "serve/engine/version_keeper.h"
#include "serve/http/http_server.h"
#include "worker/layers/layer.h"

namespace varscope {

// What the command line says. What it leaves out is the config's, in its section `serve`, or a default.
struct ServeOptions {
  std::string model;   // a run's directory, a directory of checkpoints, a checkpoint, or a YAML file
  std::string config;  // for checkpoints that do not say what they are of
  std::vector<std::string> overrides;  // --set
  std::optional<std::string> listen, name, version, require;
  std::optional<std::int64_t> threads, max_batch, max_delay_us, max_queue, memory_mib, poll_ms, drain_ms;
  std::optional<bool> exact;  // a row has the same bits in any batch
  bool replaces = false, no_wait = false;
};

// What both come to.
struct ServeSettings {
  std::string model;   // where the checkpoints are
  std::string config;  // of checkpoints that do not say what they are of; empty: none
  ServeConfig serve;   // with the options in it
  HttpOptions http;    // as serve.listen and serve.version have them
  VersionPolicy policy;
  std::optional<VersionGate> gate;
};
// The file is the second argument, or the first where that is a YAML file: then what is served are the
// checkpoints of its job. Without a file --set has keys of `serve` alone. Throws Error(config) with the
// option or the key for what is wrong.
ServeSettings serve_settings(const ServeOptions& options, Fs& fs);

// `varscope serve`: answers requests over HTTP (serve/http/service.h) by the newest checkpoint of a
// directory, and by each newer one from the moment it is committed; until SIGTERM or SIGINT. Then it is not
// ready any more, answers for drain_ms what comes, and ends with 0 when all is answered; a second signal ends
// it at once. Returns the exit code. Throws Error(config, checkpoint, io).
int serve(const ServeOptions& options, const LayerRegistry& layers, Fs& fs);

}  // namespace varscope
