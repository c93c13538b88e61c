#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "serve/engine/engine.h"
#include "serve/engine/version_keeper.h"

namespace varscope {

// What has happened since the start, for Prometheus' text format, and for a page: requests by API, version
// and code; times in the queue, of computation and in all; rows; the served version, when it was committed
// and loaded. Series of versions that have gone are dropped. Safe from any thread.
class ServeMetrics final : public VersionObserver, public EngineObserver {
 public:
  // `program`: its version. `next`: also hears of versions; may be null.
  explicit ServeMetrics(const std::string& program, VersionObserver* next = nullptr);
  ~ServeMetrics() override;

  // `api`: "v2", "v1". `version`: a step, or "" where none answered.
  void on_request(const std::string& api, const std::string& version, int code, double total_s,
                  double queue_s, double compute_s, std::int64_t n_rows);
  void on_connection_refused(std::uint64_t n_in_all);

  std::string text() const;  // exposition format 0.0.4

  // For people.
  struct Summary {
    std::int64_t n_requests = 0, n_failed = 0, n_rows = 0;
    double seconds = 0;              // since the start
    double median_s = 0, p99_s = 0;  // of the last requests that were answered; 0 without any
  };
  Summary summary() const;

 private:
  void on_published(const VersionInfo& version, std::int64_t load_ns) override;
  void on_dropped(const VersionInfo& version) override;
  void on_passed_over(const VersionInfo& version) override;
  void on_trouble(const std::string& what) override;
  void on_run(const VersionId& version, std::int64_t n_requests, std::int64_t n_rows,
              std::int64_t compute_ns) override;
  void on_refused(Refusal::Kind kind) override;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscope
