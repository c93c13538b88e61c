#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tests/support/jobs/job.h"

namespace varscope::testing {

// A job of the real program that is killed, stopped or held at points of the commit protocol; the points, and
// what can be done there, are in tests/support/fs/commit_points.h.

struct PointRule {
  int rank;
  int save;  // of that rank, from 1; 0: always
  std::string point;
  std::string action;
};

struct PointHit {
  std::string point;
  std::int64_t saving = 0;     // the step of the save that is under way there
  std::int64_t announced = 0;  // the step of the newest save before it that was announced; 0: none
};

enum class Syncs { done, left_out };

class PointsJob {
 public:
  // `command` starts varscope, alone or under mpirun.
  PointsJob(Command command, const std::vector<PointRule>& rules, Syncs syncs = Syncs::done);

  Job& operator*() { return *job_; }
  Job* operator->() { return job_.get(); }

  pid_t pid(int rank) const;
  // The k-th time (from 1) that this rank acts on a rule; nothing when that does not happen within `seconds`
  // or before the job's end.
  std::optional<PointHit> wait_for_hit(int rank, int k, double seconds);
  void go_on(int rank, int k) const;  // from a "wait"

 private:
  ScratchDir control_;
  std::unique_ptr<Job> job_;
};

}  // namespace varscope::testing
