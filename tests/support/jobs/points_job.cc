#include "tests/support/jobs/points_job.h"

#include <algorithm>
#include <sstream>

#include "tests/support/fs/commit_points.h"

namespace varscope::testing {

PointsJob::PointsJob(Command command, const std::vector<PointRule>& rules, Syncs syncs) {
  std::ostringstream text;
  if (syncs == Syncs::left_out) text << "no-fsync\n";
  for (const PointRule& r : rules)
    text << r.rank << "|" << r.save << "|" << r.point << "|" << r.action << "\n";
  write_text(control_ / "rules", text.str());
  std::replace(command.argv.begin(), command.argv.end(), std::string(VARSCOPE_BINARY),
               std::string(VARSCOPE_POINTS_BINARY));
  command.environment[kPointsDirVariable] = control_.path();
  job_ = std::make_unique<Job>(command);
}

pid_t PointsJob::pid(int rank) const {
  return std::atoi(read_text(control_ / ("pid-" + std::to_string(rank))).c_str());
}

std::optional<PointHit> PointsJob::wait_for_hit(int rank, int k, double seconds) {
  const std::string file = control_ / ("hit-" + std::to_string(rank) + "-" + std::to_string(k));
  if (!job_->wait_until([&] { return std::filesystem::exists(file); }, seconds)) return std::nullopt;
  std::istringstream in(read_text(file));
  PointHit hit;
  std::getline(in, hit.point);
  in >> hit.saving >> hit.announced;
  return hit;
}

void PointsJob::go_on(int rank, int k) const {
  write_text(control_ / ("go-" + std::to_string(rank) + "-" + std::to_string(k)), "");
}

}  // namespace varscope::testing
