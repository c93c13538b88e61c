#include "ps/observe/consistency_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/text.h"

namespace varscope {
namespace {

// Below this nobody is called slow.
constexpr double kSlow = 1.25;

std::string staleness_text(const ConsistencySummary& s) {
  return fmt::format(
      "reads were {:.1f} steps behind on average, {} at most; {:.1f} other pushes came between a "
      "read and its push, {} at most",
      s.all.leads.mean(), s.all.leads.most, s.all.delays.mean(), s.all.delays.most);
}

std::string slowest_text(const ConsistencySummary& s) {
  const std::int64_t of_it = s.workers.at(static_cast<std::size_t>(s.slowest->worker)).tickets;
  std::int64_t of_all = 0;
  for (const auto& w : s.workers) of_all += w.tickets;
  return fmt::format(
      "worker {} computed {:.1f} times as long per ticket as the median worker, and did {} of {} tickets",
      s.slowest->worker, s.slowest->ratio, with_commas(of_it), with_commas(of_all));
}

std::string waiting_text(const ConsistencySummary& s) {
  double total = 0, gate = 0, drain = 0, wait = 0;
  for (const auto& w : s.workers) {
    total += w.total_s;
    gate += w.gate_wait_s;
    drain += w.drain_wait_s;
    wait += w.wait_s;
  }
  const auto share = [&](double part) { return total > 0 ? 100 * std::max(0.0, part) / total : 0; };
  // Without a bound workers wait for slower ones only where a cut holds what they have pushed.
  const bool has_gate = s.rule.consistency == Consistency::ssp || s.all.n_holds > 0;
  std::string text =
      fmt::format("{}servers' answers {:.0f} %, evaluations and the end {:.0f} % of the workers' time",
                  has_gate ? fmt::format("slower workers {:.0f} %, ", share(gate)) : "",
                  share(wait - gate - drain), share(drain));
  if (s.all.n_holds > 0)
    text +=
        fmt::format("; pushes were held {:.2f} s for checkpoints", static_cast<double>(s.all.held_ns) * 1e-9);
  return text;
}

}  // namespace

double mean_service_s(const StalenessReport& server) {
  if (server.n_answers == 0) return 0;
  return static_cast<double>(server.service_ns) * 1e-9 / static_cast<double>(server.n_answers);
}

std::vector<std::pair<std::string, std::string>> lines_of(const ConsistencySummary& summary) {
  std::vector<std::pair<std::string, std::string>> lines;
  if (summary.all.leads.count() == 0) return lines;
  lines.emplace_back("staleness", staleness_text(summary));
  if (summary.slowest && summary.slowest->ratio >= kSlow)
    lines.emplace_back("slowest", slowest_text(summary));
  lines.emplace_back("waited for", waiting_text(summary));
  return lines;
}

}  // namespace varscope
