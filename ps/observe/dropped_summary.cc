#include "ps/observe/dropped_summary.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {

std::string text_of(const DroppedSummary& s) {
  const double share =
      s.of_samples > 0 ? static_cast<double>(s.samples) / static_cast<double>(s.of_samples) : 0;
  std::string text = fmt::format("{} of {} samples ({:.1f} %)", with_commas(s.samples),
                                 with_commas(s.of_samples), 100 * share);
  const auto most = std::ranges::max_element(s.workers, {}, &DroppedSummary::Worker::samples);
  if (most == s.workers.end() || most->samples == 0) return text;
  return text + fmt::format("; most of worker {}: {} in {} step{}", most - s.workers.begin(),
                            with_commas(most->samples), with_commas(most->steps),
                            most->steps == 1 ? "" : "s");
}

}  // namespace varscope
