#include "launch/observe/metrics_file.h"

#include <cmath>
#include <ctime>
#include <utility>

#include "common/base/clock.h"
#include "launch/process/version.h"

namespace varscope {

using nlohmann::json;

json counts_as_json(std::span<const double> counts) {
  json all = json::array();
  for (const double count : counts) {
    if (count == std::floor(count) && std::abs(count) < 1e15) {
      all.push_back(static_cast<std::int64_t>(count));
    } else {
      all.push_back(count);
    }
  }
  return all;
}

namespace {

// How far a stream has come; means of nothing are left out.
json stream_fields(const StreamSummary& s) {
  json fields{{"records", s.records},
              {"file", s.file},
              {"files", s.files},
              {"left_out", s.left_out},
              {"late_files", s.late},
              {"files_waiting", s.files_waiting},
              {"bytes_waiting", s.bytes_waiting}};
  if (s.event_time > 0) fields["event_time"] = s.event_time;
  if (s.total.samples > 0) {
    fields["progressive_loss"] = mean_loss(s.total);
    fields["progressive_loss_window"] = mean_loss(s.window);
  }
  if (s.since_save.samples > 0) fields["progressive_loss_since_save"] = mean_loss(s.since_save);
  return fields;
}

json cells_of(const Tally& tally) {
  json cells = json::object();
  for (std::size_t i = 0; i < tally.cells.size(); ++i) {
    if (tally.cells[i] > 0) cells[tally.name(i)] = tally.cells[i];
  }
  return {{"counts", cells}, {"mean", tally.mean()}, {"most", tally.most}};
}

json dropped_fields(const DroppedSummary& s) {
  json fields{{"backup_workers", s.n_backups},
              {"samples", s.samples},
              {"of_samples", s.of_samples},
              {"workers", json::array()}};
  for (const WorkerId w : s.workers.ids()) {
    fields["workers"].push_back(
        {{"worker", w.value}, {"steps", s.workers[w].steps}, {"samples", s.workers[w].samples}});
  }
  return fields;
}

json consistency_fields(const ConsistencySummary& s) {
  const auto in_s = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-9; };
  json fields{{"mode", s.rule.consistency == Consistency::ssp ? "ssp" : "asp"},
              {"staleness", cells_of(s.all.leads)},
              {"delay", cells_of(s.all.delays)},
              {"gate_wait_s", in_s(s.all.gate_ns)},
              {"held_s", in_s(s.all.held_ns)},
              {"bytes_up", s.all.bytes_up},
              {"bytes_down", s.all.bytes_down}};
  for (std::size_t i = 0; i < s.servers.size(); ++i) {
    fields["servers"].push_back({{"server", i},
                                 {"answers", s.servers[i].n_answers},
                                 {"service_wait_s", mean_service_s(s.servers[i])},
                                 {"held_s", in_s(s.servers[i].held_ns)}});
  }
  for (std::size_t i = 0; i < s.workers.size(); ++i) {
    const ConsistencySummary::Worker& w = s.workers[i];
    fields["workers"].push_back({{"worker", i},
                                 {"clock", w.clock.value},
                                 {"lag", w.lag},
                                 {"tickets", w.tickets},
                                 {"open_s", w.open_s},
                                 {"ticket_compute_s", w.ticket_compute_s},
                                 {"gate_wait_s", w.gate_wait_s},
                                 {"drain_wait_s", w.drain_wait_s},
                                 {"wait_s", w.wait_s}});
  }
  if (s.slowest) fields["slowest"] = {{"worker", s.slowest->worker}, {"ratio", s.slowest->ratio}};
  return fields;
}

// Of the variables that are not compressed, too; nothing where none is.
void add_compression(const RunFacts& facts, const CompressionReport& c, json& fields) {
  if (facts.variables.compressions().empty()) return;
  json all{{"bytes_up", c.up},
           {"bytes_down", c.down},
           {"up", CompressionReport::share(c.up, c.full_up)},
           {"down", CompressionReport::share(c.down, c.full_down)}};
  for (const CompressionReport::Residual& r : c.residuals) all["residual"][r.scope] = r.ratio();
  fields["compression"] = std::move(all);
}

}  // namespace

MetricsFile::MetricsFile(const RunFacts& facts)
    : facts_(facts),
      file_(facts.job.run_dir() + "/metrics.jsonl",
            "choose another job.run_dir, or set output.metrics to false"),
      started_ns_(now_ns()) {}

void MetricsFile::write(const char* event, Clock clock, const json& fields) {
  json line = {{"event", event},
               {"step", clock.value},
               {"time", std::time(nullptr)},
               {"run", facts_.run_id},
               {"attempt", facts_.attempt}};
  line.update(fields);
  file_.append(line.dump());
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
  if (!step.dropped.workers.empty()) {
    json workers = json::array();
    for (const WorkerId w : step.dropped.workers) workers.push_back(w.value);
    write("dropped", step.clock, {{"workers", workers}, {"samples", step.dropped.samples}});
  }
  compression_ += step.compression;
  const std::int64_t every = facts_.job.train.log_every_steps;
  if (every == 0 || step.clock.value % every != 0) return;
  json fields{{"epoch", step.epoch},
              {"loss", mean_loss(speed_.window())},
              {"samples_per_s", speed_.window_samples_per_s()}};
  if (facts_.evaluation.has_accuracy) fields["accuracy"] = mean_accuracy(speed_.window());
  if (step.stream) {
    fields.erase("epoch");
    fields.update(stream_fields(*step.stream));
  }
  add_compression(facts_, std::exchange(compression_, {}), fields);
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
    fields[v.name] = v.matrix.empty() ? json(v.value) : counts_as_json(v.matrix);
    if (v.matrix.empty()) last_metrics_[v.name] = v.value;
  }
  write("eval", eval.clock, fields);
}

void MetricsFile::on_consistency(const ConsistencySummary& summary) {
  write("consistency", summary.clock, consistency_fields(summary));
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
  if (!finish.ended_by.empty()) fields["ended_by"] = finish.ended_by;
  if (finish.stream) fields.update(stream_fields(*finish.stream));
  if (finish.best) {
    fields["best"] = {{"metric", finish.best->metric},
                      {"value", finish.best->value},
                      {"step", finish.best->step.value},
                      {"checkpoint", finish.best->checkpoint}};
  }
  if (finish.dropped) fields["dropped"] = dropped_fields(*finish.dropped);
  add_compression(facts_, finish.compression, fields);
  if (finish.consistency) fields["consistency"] = consistency_fields(*finish.consistency);
  for (const TableReport& table : finish.tables) {
    fields["tables"].push_back({{"name", table.name},
                                {"rows", table.rows},
                                {"waiting", table.waiting},
                                {"evicted", table.evicted},
                                {"expired", table.expired},
                                {"waiting_dropped", table.waiting_dropped}});
  }
  write("finish", finish.clock, fields);
}

}  // namespace varscope
