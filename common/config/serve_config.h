#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/config/binder.h"
#include "common/config/config_node.h"

namespace varscope {

// A figure of a checkpoint's METRICS that it must have to be served: serve.require, {metric: loss, max: 0.6}.
struct RequiredMetric {
  std::string metric;
  std::optional<double> least, most;  // at least one of them
  bool operator==(const RequiredMetric&) const = default;
};

// What becomes of the old version while the new one loads.
enum class Swap : std::uint8_t { keep, replace };
inline constexpr Choice<Swap> kSwaps[] = {{Swap::keep, "keep"}, {Swap::replace, "replace"}};

// How `varscope serve` answers; training does not look at it. Options of the command line win over it.
struct ServeConfig {
  std::string listen = "127.0.0.1:8500";
  std::string name;                       // of the model; empty: that of the run's directory
  std::string version = "latest";         // or pinned, or steps: 100,200
  ConfigNode require_node;                // null: nothing is required
  std::optional<RequiredMetric> require;  // what require_node says, once it is read
  std::int64_t threads = 0;               // 0: all cores but one, at least one
  std::int64_t max_batch = 64;            // rows
  std::int64_t max_delay_us = 0;
  std::int64_t max_queue = 1024;  // requests
  bool exact = true;              // a row has the same bits in any batch
  std::int64_t memory_mib = 0;    // 0: no limit
  Swap swap = Swap::keep;         // where there is no room for two versions
  std::int64_t poll_ms = 1000;
  std::int64_t drain_ms = 5000;
  void describe(Keys& keys);
  bool operator==(const ServeConfig&) const = default;
};

// Reads the section `serve` of a job. Throws Error(config) for the first problem, with its place.
ServeConfig read_serve(const ConfigNode& node, const std::string& file);
// The requirement that `require` of a section says; nothing for a null node. Throws Error(config).
std::optional<RequiredMetric> read_required_metric(const ConfigNode& node, const std::string& file);
// The keys of serve.require, for `varscope config --explain`.
std::string explain_required_metric();

}  // namespace varscope
