#include "launch/observe/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/figures.h"
#include "common/base/text.h"
#include "common/placement/cluster.h"
#include "common/transport/transport.h"
#include "launch/observe/mode_words.h"
#include "launch/observe/output.h"
#include "launch/observe/tensorboard.h"
#include "launch/process/failure.h"
#include "launch/process/launcher.h"
#include "launch/process/version.h"
#include "ps/checkpointing/checkpoint_interval.h"

namespace varscope {
namespace {

// "loss 0.3270, accuracy 0.8500"; `between` separates.
std::string sums_text(const BatchSums& s, bool has_accuracy, const char* between) {
  std::string text = "loss " + figure(mean_loss(s));
  return has_accuracy ? text + fmt::format("{}accuracy {}", between, figure(mean_accuracy(s))) : text;
}
// A text's targets are its words.
const char* unit_of(const EvaluationSpec& spec) { return spec.targets_per_sample > 1 ? "words" : "samples"; }

std::string plural(std::int64_t n, const char* one) {
  return fmt::format("{} {}{}", with_commas(n), one, n == 1 ? "" : "s");
}

std::string roles_text(const RunFacts& f) {
  std::map<std::string, std::vector<std::string>> by_host;
  std::vector<std::string> order;
  for (std::size_t r = 0; r < f.hosts.size(); ++r) {
    if (!by_host.contains(f.hosts[r])) order.push_back(f.hosts[r]);
    const Rank rank(static_cast<int>(r));
    if (const auto s = f.cluster.server_at(rank))
      by_host[f.hosts[r]].push_back(fmt::format("server {}", s->value));
    if (const auto w = f.cluster.worker_at(rank))
      by_host[f.hosts[r]].push_back(fmt::format("worker {}", w->value));
  }
  std::string text;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 4 && order.size() > 5) return text + fmt::format("; and {} more hosts", order.size() - 4);
    const auto& roles = by_host[order[i]];
    std::string list;
    for (std::size_t k = 0; k < roles.size(); ++k) {
      if (k == 8 && roles.size() > 9) {
        list += fmt::format(", and {} more", roles.size() - 8);
        break;
      }
      list += (k == 0 ? "" : ", ") + roles[k];
    }
    text += (i == 0 ? "" : "; ") + order[i] + ": " + list;
  }
  return text;
}

std::string retention_text(const CheckpointConfig& c) {
  std::string text = fmt::format("the newest {} kept", c.keep);
  if (c.keep_every_steps > 0) text += fmt::format(", each of {} steps", c.keep_every_steps);
  if (c.keep_every_hours > 0) text += fmt::format(", one every {:g} hours", c.keep_every_hours);
  if (c.keep_best) text += fmt::format(", the best {} by {}", c.keep_best->count, c.keep_best->metric);
  return text;
}

std::string checkpoint_text(const JobConfig& job) {
  std::string when;
  const auto add = [&](const std::string& s) { when += (when.empty() ? "" : ", ") + s; };
  if (job.checkpoint.every_steps > 0)
    add(fmt::format("every {}", plural(job.checkpoint.every_steps, "step")));
  if (job.checkpoint.every_seconds > 0) add(fmt::format("every {:g} s", job.checkpoint.every_seconds));
  if (job.checkpoint.every_records > 0)
    add(fmt::format("every {}", plural(job.checkpoint.every_records, "record")));
  if (job.follow() != nullptr && job.checkpoint.idle_save_s > 0)
    add(fmt::format("after {:g} s without data", job.checkpoint.idle_save_s));
  if (job.checkpoint.at_end) add("at the end");
  if (when.empty()) return "none (set checkpoint.every_steps, every_seconds or at_end)";
  return fmt::format("{}, {}; {}", job.checkpoint_dir(), when, retention_text(job.checkpoint));
}

// "0.12 ms", "35 ms", "2.50 s"
std::string short_time(double seconds) {
  if (seconds < 0.01) return fmt::format("{:.2f} ms", seconds * 1e3);
  return seconds < 1 ? fmt::format("{:.0f} ms", seconds * 1e3) : fmt::format("{:.2f} s", seconds);
}

// "training stops 0.10 ms, updates take 3.00 ms longer once, on disk after 50 ms"
std::string cost_text(double stall_s, double copy_s, double write_s) {
  std::string text = fmt::format("training stops {}", short_time(stall_s));
  if (copy_s > 0) text += fmt::format(", updates take {} longer once", short_time(copy_s));
  return text + fmt::format(", on disk after {}", short_time(write_s));
}

// The keys that let the run end at the step at which it has started.
std::string limits_text(const RunFacts& f) {
  const TrainConfig& train = f.job.train;
  const std::int64_t at = f.train.first.value;
  const bool by_epochs = train.epochs <= at / std::max<std::int64_t>(1, f.train.steps_per_epoch);
  const bool by_steps = train.max_steps > 0 && train.max_steps <= at;
  if (by_epochs && by_steps) return "train.epochs and train.max_steps";
  return by_steps ? "train.max_steps" : "train.epochs";
}

// "records 12,800 in 4 files (c-0004.csv)  progressive loss 0.4310 (last 10,000: 0.4020)  waiting 2 files"
std::string stream_text(const StreamSummary& s) {
  std::string text = fmt::format("records {} in {} ({})  progressive loss {}", with_commas(s.records),
                                 plural(s.files, "file"), s.file, figure(mean_loss(s.total)));
  if (s.window.samples < s.total.samples)
    text += fmt::format(" (last {}: {})", with_commas(s.window.samples), figure(mean_loss(s.window)));
  if (s.files_waiting > 0) text += fmt::format("  waiting {}", plural(s.files_waiting, "file"));
  return text;
}

// Whether the config has a layer of this type, in blocks too.
bool has_layer(const ConfigNode& layers, std::string_view type) {
  return std::ranges::any_of(layers.items, [&](const ConfigNode& layer) {
    const ConfigNode *of = layer.find("type"), *inside = layer.find("layers");
    return (of != nullptr && of->is_scalar() && of->scalar == type) ||
           (inside != nullptr && has_layer(*inside, type));
  });
}

// What a person should know of a stream before it begins.
std::vector<std::string> stream_lines(const RunFacts& facts) {
  const JobConfig& job = facts.job;
  std::vector<std::string> lines;
  const FollowKeys& follow = *job.follow();
  std::string where = "from its beginning";
  if (facts.stream && !facts.stream->file.empty()) {
    where = fmt::format("after record {} of {}, {} in all", with_commas(facts.stream->learnt),
                        facts.stream->file, plural(facts.stream->records, "record"));
  }
  lines.push_back(fmt::format("  data         follows {}, {}; {} to test", follow.path(), where,
                              with_commas(facts.test_samples)));
  lines.push_back(fmt::format(
      "  batch        {} at most; the end of a file ends a step{}", plural(job.train.batch, "sample"),
      job.train.max_steps > 0 ? fmt::format("; {} in all", plural(job.train.max_steps, "step")) : ""));
  for (const char* type : {"dropout", "batch_norm"}) {
    if (has_layer(job.model.layers, type))
      lines.push_back(
          fmt::format("  progressive  losses are those of training, with {}: what the model answers is "
                      "somewhat better",
                      type));
  }
  if (job.optimizer.type == OptimizerType::adagrad || job.optimizer.type == OptimizerType::rowwise_adagrad)
    lines.push_back(
        "  stream       adagrad's steps become smaller without end: later records change less and less");
  return lines;
}

std::string interval_text(double interval_s, double mtbf_s, const CheckpointConfig& checkpoint) {
  return fmt::format("a checkpoint every {} loses least with a failure every {}{}", duration_text(interval_s),
                     duration_text(mtbf_s),
                     checkpoint.mean_time_between_failures_s > 0
                         ? ""
                         : " (assumed; set checkpoint.mean_time_between_failures_s)");
}

void add_predicted_cost(const RunFacts& facts, std::vector<std::string>& lines) {
  if (!facts.predicted) return;
  const auto& [size, forecast] = *facts.predicted;
  lines.push_back(fmt::format(
      "  prediction   a checkpoint of {}: {}; snapshot memory {} on a server", bytes_text(size.total_bytes),
      cost_text(forecast.stall_s, forecast.copy_s, forecast.flush_s), bytes_text(size.snapshot_bytes)));
  lines.push_back(fmt::format("  interval     {}",
                              interval_text(forecast.interval_s, forecast.mtbf_s, facts.job.checkpoint)));
}

// Of a replay that has come to its end: a difference would have ended it.
std::string verdict_text(const RunFacts& facts, Clock end) {
  if (facts.n_compared == 0)
    return "no step could be compared; compare the values hash with the recorded run's";
  if (end < facts.train.last) return "stopped; no value differed so far from the recorded run's";
  return fmt::format("the same values as the recorded run's, compared after {} of its steps",
                     facts.n_compared);
}

}  // namespace

std::vector<std::string> header_lines(const RunFacts& facts) {
  std::vector<std::string> lines;
  const auto line = [&](std::string text) { lines.push_back(std::move(text)); };
  const JobConfig& job = facts.job;
  const ClusterMap& c = facts.cluster;
  const std::int64_t steps = facts.train.last.value;
  std::vector<std::string> hosts = facts.hosts;
  std::sort(hosts.begin(), hosts.end());
  const auto n_hosts = std::unique(hosts.begin(), hosts.end()) - hosts.begin();
  line(fmt::format("varscope {}  {}  (run {}, attempt {})", kVersion, job.job.name, facts.run_id,
                   facts.attempt));
  line(fmt::format("  config       {}", job.file));
  line(fmt::format("  ranks        {}: {}, {}, {}; {}",
                   facts.one_process ? "one process"
                                     : fmt::format("{} on {}", plural(c.n_servers() + c.n_workers(), "rank"),
                                                   plural(n_hosts, "host")),
                   plural(c.n_servers(), "server"), plural(c.n_workers(), "worker"),
                   plural(c.logical_workers, "logical worker"), mode_text(facts.rule)));
  if (facts.replay_of.empty()) {
    for (std::string& text : mode_lines(job, facts.rule)) line(std::move(text));
    for (std::string& text : compression_lines(job, facts.rule, facts.variables)) line(std::move(text));
  } else {
    line("  consistency  the order of pushes and reads, and so the bits, are those of the recorded run");
  }
  line(fmt::format("  hosts        {}", roles_text(facts)));
  line(fmt::format("  model        {} in {} ({}), {}", plural(facts.variables.n_parameters(), "parameter"),
                   plural(static_cast<std::int64_t>(facts.variables.size()), "variable"),
                   bytes_text(facts.variables.n_bytes()), choice_name(kOptimizerTypes, job.optimizer.type)));
  if (job.follow() != nullptr) {
    for (std::string& text : stream_lines(facts)) line(std::move(text));
  } else {
    line(fmt::format("  data         {} to train, {} to test", plural(facts.train_samples, "sample"),
                     with_commas(facts.test_samples)));
    line(fmt::format("  batch        {}, {} per epoch, {} in all", plural(job.train.batch, "sample"),
                     plural(facts.train.steps_per_epoch, "step"), plural(steps, "step")));
  }
  line("  checkpoints  " + (facts.replay_of.empty() ? checkpoint_text(job) : "none of a replay"));
  add_predicted_cost(facts, lines);
  if (job.output.tensorboard)
    line(fmt::format("  tensorboard  tensorboard --logdir {}", tensorboard_dir(job)));
  line(fmt::format("  start        {}", facts.resumed_from.empty()
                                            ? fmt::format("from initial values, seed {}", job.job.seed)
                                            : fmt::format("resumed from {} at step {}", facts.resumed_from,
                                                          with_commas(facts.train.first.value))));
  for (const std::string& note : facts.notes) line(note);
  return lines;
}

Terminal::Terminal(const RunFacts& facts, RunRecords* records)
    : facts_(facts),
      records_(records),
      live_(facts.job.output.progress == Progress::on ||
            (facts.job.output.progress == Progress::automatic &&
             (isatty(STDERR_FILENO) != 0 || launcher_has_terminal()))),
      started_ns_(now_ns()) {}

void Terminal::record(const std::string& text) {
  if (records_ != nullptr) records_->log(text);
}

void Terminal::line(const std::string& text) {
  clear_progress();
  record(text);
  if (std::fputs((text + "\n").c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return;
  const char* why = std::strerror(errno);
  std::clearerr(stdout);
  if (!std::exchange(has_lost_lines_, true))
    warn({fmt::format("cannot write to standard output: {}; training goes on, and what it prints is lost",
                      why)});
}

void Terminal::clear_progress() {
  if (!on_line_) return;
  std::fputs("\r\x1b[K", stderr);
  on_line_ = false;
}

void Terminal::print_header() {
  for (const std::string& text : header_lines(facts_)) line(text);
}

void Terminal::on_step(const StepSummary& step) {
  speed_.add(step.sums);
  const std::int64_t every = facts_.job.train.log_every_steps;
  if (every > 0 && step.clock.value % every == 0) log_step(step);
  const bool has_progress = facts_.job.follow() == nullptr || step.stream;
  // Of a stream that has come to where its data end for now, the line may stay for long.
  const bool is_caught_up =
      step.stream && step.stream->files_waiting == 0 && step.stream->learnt == step.stream->file_records;
  if (live_ && has_progress && (is_caught_up || seconds_since(last_draw_ns_) > 0.1)) draw_progress(step);
}

void Terminal::log_step(const StepSummary& step) {
  const std::string speed = fmt::format("{} {}/s", with_commas(std::llround(speed_.window_samples_per_s())),
                                        unit_of(facts_.evaluation));
  const std::string text =
      step.stream
          ? fmt::format("step {}  {}  {}", step.clock.value, stream_text(*step.stream), speed)
          : fmt::format("step {}/{}  epoch {}  loss {}  {}", step.clock.value, facts_.train.last.value,
                        step.epoch, figure(mean_loss(speed_.window())), speed);
  record(text);
  if (!live_) std::fputs((text + "\n").c_str(), stderr);
  speed_.start_window();
}

void Terminal::draw_progress(const StepSummary& step) {
  last_draw_ns_ = now_ns();
  const char* end = has_launcher() ? "\r" : "";  // there it ends what is to be drawn
  if (step.stream) {
    std::fputs(fmt::format("\r\x1b[Kstep {}  {}{}", step.clock.value, stream_text(*step.stream), end).c_str(),
               stderr);
    on_line_ = true;
    return;
  }
  const std::int64_t done = step.clock.value - facts_.train.first.value;
  const double left = seconds_since(started_ns_) / static_cast<double>(done) *
                      static_cast<double>(facts_.train.last.value - step.clock.value);
  std::fputs(fmt::format("\r\x1b[Kstep {}/{}  epoch {}  loss {}  {} {}/s  {} left{}", step.clock.value,
                         facts_.train.last.value, step.epoch, figure(mean_loss(step.sums)),
                         with_commas(std::llround(speed_.samples_per_s())), unit_of(facts_.evaluation),
                         duration_text(left), end)
                 .c_str(),
             stderr);
  on_line_ = true;
}

void Terminal::on_epoch(const EpochSummary& epoch) {
  last_epoch_ = epoch;
  line(fmt::format("epoch {}  step {}  training {}", epoch.epoch, epoch.clock.value,
                   sums_text(epoch.sums, facts_.evaluation.has_accuracy, "  ")));
}

void Terminal::on_eval(const EvalSummary& eval) {
  std::string text =
      fmt::format("evaluation after step {}  test loss {}", eval.clock.value, figure(mean_loss(eval.sums)));
  last_eval_ = "loss " + figure(mean_loss(eval.sums));
  for (const MetricValue& v : eval.metrics) {
    text += "  " + to_text(v);
    if (v.matrix.empty()) *last_eval_ += ", " + to_text(v);
  }
  line(text);
}

void Terminal::on_checkpoint(const CheckpointSummary& c) {
  line(fmt::format("checkpoint of step {}  {}  {}  training stopped {:.1f} ms, written in {:.2f} s",
                   c.clock.value, c.path, bytes_text(c.bytes), c.stall_s * 1e3, c.total_s));
  ++n_saves_;
  save_stall_s_ += c.stall_s;
  save_copy_s_ += c.copy_s;
  save_write_s_ += c.total_s;
}

void Terminal::on_request(const std::string& what) { line(what); }

void Terminal::on_note(const std::string& what) { line("note: " + what); }

void Terminal::on_warning(const std::string& what) {
  clear_progress();
  record("warning: " + what);
  warn({what});
}

// Of a run that ends the error says it.
void Terminal::on_not_finite(const NotFiniteSummary& summary) {
  if (!summary.ends) return on_warning(summary.what + "; training goes on (train.on_nan: warn)");
  clear_progress();
  record(summary.what);
}

void Terminal::on_checkpoint_failed(Clock clock, const std::string& why) {
  on_warning(fmt::format("the checkpoint of step {} was given up: {}; training goes on", clock.value, why));
}

void Terminal::print_times(const FinishSummary& finish) {
  const WorkerTimes& t = finish.times;
  const std::int64_t all = t.compute_ns + t.communicate_ns + t.wait_ns + t.data_ns;
  const auto share = [&](std::int64_t ns) { return percent(ns, all); };
  line(fmt::format("  workers      compute {} %, data {} %, communication {} %, waiting {} %",
                   share(t.compute_ns), share(t.data_ns), share(t.communicate_ns), share(t.wait_ns)));
}

void Terminal::print_compression(const CompressionReport& c) {
  if (facts_.variables.compressions().empty() || c.full_up == 0) return;
  std::string text = fmt::format("  compression  {} up, {} of what it would be in full; {} down, {}",
                                 bytes_text(c.up), figure(CompressionReport::share(c.up, c.full_up)),
                                 bytes_text(c.down), figure(CompressionReport::share(c.down, c.full_down)));
  const auto most = std::ranges::max_element(c.residuals, {}, &CompressionReport::Residual::ratio);
  if (most != c.residuals.end())
    text += fmt::format("; kept back {} of the gradients' norm in {}", figure(most->ratio()), most->scope);
  line(text);
}

void Terminal::print_actual_cost() {
  if (n_saves_ == 0) return;
  const double stall_s = save_stall_s_ / n_saves_, copy_s = save_copy_s_ / n_saves_,
               write_s = save_write_s_ / n_saves_;
  if (facts_.predicted) {
    const CheckpointForecast& f = facts_.predicted->forecast;
    line(fmt::format("  predicted    {}", cost_text(f.stall_s, f.copy_s, f.flush_s)));
    line(fmt::format("  actual       {}, on average", cost_text(stall_s, copy_s, write_s)));
  }
  const double mtbf_s = facts_.job.checkpoint.mean_time_between_failures_s > 0
                            ? facts_.job.checkpoint.mean_time_between_failures_s
                            : kAssumedMtbf_s;
  line(fmt::format("  interval     {}",
                   interval_text(best_checkpoint_interval(stall_s + copy_s, mtbf_s, write_s), mtbf_s,
                                 facts_.job.checkpoint)));
}

void Terminal::print_stream(const StreamSummary& s, bool has_done_nothing) {
  if (has_done_nothing) line("  nothing to do: no record has come that was not learnt before");
  line(fmt::format("  stream       {} learnt in {}{}{}", plural(s.records, "record"), plural(s.files, "file"),
                   s.file.empty() ? "" : ", the last one " + s.file,
                   s.left_out > 0 ? fmt::format("; {} left out: {}", plural(s.left_out, "bad record"),
                                                facts_.job.run_dir() + "/bad_records.txt")
                                  : ""));
  if (s.late > 0) line(fmt::format("  late         {} not learnt from", plural(s.late, "file")));
  if (s.total.samples == 0) return;
  line(fmt::format("  progressive  loss {} over all records before each was learnt, {} over the last {}",
                   figure(mean_loss(s.total)), figure(mean_loss(s.window)), with_commas(s.window.samples)));
}

void Terminal::on_finish(const FinishSummary& finish) {
  const double seconds = seconds_since(started_ns_);
  line(fmt::format("{} at step {} after {}{}", finish.stopped ? "stopped early" : "finished",
                   finish.clock.value, duration_text(seconds),
                   finish.ended_why.empty() ? "" : ": " + finish.ended_why));
  const std::string go_on = FailureReport::go_on();
  if (finish.stopped && facts_.train.last > finish.clock && !go_on.empty() &&
      !FailureReport::has_told_go_on())
    line("  " + go_on);
  if (finish.stream) {
    print_stream(*finish.stream, finish.clock == facts_.train.first);
  } else if (finish.clock == facts_.train.first && !finish.ended_why.empty()) {
    line("  nothing to do: the run had ended at this step already; raise train.stop.patience to go on");
  } else if (finish.clock == facts_.train.first) {
    line(fmt::format("  nothing to do: the checkpoint is at the last step already; raise {} to go on",
                     limits_text(facts_)));
  }
  if (last_epoch_) {
    line(fmt::format("  training     loss {} over epoch {}", figure(mean_loss(last_epoch_->sums)),
                     last_epoch_->epoch));
  }
  if (last_eval_) line("  test         " + *last_eval_);
  if (finish.best) {
    line(fmt::format(
        "  best         {} {} after step {}: {}", finish.best->metric, figure(finish.best->value),
        finish.best->step.value,
        finish.best->checkpoint.empty() ? "no checkpoint of that step is here" : finish.best->checkpoint));
  }
  if (finish.not_finite_since) {
    line(fmt::format("  not finite   since step {}: of no use (train.on_nan: warn)",
                     finish.not_finite_since->value));
  }
  for (const std::string& text : facts_.left_out) line("  bad records  " + text);
  if (speed_.total_samples() > 0) {
    line(fmt::format("  speed        {} {}/s", with_commas(std::llround(speed_.samples_per_s())),
                     unit_of(facts_.evaluation)));
    print_times(finish);
  }
  if (finish.dropped) line("  dropped      " + text_of(*finish.dropped));
  print_compression(finish.compression);
  if (finish.consistency) {
    for (const auto& [name, text] : lines_of(*finish.consistency))
      line(fmt::format("  {:<12} {}", name, text));
  }
  if (facts_.replay_of.empty()) {
    line(fmt::format(
        "  checkpoints  {} written, {} failed, {} skipped, {} queued; training stopped {:.1f} ms for them",
        finish.checkpoints, finish.failed_checkpoints, finish.skipped_checkpoints, finish.queued_checkpoints,
        finish.checkpoint_stall_s * 1e3));
    print_actual_cost();
  } else {
    line("  replay       " + verdict_text(facts_, finish.clock));
  }
  line(fmt::format("  values hash  {}", finish.values_hash.hex()));
}

}  // namespace varscope
