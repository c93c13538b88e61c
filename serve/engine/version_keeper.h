#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "serve/engine/version.h"

namespace varscope {

// Which of a directory's checkpoints are served.
struct VersionPolicy {
  enum class Kind : std::uint8_t { latest, pinned, steps };
  Kind kind = Kind::latest;
  std::vector<std::int64_t> steps = {};  // all of these; the highest answers requests that name none
  // "latest", "pinned", "100,200". Throws Error(config).
  static VersionPolicy parse(const std::string& text);
};

// A checkpoint is served only if a metric of its evaluation is within this (serve.require).
struct VersionGate {
  std::string metric;  // "loss", "accuracy", ...
  std::optional<double> max, min;
};

struct KeeperOptions {
  VersionPolicy policy;
  std::optional<VersionGate> gate;
  std::int64_t poll_ms = 1000;
  std::int64_t memory_limit =
      0;                  // bytes of values; 0: none. Too small for two: the old one stays, or goes first
  bool replaces = false;  // serve.swap: replace: the old version goes before the new one is loaded
  Version::Options version;
};

// What happens to versions, for the log and for metrics. Called from the loader's thread.
class VersionObserver {
 public:
  virtual ~VersionObserver() = default;
  virtual void on_published(const VersionInfo& version, std::int64_t load_ns, std::int64_t warm_up_ns) = 0;
  virtual void on_dropped(const VersionInfo& version) = 0;
  // Once for each manifest: damaged, of another model, gated, too large.
  virtual void on_passed_over(const VersionInfo& version, const std::string& why) = 0;
};

// Follows a run's directory, a directory of checkpoints, or one checkpoint: only committed ones; loads each
// new version on a thread of its own, of low priority, while the old one answers; warms it up; publishes it at
// once for all requests that come from then on. A version that is damaged, foreign or gated is passed over,
// and told of once for its manifest; at the start, and there only, the next older one is taken instead. A
// checkpoint whose manifest says another id under the same step is another version; one that a rollback has
// made the newest is served. The directory may vanish or be read-only: what is in memory is served on.
// Nothing is ever written, no lock is taken. METRICS may come behind the commit: a version that waits for them
// is looked at again.
class VersionKeeper {
 public:
  using Clock = std::function<std::int64_t()>;
  // Borrows the file system and the observer.
  VersionKeeper(Fs& fs, std::string path, KeeperOptions options, VersionObserver& observer);
  ~VersionKeeper();  // stops

  void start();
  void stop();
  // One look at the directory, with all that follows from it, in the caller's thread: what the loader does
  // each poll_ms. For tests, and before start(). Does not throw.
  void poll();

  // Of a step's name; empty: the one that answers requests that name none. Null: none such.
  std::shared_ptr<const Version> find(const std::string& name = {}) const;
  std::vector<VersionInfo> versions() const;  // as Inference::versions()
  std::string waits_for() const;              // while there is none

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace varscope
