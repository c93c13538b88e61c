#pragma once

#include <cstdint>
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
  // "latest", "pinned", "100,200". `key`: who says it, for messages. Throws Error(config).
  static VersionPolicy parse(const std::string& text, const std::string& key = "--version-policy");
};

// A checkpoint is served only if this figure of its METRICS is within its bounds.
struct VersionGate {
  std::string metric;  // "loss", "accuracy", ...
  std::optional<double> least, most;
  // "loss<=0.6", "accuracy>=0.9". Throws Error(config).
  static VersionGate parse(const std::string& text);
  // "" or why it may not be served.
  std::string problem(const std::vector<std::pair<std::string, double>>& metrics) const;
};

// What happens to versions, for the log and for metrics. Called by whoever calls poll().
class VersionObserver {
 public:
  virtual ~VersionObserver() = default;
  virtual void on_published(const VersionInfo& version, std::int64_t load_ns) = 0;
  virtual void on_dropped(const VersionInfo& version) = 0;
  // Once for each manifest and reason: damaged, of another model, not good enough, too large.
  virtual void on_passed_over(const VersionInfo& version) = 0;
  // Once each time that it begins: the directory cannot be read. What is served is served on.
  virtual void on_trouble(const std::string& what) = 0;
};

struct KeeperOptions {
  VersionPolicy policy;
  std::optional<VersionGate> gate;
  std::int64_t memory_limit = 0;  // bytes of values of all versions together; 0: none
  // Unset: a row has the same bits in any batch. Else last bits may vary, and this is the most rows of a run.
  std::optional<std::int64_t> inexact_rows;
  bool replaces = false;  // where two are too large, the old one goes first, and nothing is served meanwhile
};

// Follows a run's directory, a directory of checkpoints, or one checkpoint: finds committed ones alone, loads
// each new version while the old one answers, runs it once, and then publishes it for all requests that come
// from then on. A version that is damaged, of another model or kept out by the gate is passed over, and told
// of once; an older one that is newer than what is served, or the only one, is taken. A checkpoint with
// another id under the same step is another version; one that a rollback has made the newest is served. The
// directory may vanish, or be removed by retention in the middle of a load: what is in memory is served on.
// METRICS may come behind the commit: what waits for them is looked at again. Nothing is ever written, no
// lock is taken.
//
// poll() is for one thread; the others are for any.
class VersionKeeper {
 public:
  // Borrows the file system and the observer.
  VersionKeeper(Fs& fs, std::string path, KeeperOptions options, LoadServable load,
                VersionObserver& observer);
  ~VersionKeeper();

  // One look at the directory, with all that follows from it. Does not throw: what is wrong is told to the
  // observer, or is what is waited for.
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
