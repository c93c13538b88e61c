#pragma once

#include <cstdint>
#include <optional>

#include "common/config/step_rule.h"
#include "common/transport/staleness_report.h"

namespace varscope {

// Counts, on one server, how stale reads and pushes are and what answers wait for (StalenessReport). The
// caller says what happens. One thread.
class StalenessWatch {
 public:
  // Of one answer, from its push or pull to the answer's header. A value type.
  struct Timer {
    std::optional<std::int64_t> announced_ns;
    std::optional<std::int64_t> gate_since_ns;  // it waits at the gate
    std::int64_t gated_ns = 0;
    std::optional<std::int64_t> untaken_since_ns;  // its worker has not taken earlier answers
    std::int64_t untaken_ns = 0;
  };
  explicit StalenessWatch(const StepRule& rule);

  // A push of so many bytes of gradients has come.
  void pushed(std::uint64_t n_bytes) { report_.bytes_up += static_cast<std::int64_t>(n_bytes); }
  // The push, pull or request that an answer is due for has come, and was held so long for a cut: that waits
  // for other workers' pushes, as the gate does.
  static void announced(Timer& timer, std::int64_t held_ns);
  // All that its answer lacks is other workers' pushes.
  static void gated(Timer& timer);
  // It is not so, any more.
  static void passed(Timer& timer);
  // There is no memory for a part of it before its worker takes earlier answers; there is.
  static void untaken(Timer& timer);
  static void taken(Timer& timer);
  // The answer leaves. Returns how long it has waited for other workers, in nanoseconds.
  std::int64_t answered(Timer& timer, std::uint64_t n_bytes);
  // A chunk or table is read for a ticket that comes so many steps after those that are all in it.
  void read(std::int64_t lead) { report_.leads.add(lead > 0 ? lead : 0); }
  // A push is applied, so many pushes after what it was computed with.
  void applied(std::int64_t delay) { report_.delays.add(delay > 0 ? delay : 0); }
  // From now on something, or nothing, is held for a cut. To be said again does not matter.
  void holds();
  void holds_nothing();
  const StalenessReport& report() const { return report_; }

 private:
  StalenessReport report_;
  std::optional<std::int64_t> held_since_ns_;
};

}  // namespace varscope
