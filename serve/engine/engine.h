#pragma once

#include <cstdint>
#include <memory>

#include "serve/engine/inference.h"
#include "serve/engine/version_keeper.h"

namespace varscope {

struct EngineOptions {
  int threads = 1;
  std::int64_t max_batch = 64;    // rows of one computation of several requests
  std::int64_t max_delay_us = 0;  // how long a computation waits for more rows; 0: takes what waits
  std::int64_t max_queue = 1024;  // requests; more are refused as busy
  std::int64_t max_queue_bytes = std::int64_t{256} << 20;
};

// What has been done, for metrics. Called from compute threads; must not wait.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void on_run(const VersionId& version, std::int64_t n_requests, std::int64_t n_rows,
                      std::int64_t compute_ns) = 0;
  virtual void on_refused(Refusal::Kind kind) = 0;
};

// Requests of many clients into computations of a few threads. What waits is computed together, up to
// max_batch rows of one version, without a change of any bit (Version); a request of more rows is cut into
// pieces between which others get their turn, and is answered by one version. In order of arrival. Requests
// whose deadline has passed, or whose client is gone, are dropped without being computed. Memory is bounded
// by the queue. stop() answers what waits as `stopped`; drain() first waits until nothing is left.
// Borrows keeper and observer. Safe from any thread.
class Engine final : public Inference {
 public:
  Engine(VersionKeeper& versions, const EngineOptions& options, EngineObserver& observer);
  ~Engine() override;

  bool is_ready(std::string* why = nullptr) const override;
  std::optional<ServedModel> model(const std::string& version = {}) const override;
  std::vector<VersionInfo> versions() const override;
  void infer(InferRequest request, std::function<void(InferAnswer)> done) override;
  std::int64_t longest_compute_ns() const override;

  std::int64_t n_waiting() const;
  // Waits until all is answered, for so long; false: something is left.
  bool drain(std::int64_t ms);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscope
