// The keys of a job's section `serve`.
#include "common/config/serve_config.h"

#include <fmt/format.h>

#include <limits>

namespace varscope {

namespace {

struct RequireKeys {
  std::string metric;
  double max = std::numeric_limits<double>::infinity(), min = -max;
  void describe(Keys& keys) {
    keys.required_key("metric", metric,
                      "a figure of the checkpoint's METRICS: loss, accuracy, ...; those of its evaluation");
    keys.key("max", max, "the checkpoint is served if the figure is at most this", {.type_name = "a number"});
    keys.key("min", min, "the checkpoint is served if the figure is at least this",
             {.type_name = "a number"});
  }
};

}  // namespace

void ServeConfig::describe(Keys& keys) {
  keys.key("listen", listen,
           "where: ADDRESS:PORT; port 0 is a free one. Other addresses than 127.0.0.1 and "
           "::1 are open to the network",
           {.not_empty = true});
  keys.key("name", name, "of the model, in addresses; empty means that of the run's directory");
  keys.key("version", version, "which checkpoints: latest, pinned, or steps: 100,200", {.not_empty = true});
  keys.key("require", require_node,
           "serve only checkpoints whose METRICS are so good, as a map: {metric: loss, max: 0.6}",
           {.type_name = "a map with metric, and max or min"});
  keys.key("threads", threads, "threads that compute; 0 means all cores but one",
           {.unit = "threads", .min = 0, .max = 1024});
  keys.key("max_batch", max_batch, "rows that are computed together",
           {.unit = "rows", .min = 1, .max = 1 << 20});
  keys.key("max_delay_us", max_delay_us, "how long a computation waits for more rows; 0: it takes what waits",
           {.unit = "microseconds", .min = 0, .max = 10'000'000});
  keys.key("max_queue", max_queue, "requests that may wait; more get 503",
           {.unit = "requests", .min = 1, .max = 1 << 20});
  keys.key(
      "exact", exact,
      "a row has the same bits in any batch; false: rows that are computed together go through one product, "
      "which is faster, and last bits vary");
  keys.key("memory_mib", memory_mib, "the most memory for values of all versions; 0 or off means no limit",
           {.unit = "MiB", .min = 1, .max = 1 << 30, .may_be_off = true});
  keys.choice("swap", swap, kSwaps,
              "without room for two versions: keep the old one, or replace it: it goes before the new one "
              "loads, and nothing is served meanwhile");
  keys.key("poll_ms", poll_ms, "how often to look for new checkpoints",
           {.unit = "milliseconds", .min = 10, .max = 3'600'000});
  keys.key("drain_ms", drain_ms, "how long to answer on after SIGTERM",
           {.unit = "milliseconds", .min = 0, .max = 3'600'000});
}

std::optional<RequiredMetric> read_required_metric(const ConfigNode& node, const std::string& file) {
  if (node.is_null()) return std::nullopt;
  const std::string path = "serve.require";
  if (!node.is_map())
    fail_at(node, file, path,
            fmt::format("expected a map ({{metric: loss, max: 0.6}}), got {}", node.describe()));
  const auto keys = bind_keys<RequireKeys>(node, file, path);
  RequiredMetric required{.metric = keys.metric, .least = {}, .most = {}};
  if (node.find("max") != nullptr) required.most = keys.max;
  if (node.find("min") != nullptr) required.least = keys.min;
  if (!required.most && !required.least)
    fail_at(node, file, path, "has no bound: add max or min, as in {metric: loss, max: 0.6}");
  return required;
}

ServeConfig read_serve(const ConfigNode& node, const std::string& file) {
  auto serve = bind_keys<ServeConfig>(node, file, "serve");
  serve.require = read_required_metric(serve.require_node, file);
  return serve;
}

std::string explain_required_metric() { return explain_keys<RequireKeys>("serve.require"); }

}  // namespace varscope
