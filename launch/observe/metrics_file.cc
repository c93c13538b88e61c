#include "launch/observe/metrics_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "launch/observe/output.h"
#include "launch/process/version.h"

namespace varscope {

using nlohmann::json;

namespace {

// Integers where they are: sums of weights need not be.
json counts_of(const std::vector<double>& matrix) {
  json counts = json::array();
  for (const double count : matrix) {
    if (count == std::floor(count) && std::abs(count) < 1e15) {
      counts.push_back(static_cast<std::int64_t>(count));
    } else {
      counts.push_back(count);
    }
  }
  return counts;
}

}  // namespace

MetricsFile::MetricsFile(const RunFacts& facts)
    : facts_(facts), path_(facts.job.run_dir() + "/metrics.jsonl"), started_ns_(now_ns()) {
  fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    fail(ErrorKind::io, "cannot write {}: {}; choose another job.run_dir, or set output.metrics to false",
         path_, std::strerror(errno));
  }
}

MetricsFile::~MetricsFile() { close(fd_); }

// A line that the disk has no room for is given up; after one of which it took a part, the next begins on a
// line of its own.
void MetricsFile::append(const std::string& line) {
  const std::string text = (has_torn_line_ ? "\n" : "") + line + "\n";
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  if (done == text.size()) {
    has_torn_line_ = false;
    return;
  }
  const char* why = std::strerror(errno);
  has_torn_line_ = has_torn_line_ || done > 0;
  if (!std::exchange(has_lost_lines_, true)) {
    warn({fmt::format("cannot write {}: {}; training goes on, and lines of it are lost until there is room",
                      path_, why)});
  }
}

void MetricsFile::write(const char* event, Clock clock, const json& fields) {
  json line = {{"event", event},
               {"step", clock.value},
               {"time", std::time(nullptr)},
               {"run", facts_.run_id},
               {"attempt", facts_.attempt}};
  line.update(fields);
  append(line.dump());
}

void MetricsFile::write_start() {
  const ClusterMap& c = facts_.cluster;
  json fields{{"servers", c.n_servers()},
              {"workers", c.n_workers()},
              {"logical_workers", c.logical_workers},
              {"parameters", facts_.variables.n_parameters()},
              {"version", kVersion}};
  if (facts_.predicted) {
    const auto& [size, forecast] = *facts_.predicted;
    fields["checkpoint"] = {{"bytes", size.total_bytes},   {"snapshot_bytes", size.snapshot_bytes},
                            {"stall_s", forecast.stall_s}, {"copy_s", forecast.copy_s},
                            {"total_s", forecast.flush_s}, {"interval_s", forecast.interval_s}};
  }
  write("start", facts_.train.first, fields);
}

void MetricsFile::on_step(const StepSummary& step) {
  speed_.add(step.sums);
  const std::int64_t every = facts_.job.train.log_every_steps;
  if (every == 0 || step.clock.value % every != 0) return;
  json fields{{"epoch", step.epoch},
              {"loss", mean_loss(speed_.window())},
              {"samples_per_s", speed_.window_samples_per_s()}};
  if (facts_.evaluation.has_accuracy) fields["accuracy"] = mean_accuracy(speed_.window());
  write("step", step.clock, fields);
  speed_.start_window();
}

void MetricsFile::on_epoch(const EpochSummary& epoch) {
  json fields{{"epoch", epoch.epoch}, {"loss", mean_loss(epoch.sums)}, {"samples", epoch.sums.samples}};
  if (facts_.evaluation.has_accuracy) fields["accuracy"] = mean_accuracy(epoch.sums);
  write("epoch", epoch.clock, fields);
}

void MetricsFile::on_eval(const EvalSummary& eval) {
  json fields{{"loss", mean_loss(eval.sums)}, {"samples", eval.sums.samples}};
  last_metrics_ = json::object();
  for (const MetricValue& v : eval.metrics) {
    fields[v.name] = v.matrix.empty() ? json(v.value) : counts_of(v.matrix);
    if (v.matrix.empty()) last_metrics_[v.name] = v.value;
  }
  write("eval", eval.clock, fields);
}

void MetricsFile::on_checkpoint(const CheckpointSummary& c) {
  write("checkpoint", c.clock,
        {{"path", c.path},
         {"bytes", c.bytes},
         {"stall_s", c.stall_s},
         {"copy_s", c.copy_s},
         {"total_s", c.total_s}});
}

void MetricsFile::on_checkpoint_failed(Clock clock, const std::string& why) {
  write("checkpoint_failed", clock, {{"why", why}});
}

void MetricsFile::on_not_finite(const NotFiniteSummary& summary) {
  write("not_finite", summary.clock,
        {{"what", summary.what}, {"variables", summary.variables}, {"ends", summary.ends}});
}

void MetricsFile::on_finish(const FinishSummary& finish) {
  const auto seconds = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-9; };
  json fields{{"values_hash", finish.values_hash.hex()},
              {"samples_per_s", speed_.samples_per_s()},
              {"seconds", seconds_since(started_ns_)},
              {"compute_s", seconds(finish.times.compute_ns)},
              {"communicate_s", seconds(finish.times.communicate_ns)},
              {"wait_s", seconds(finish.times.wait_ns)},
              {"data_s", seconds(finish.times.data_ns)},
              {"checkpoints", finish.checkpoints},
              {"failed_checkpoints", finish.failed_checkpoints},
              {"skipped_checkpoints", finish.skipped_checkpoints},
              {"queued_checkpoints", finish.queued_checkpoints}};
  fields.update(last_metrics_);
  if (!finish.ended_why.empty()) fields["ended_by"] = "train.stop";
  if (finish.best) {
    fields["best"] = {{"metric", finish.best->metric},
                      {"value", finish.best->value},
                      {"step", finish.best->step.value},
                      {"checkpoint", finish.best->checkpoint}};
  }
  write("finish", finish.clock, fields);
}

}  // namespace varscope
