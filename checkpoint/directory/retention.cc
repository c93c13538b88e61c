#include "checkpoint/directory/retention.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "checkpoint/format/evaluation.h"
#include "common/base/error.h"
#include "common/base/figures.h"

namespace varscope {
namespace {

using Verdicts = std::vector<RetentionVerdict>;

bool is_committed(const RetentionVerdict& v) { return v.entry.state == CheckpointState::committed; }

// Old formats do not say; then it counts as finite.
bool is_finite(const RetentionVerdict& v) { return is_committed(v) && v.entry.manifest->not_finite.empty(); }

void keep(RetentionVerdict& v, std::string why) {
  if (v.stays) return;
  v.stays = true;
  v.why = std::move(why);
}

// Those that are not finite do not count, so that they push out none that is. The newest of them stays, for
// whoever wants to go on from it or to look at it, but only while no finite one is newer.
void keep_newest(Verdicts& verdicts, std::int64_t n) {
  std::int64_t kept = 0;
  bool has_newest = false;
  for (RetentionVerdict& v : verdicts) {
    const bool is_newest = is_committed(v) && !has_newest;
    has_newest = has_newest || is_committed(v);
    if (v.entry.pinned) {
      keep(v, "pinned");
    } else if (v.entry.unreadable) {
      keep(v, "cannot be read at present");
    } else if (n > 0 && is_committed(v) && !is_finite(v)) {
      if (is_newest) keep(v, "newest, though not finite");
    } else if (n == 0 || kept < n) {
      if (is_committed(v)) ++kept;
      keep(v, is_committed(v) ? "newest" : "damaged, but newer than those that are kept");
    }
  }
}

void keep_every_steps(Verdicts& verdicts, std::int64_t n) {
  if (n == 0) return;
  for (RetentionVerdict& v : verdicts) {
    if (is_finite(v) && v.entry.step % n == 0) keep(v, fmt::format("every {} steps", n));
  }
}

void keep_every_hours(Verdicts& verdicts, double hours) {
  if (hours == 0) return;
  std::optional<std::int64_t> last;
  for (auto v = verdicts.rbegin(); v != verdicts.rend(); ++v) {
    if (!is_finite(*v)) continue;
    const std::int64_t time = v->entry.manifest->unix_time;
    // A clock that was set back must not stop the rule for good.
    if (last && std::abs(static_cast<double>(time - *last)) < hours * 3600) continue;
    last = time;
    keep(*v, fmt::format("every {:g} hours", hours));
  }
}

struct Candidate {
  double value;
  std::int64_t distance;  // from the step that was evaluated
  RetentionVerdict* verdict;
};

void keep_best(Fs& fs, Verdicts& verdicts, const RetentionPolicy::Best& best) {
  std::vector<Candidate> candidates;
  for (RetentionVerdict& v : verdicts) {
    if (!is_finite(v)) continue;  // its evaluation may be of a step before
    std::string unreadable;
    const std::optional<EvaluationRecord> record = read_evaluation(fs, v.entry.path, &unreadable);
    if (!unreadable.empty() && best.count > 0)
      keep(v, "may be the best: its METRICS cannot be read at present");
    if (!record) continue;
    const auto value = record->values.find(best.metric);
    if (value != record->values.end())
      candidates.push_back({value->second, std::abs(v.entry.step - record->step), &v});
  }
  std::sort(candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
    if (a.value != b.value) return best.order == MetricOrder::larger ? a.value > b.value : a.value < b.value;
    return std::tuple(a.distance, a.verdict->entry.step) < std::tuple(b.distance, b.verdict->entry.step);
  });
  for (std::size_t i = 0; i < candidates.size() && static_cast<std::int64_t>(i) < best.count; ++i)
    keep(*candidates[i].verdict, fmt::format("best {} ({})", best.metric, short_number(candidates[i].value)));
}

}  // namespace

RetentionPolicy retention_of(const CheckpointConfig& config) {
  RetentionPolicy policy{config.keep, config.keep_every_steps, config.keep_every_hours};
  if (!config.keep_best) return policy;
  const KeepBestConfig& best = *config.keep_best;
  MetricOrder order = order_of_metric(best.metric).value_or(MetricOrder::larger);
  if (best.mode != BestMode::automatic)
    order = best.mode == BestMode::max ? MetricOrder::larger : MetricOrder::smaller;
  policy.best = RetentionPolicy::Best{best.metric, best.count, order};
  return policy;
}

std::vector<RetentionVerdict> judge_retention(Fs& fs, std::vector<CheckpointEntry> entries,
                                              const RetentionPolicy& policy) {
  if (policy.keep < 0) fail(ErrorKind::argument, "cannot keep {} checkpoints", policy.keep);
  if (policy.keep_every_steps < 0 || !(policy.keep_every_hours >= 0) ||
      (policy.best && policy.best->count < 0))
    fail(ErrorKind::argument, "cannot keep checkpoints every {} steps or {} hours, or a negative number",
         policy.keep_every_steps, policy.keep_every_hours);
  Verdicts verdicts;
  for (CheckpointEntry& entry : entries) verdicts.push_back({std::move(entry), false, ""});
  keep_newest(verdicts, policy.keep);
  if (policy.keep == 0) return verdicts;
  keep_every_steps(verdicts, policy.keep_every_steps);
  keep_every_hours(verdicts, policy.keep_every_hours);
  if (policy.best) keep_best(fs, verdicts, *policy.best);
  return verdicts;
}

}  // namespace varscope
