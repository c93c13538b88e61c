#include "ps/staleness_watch.h"

#include <utility>

#include "common/base/clock.h"

namespace varscope {
namespace {

// More cells than this nobody reads.
constexpr std::int64_t kMostSingleLeads = 31;

}  // namespace

StalenessWatch::StalenessWatch(const StepRule& rule) {
  report_.leads.in_powers = rule.consistency != Consistency::ssp || rule.staleness > kMostSingleLeads;
}

void StalenessWatch::announced(Timer& timer, std::int64_t held_ns) {
  timer = {};
  timer.announced_ns = now_ns() - held_ns;
  timer.gated_ns = held_ns;
}

void StalenessWatch::gated(Timer& timer) {
  if (!timer.gate_since_ns) timer.gate_since_ns = now_ns();
}

void StalenessWatch::passed(Timer& timer) {
  if (!timer.gate_since_ns) return;
  timer.gated_ns += now_ns() - *std::exchange(timer.gate_since_ns, std::nullopt);
}

void StalenessWatch::untaken(Timer& timer) {
  if (!timer.untaken_since_ns) timer.untaken_since_ns = now_ns();
}

void StalenessWatch::taken(Timer& timer) {
  if (!timer.untaken_since_ns) return;
  timer.untaken_ns += now_ns() - *std::exchange(timer.untaken_since_ns, std::nullopt);
}

std::int64_t StalenessWatch::answered(Timer& timer, std::uint64_t n_bytes) {
  passed(timer);
  report_.bytes_down += static_cast<std::int64_t>(n_bytes);
  ++report_.n_answers;
  report_.gate_ns += timer.gated_ns;
  if (timer.announced_ns)
    report_.service_ns += now_ns() - *timer.announced_ns - timer.gated_ns - timer.untaken_ns;
  return std::exchange(timer, {}).gated_ns;
}

void StalenessWatch::holds() {
  if (held_since_ns_) return;
  held_since_ns_ = now_ns();
  ++report_.n_holds;
}

void StalenessWatch::holds_nothing() {
  if (held_since_ns_) report_.held_ns += now_ns() - *std::exchange(held_since_ns_, std::nullopt);
}

}  // namespace varscope
