#include "worker/graph/profile.h"

#include <algorithm>
#include <vector>

namespace varscope {

std::string profile_text(const Graph& graph, std::span<const NodeTimes> times) {
  std::vector<std::size_t> order;
  std::int64_t total = 0, blas = 0, runs = 0;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i].runs == 0) continue;
    order.push_back(i);
    total += times[i].forward_ns + times[i].backward_ns;
    blas += times[i].blas_ns;
    runs = std::max(runs, times[i].runs);
  }
  const auto all = [&](std::size_t i) { return times[i].forward_ns + times[i].backward_ns; };
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return all(a) != all(b) ? all(a) > all(b) : a < b; });
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  std::string out = fmt::format("{:<36} {:<24} {:>12} {:>12} {:>7} {:>7}\n", "node", "op", "forward us",
                                "backward us", "share", "BLAS");
  for (const std::size_t i : order) {
    const Graph::Node& node = graph.node(NodeId(static_cast<int>(i)));
    const auto per_run = [&](std::int64_t ns) {
      return static_cast<double>(ns) * 1e-3 / static_cast<double>(times[i].runs);
    };
    out += fmt::format("{:<36} {:<24} {:>12.1f} {:>12.1f} {:>5.1f} % {:>5.1f} %\n", node.name,
                       node.op->type(), per_run(times[i].forward_ns), per_run(times[i].backward_ns),
                       share(all(i), total), share(times[i].blas_ns, all(i)));
  }
  return out + fmt::format("{} runs of {:.1f} us, {:.1f} % of it in BLAS\n", runs,
                           runs > 0 ? static_cast<double>(total) * 1e-3 / static_cast<double>(runs) : 0.0,
                           share(blas, total));
}

}  // namespace varscope
