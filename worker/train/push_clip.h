#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/config/job_config.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/norm_plan.h"
#include "worker/client/variable_memory.h"
#include "worker/train/table_steps.h"

namespace varscope {

// optimizer.clip by norm where each push is applied by itself (SSP, ASP; docs/consistency.md). Servers share
// no norms of a push, but its worker has the whole gradient of it: the mean over the push's samples. The
// norms are those of NormPlan::of_gradients(), added up in the same order from the same sums as servers do in
// BSP (Pascanu et al., ICML 2013, for one norm of all), so that a push that is a whole step is clipped to the
// bits of BSP. One thread; borrows all but the config.
class PushClip {
 public:
  struct Parts {
    ClipConfig clip;  // REQUIRES clip.needs_norms()
    OnNan on_nan = OnNan::stop;
    const BucketPlan& plan;
    VariableMemory& memory;  // gradients in buffer 0
    TableSteps& tables;
    std::function<void(const std::string&)> warn = {};  // of the user; once at most
  };
  explicit PushClip(const Parts& parts);

  // Scales the gradients of a push of step `step`, in place; all of its backward passes are over, and nothing
  // of it has been pushed. A norm that is not finite scales nothing. Where the loss is not finite either,
  // that is left to whoever hears of the loss; else it is an Error(not_finite), or with OnNan::warn a
  // warning. `progress` is called every 1 MiB or so.
  void clip(Clock step, bool is_loss_finite, const std::function<void()>& progress);

 private:
  void add_up(const std::function<void()>& progress);
  void scale(const std::vector<double>& factors, const std::function<void()>& progress);
  void tell(Clock step, const std::map<std::string, double>& variables);

  Parts parts_;
  NormPlan norms_;
  std::vector<int> tables_;   // those that have a part in norms, by variable
  std::vector<double> sums_;  // by NormTerm::place
  bool has_warned_ = false;
};

}  // namespace varscope
