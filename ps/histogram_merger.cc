#include "ps/histogram_merger.h"

#include <string>

#include "common/base/error.h"

namespace varscope {

HistogramMerger::HistogramMerger(const BucketPlan& plan, const VariableTable& variables)
    : variables_(variables) {
  for (const Bucket& bucket : plan.buckets()) {
    if (!bucket.is_pushed()) continue;
    for (const BucketSlice& slice : bucket.slices) expected_[{bucket.id, slice.variable}] = std::nullopt;
  }
}

std::optional<HistogramSummary> HistogramMerger::add(Rank from, BucketId bucket, Clock clock,
                                                     HistogramReport report) {
  if (!open_.contains(clock)) open_.emplace(clock, Open{expected_, expected_.size()});
  Open& open = open_.at(clock);
  for (SliceHistograms& of : report.variables) {
    const auto place = open.step.find({bucket, of.variable});
    if (place == open.step.end() || place->second) {
      fail(ErrorKind::protocol, "rank {} reports histograms of variable {} in bucket {} of step {}, which {}",
           from.value, of.variable, bucket.value, clock.value,
           place == open.step.end() ? "has none there" : "has been reported");
    }
    if (!of.values.is_sound() || !of.gradient.is_sound()) {
      fail(ErrorKind::protocol, "rank {} reports histograms of variable \"{}\" that make no sense",
           from.value, variables_[static_cast<std::size_t>(of.variable)].name);
    }
    place->second = std::move(of);
    --open.n_missing;
  }
  if (open.n_missing > 0) return std::nullopt;
  HistogramSummary summary = join(clock, open.step);
  open_.erase(clock);
  return summary;
}

HistogramSummary HistogramMerger::join(Clock clock, const Step& step) const {
  HistogramSummary summary{clock, {}};
  std::map<std::string, std::size_t> by_name;
  for (const auto& [key, of] : step) {
    const std::string& name = variables_[static_cast<std::size_t>(key.second)].full_name();
    const auto [it, is_new] = by_name.try_emplace(name, summary.variables.size());
    if (is_new) summary.variables.push_back({name, {}, {}});
    summary.variables[it->second].values += of->values;
    summary.variables[it->second].gradient += of->gradient;
  }
  return summary;
}

}  // namespace varscope
