#include "worker/graph/profile.h"

#include <algorithm>
#include <vector>

namespace varscope {

std::string profile_text(const Graph& graph, const IdVector<NodeId, NodeTimes>& times) {
  std::vector<NodeId> order;
  std::int64_t total = 0, blas = 0, runs = 0;
  for (NodeId id : times.ids()) {
    if (times[id].runs == 0) continue;
    order.push_back(id);
    total += times[id].forward_ns + times[id].backward_ns;
    blas += times[id].blas_ns;
    runs = std::max(runs, times[id].runs);
  }
  const auto all = [&](NodeId id) { return times[id].forward_ns + times[id].backward_ns; };
  std::sort(order.begin(), order.end(),
            [&](NodeId a, NodeId b) { return all(a) != all(b) ? all(a) > all(b) : a < b; });
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  std::string out = fmt::format("{:<36} {:<24} {:>12} {:>12} {:>7} {:>7}\n", "node", "op", "forward us",
                                "backward us", "share", "BLAS");
  for (const NodeId id : order) {
    const Graph::Node& node = graph.node(id);
    const auto per_run = [&](std::int64_t ns) {
      return static_cast<double>(ns) * 1e-3 / static_cast<double>(times[id].runs);
    };
    out += fmt::format("{:<36} {:<24} {:>12.1f} {:>12.1f} {:>5.1f} % {:>5.1f} %\n", node.name,
                       node.op->type(), per_run(times[id].forward_ns), per_run(times[id].backward_ns),
                       share(all(id), total), share(times[id].blas_ns, all(id)));
  }
  return out + fmt::format("{} runs of {:.1f} us, {:.1f} % of it in BLAS\n", runs,
                           runs > 0 ? static_cast<double>(total) * 1e-3 / static_cast<double>(runs) : 0.0,
                           share(blas, total));
}

}  // namespace varscope
