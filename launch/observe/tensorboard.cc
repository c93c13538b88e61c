#include "launch/observe/tensorboard.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/ids.h"
#include "common/config/config_node.h"
#include "launch/observe/tensorboard.pb.h"

namespace varscope {
namespace {

constexpr int kSessionStart = 1, kSuccess = 1;         // SessionLog.status, SessionEnd.status
constexpr int kTensorData = 2;                         // Metadata.data_class
constexpr int kFloatTensor = 1, kStringTensor = 7;     // Tensor.dtype
constexpr const char* kFileVersion = "brain.Event:2";  // with it TensorBoard obeys SessionLog.START

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

board::Event event_at(Clock clock) {
  board::Event event;
  event.set_wall_time(unix_time());
  event.set_step(clock.value);
  return event;
}

board::Summary::Value& add_value(board::Event& event, const std::string& tag) {
  board::Summary::Value& value = *event.mutable_summary()->add_value();
  value.set_tag(tag);
  return value;
}

board::Summary::Value& add_value(board::Event& event, const std::string& tag, const char* plugin) {
  board::Summary::Value& value = add_value(event, tag);
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name(plugin);
  value.mutable_metadata()->set_data_class(kTensorData);
  return value;
}

void add_hparams(board::Event& event, const std::string& tag, const board::Hparams& hparams) {
  board::Summary::Value& value = add_value(event, tag, "hparams");
  value.mutable_metadata()->mutable_plugin_data()->set_content(hparams.SerializeAsString());
  value.mutable_tensor()->set_dtype(kFloatTensor);  // of no elements: all is in the metadata
  value.mutable_tensor()->mutable_tensor_shape()->add_dim()->set_size(0);
}

board::HparamValue hparam(const std::string& text) {
  board::HparamValue value;
  double number = 0;
  if (parse_number(text, number)) {
    value.set_number_value(number);
  } else if (text == "true" || text == "false") {
    value.set_bool_value(text == "true");
  } else {
    value.set_string_value(text);
  }
  return value;
}

// Buckets that touch each other: TensorBoard knows right ends alone, and of the outermost ones takes the
// least and the greatest value.
void set_histogram(const Histogram& h, board::Histogram& out) {
  out.set_min(h.min());
  out.set_max(h.max());
  out.set_num(static_cast<double>(h.count()));
  out.set_sum(h.sum());
  out.set_sum_squares(h.sum_of_squares());
  for (const Histogram::Bucket& b : h.buckets()) {
    const int n = out.bucket_limit_size();
    if (n > 0 && out.bucket_limit(n - 1) < b.left) {
      out.add_bucket_limit(b.left);
      out.add_bucket(0);
    }
    out.add_bucket_limit(b.right);
    out.add_bucket(static_cast<double>(b.count));
  }
}

std::string code_block(const std::string& text, const char* language) {
  return fmt::format("```{}\n{}{}```\n", language, text, text.ends_with('\n') ? "" : "\n");
}

}  // namespace

std::string tensorboard_dir(const JobConfig& job) { return job.run_dir() + "/tensorboard"; }

TensorBoard::TensorBoard(const RunFacts& facts, const TransportStats& traffic, RunObserver& warnings)
    : facts_(facts),
      traffic_(traffic),
      warnings_(warnings),
      schedule_(facts.job.optimizer),
      file_(tensorboard_dir(facts.job),
            facts.hosts.at(static_cast<std::size_t>(facts.cluster.rank_of(ServerId(0)).value))),
      traffic_before_(traffic) {}

TensorBoard::~TensorBoard() {
  file_.finish();
  tell_problem();
}

void TensorBoard::tell_problem() {
  const std::string problem = file_.take_problem();
  if (!problem.empty()) warnings_.on_warning(problem);
}

void TensorBoard::write(Clock clock, const std::vector<Scalar>& scalars) {
  board::Event event = event_at(clock);
  for (const auto& [tag, value] : scalars) add_value(event, tag).set_simple_value(static_cast<float>(value));
  file_.write(event.SerializeAsString());
  tell_problem();
}

void TensorBoard::write_text(const std::string& tag, const std::string& markdown) {
  board::Event event = event_at(facts_.train.first);
  board::Tensor& tensor = *add_value(event, tag, "text").mutable_tensor();
  tensor.set_dtype(kStringTensor);
  tensor.mutable_tensor_shape();
  tensor.add_string_val(markdown);
  file_.write(event.SerializeAsString());
}

void TensorBoard::write_hyperparameters() {
  board::Hparams hparams;
  hparams.mutable_session_start_info()->set_start_time_secs(unix_time());
  for (const auto& [key, text] : facts_.hyperparameters)
    (*hparams.mutable_session_start_info()->mutable_hparams())[key] = hparam(text);
  board::Event event = event_at(facts_.train.first);
  add_hparams(event, "_hparams_/session_start_info", hparams);
  file_.write(event.SerializeAsString());
}

void TensorBoard::write_start(const std::vector<std::string>& header) {
  board::Event version = event_at(Clock(0));
  version.set_file_version(kFileVersion);
  file_.write(version.SerializeAsString());
  // What an earlier attempt wrote of the steps that this one makes again is gone from the curves.
  board::Event start = event_at(Clock(facts_.train.first.value + 1));
  start.mutable_session_log()->set_status(kSessionStart);
  file_.write(start.SerializeAsString());
  if (!facts_.graph.empty()) {
    board::Event graph = event_at(Clock(0));
    graph.set_graph_def(facts_.graph.data(), facts_.graph.size());
    file_.write(graph.SerializeAsString());
  }
  write_hyperparameters();
  std::string lines;
  for (const std::string& line : header) lines += line + "\n";
  write_text("header", code_block(lines, ""));
  write_text("config", code_block(dump(facts_.job), "yaml"));
}

void TensorBoard::on_step(const StepSummary& step) {
  speed_.add(step.sums);
  times_ += step.times;
  compression_ += step.compression;
  n_dropped_ += step.dropped.samples;
  n_samples_ += step.dropped.of_samples;
  ++n_steps_;
  const std::int64_t every = facts_.job.train.log_every_steps;
  if (every == 0 || step.clock.value % every != 0) return;
  std::vector<Scalar> scalars{{"loss/train", mean_loss(speed_.window())},
                              {"optimizer/learning_rate", schedule_.rate(step.clock)},
                              {"speed/samples_per_s", speed_.window_samples_per_s()}};
  if (facts_.evaluation.has_accuracy) scalars.push_back({"accuracy/train", mean_accuracy(speed_.window())});
  if (facts_.job.cluster.backup_workers > 0) {
    scalars.push_back(
        {"consistency/dropped",
         n_samples_ > 0 ? static_cast<double>(n_dropped_) / static_cast<double>(n_samples_) : 0});
    n_dropped_ = n_samples_ = 0;
  }
  if (step.stream) {
    scalars.push_back({"loss/progressive", mean_loss(step.stream->total)});
    scalars.push_back({"loss/progressive_window", mean_loss(step.stream->window)});
    scalars.push_back({"stream/files_waiting", static_cast<double>(step.stream->files_waiting)});
  }
  const std::int64_t all = times_.compute_ns + times_.communicate_ns + times_.wait_ns + times_.data_ns;
  const auto add_share = [&](const char* tag, std::int64_t ns) {
    if (all > 0) scalars.push_back({tag, static_cast<double>(ns) / static_cast<double>(all)});
  };
  add_share("time/compute", times_.compute_ns);
  add_share("time/communicate", times_.communicate_ns);
  add_share("time/wait", times_.wait_ns);
  add_share("time/data", times_.data_ns);
  const auto add_bytes = [&](const char* tag, std::uint64_t now, std::uint64_t before) {
    scalars.push_back({tag, static_cast<double>(now - before) / static_cast<double>(n_steps_)});
  };
  if (!facts_.one_process) {
    add_bytes("bytes/server_0_sent_per_step", traffic_.bytes_sent, traffic_before_.bytes_sent);
    add_bytes("bytes/server_0_received_per_step", traffic_.bytes_received, traffic_before_.bytes_received);
  }
  add_compression(scalars);
  write(step.clock, scalars);
  speed_.start_window();
  times_ = {};
  n_steps_ = 0;
  traffic_before_ = traffic_;
}

void TensorBoard::add_compression(std::vector<Scalar>& scalars) {
  const CompressionReport c = std::exchange(compression_, {});
  if (facts_.variables.compressions().empty()) return;
  scalars.push_back({"compression/up", CompressionReport::share(c.up, c.full_up)});
  scalars.push_back({"compression/down", CompressionReport::share(c.down, c.full_down)});
  for (const CompressionReport::Residual& r : c.residuals)
    scalars.push_back({"compression/residual/" + r.scope, r.ratio()});
}

void TensorBoard::on_epoch(const EpochSummary& epoch) {
  std::vector<Scalar> scalars{{"loss/epoch", mean_loss(epoch.sums)}};
  if (facts_.evaluation.has_accuracy) scalars.push_back({"accuracy/epoch", mean_accuracy(epoch.sums)});
  write(epoch.clock, scalars);
}

void TensorBoard::on_eval(const EvalSummary& eval) {
  std::vector<Scalar> scalars{{"loss/test", mean_loss(eval.sums)}};
  for (const MetricValue& v : eval.metrics) {
    if (v.matrix.empty()) scalars.push_back({v.name + "/test", v.value});
  }
  write(eval.clock, scalars);
}

void TensorBoard::on_histograms(const HistogramSummary& all) {
  for (const HistogramSummary::Variable& v : all.variables) {
    board::Event event = event_at(all.clock);
    for (const auto& [what, histogram] :
         {std::pair("values", &v.values), std::pair("gradients", &v.gradient)}) {
      if (histogram->count() > 0)
        set_histogram(*histogram, *add_value(event, v.name + "/" + what).mutable_histo());
    }
    if (event.has_summary()) file_.write(event.SerializeAsString());
  }
  tell_problem();
}

void TensorBoard::on_consistency(const ConsistencySummary& s) {
  double total_s = 0, gate_s = 0, drain_s = 0, wait_s = 0;
  std::int64_t lag = 0;
  for (const ConsistencySummary::Worker& w : s.workers) {
    total_s += w.total_s;
    gate_s += w.gate_wait_s;
    drain_s += w.drain_wait_s;
    wait_s += w.wait_s;
    lag = std::max(lag, w.lag);
  }
  double service_s = 0;
  for (const StalenessReport& server : s.servers) service_s = std::max(service_s, mean_service_s(server));
  std::vector<Scalar> scalars{{"consistency/staleness_mean", s.all.leads.mean()},
                              {"consistency/staleness_most", static_cast<double>(s.all.leads.most)},
                              {"consistency/delay_mean", s.all.delays.mean()},
                              {"consistency/lag_most", static_cast<double>(lag)},
                              {"consistency/service_s", service_s},
                              {"consistency/held_s", static_cast<double>(s.all.held_ns) * 1e-9}};
  if (s.slowest) scalars.push_back({"consistency/slowest_ratio", s.slowest->ratio});
  if (total_s > 0) {
    scalars.push_back({"consistency/wait_gate", gate_s / total_s});
    scalars.push_back({"consistency/wait_servers", std::max(0.0, wait_s - gate_s - drain_s) / total_s});
    scalars.push_back({"consistency/wait_drains", drain_s / total_s});
  }
  write(s.clock, scalars);
}

void TensorBoard::on_checkpoint(const CheckpointSummary& c) {
  write(c.clock, {{"checkpoint/bytes", static_cast<double>(c.bytes)},
                  {"checkpoint/stall_s", c.stall_s},
                  {"checkpoint/copy_s", c.copy_s},
                  {"checkpoint/total_s", c.total_s}});
}

// TensorBoard keeps the first word about the end of a run: nothing is said of one that may go on.
void TensorBoard::on_finish(const FinishSummary& finish) {
  if (finish.stopped) return;
  board::Hparams hparams;
  hparams.mutable_session_end_info()->set_status(kSuccess);
  hparams.mutable_session_end_info()->set_end_time_secs(unix_time());
  board::Event event = event_at(finish.clock);
  add_hparams(event, "_hparams_/session_end_info", hparams);
  file_.write(event.SerializeAsString());
}

}  // namespace varscope
