#include "ps/residual_watch.h"

#include <fmt/format.h>

namespace varscope {

std::vector<std::string> ResidualWatch::add(Clock step, const CompressionReport& report) {
  std::vector<std::string> notes;
  for (const CompressionReport::Residual& r : report.residuals) {
    const double ratio = r.ratio();
    if (ratio == 0) continue;  // no gradients, or nothing lost
    First& first = scopes_.try_emplace(r.scope, First{step, ratio}).first->second;
    if (first.has_told || ratio <= kGrowth * first.ratio) continue;
    first.has_told = true;
    notes.push_back(fmt::format(
        "step {}: what compression keeps back of the gradients of \"{}\" is {:.3g} times as large as they are, "
        "{:.0f} times what it was at step {}: it does not come to rest. Lower optimizer.learning_rate or "
        "cluster.drain_every_steps, raise cluster.settle_steps or the ratio of topk, or compress this scope with bf16",
        step.value, r.scope, ratio, ratio / first.ratio, first.step.value));
  }
  return notes;
}

}  // namespace varscope
