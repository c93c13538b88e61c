#include "ps/observe/consistency_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/base/text.h"
#include "ps/observe/lower_median.h"

namespace varscope {
namespace {

// Below this nobody is called slow: a worker; a server, whose answers are shorter and vary more.
constexpr double kSlow = 1.25, kSlowServer = 2;
// Below this part of the workers' time nobody asks which server they have waited for.
constexpr double kMuchWaiting = 0.1;

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

// Parts of the workers' time.
struct Waiting {
  double gate = 0, answers = 0, drain = 0;
};

Waiting waiting_of(const ConsistencySummary& s) {
  double total = 0, gate = 0, drain = 0, wait = 0;
  for (const auto& w : s.workers) {
    total += w.total_s;
    gate += w.gate_wait_s;
    drain += w.drain_wait_s;
    wait += w.wait_s;
  }
  const auto share = [&](double part) { return total > 0 ? std::max(0.0, part) / total : 0; };
  return {share(gate), share(wait - gate - drain), share(drain)};
}

std::string waiting_text(const ConsistencySummary& s) {
  const Waiting part = waiting_of(s);
  // Without a bound workers wait for slower ones only where a cut holds what they have pushed.
  const bool has_gate = s.rule.consistency == Consistency::ssp || s.all.n_holds > 0;
  std::string text =
      fmt::format("{}servers' answers {:.0f} %, evaluations and the end {:.0f} % of the workers' time",
                  has_gate ? fmt::format("slower workers {:.0f} %, ", 100 * part.gate) : "",
                  100 * part.answers, 100 * part.drain);
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

std::optional<SlowServer> slowest_server(const std::vector<StalenessReport>& servers) {
  std::vector<int> answering;
  std::vector<double> per_answer, per_byte;
  for (const StalenessReport& s : servers) {
    const std::int64_t n_bytes = s.bytes_up + s.bytes_down;
    if (s.n_answers == 0 || n_bytes == 0) continue;  // it owns nothing
    answering.push_back(static_cast<int>(&s - servers.data()));
    per_answer.push_back(mean_service_s(s));
    per_byte.push_back(static_cast<double>(s.service_ns) / static_cast<double>(n_bytes));
  }
  const auto over_median = [](const std::vector<double>& of, std::size_t server) {
    const double median = lower_median(of);
    return median > 0 ? of[server] / median : 1;
  };
  std::optional<SlowServer> slowest;
  for (std::size_t i = 0; i < answering.size(); ++i) {
    const double ratio = std::min(over_median(per_answer, i), over_median(per_byte, i));
    if (!slowest || ratio > slowest->ratio) slowest = SlowServer{answering[i], ratio};
  }
  return slowest;
}

std::vector<std::pair<std::string, std::string>> lines_of(const ConsistencySummary& summary) {
  std::vector<std::pair<std::string, std::string>> lines;
  if (summary.all.leads.count() == 0) return lines;
  lines.emplace_back("staleness", staleness_text(summary));
  if (summary.slowest && summary.slowest->ratio >= kSlow)
    lines.emplace_back("slowest", slowest_text(summary));
  lines.emplace_back("waited for", waiting_text(summary));
  const std::optional<SlowServer> server = slowest_server(summary.servers);
  if (server && server->ratio >= kSlowServer && waiting_of(summary).answers >= kMuchWaiting) {
    lines.emplace_back(
        "slow server",
        fmt::format("server {} took {:.1f} times as long as the median server: {:.2f} ms for an answer",
                    server->server, server->ratio,
                    1e3 * mean_service_s(summary.servers[static_cast<std::size_t>(server->server)])));
  }
  return lines;
}

}  // namespace varscope
