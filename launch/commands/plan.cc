#include "launch/commands/plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/cluster.h"
#include "common/transport/step_traffic.h"
#include "common/transport/wire_codec.h"
#include "common/variables/row_layout.h"
#include "launch/job/job_setup.h"
#include "launch/job/job_warnings.h"
#include "launch/job/start_values.h"
#include "launch/job/step_rules.h"
#include "launch/observe/checkpoint_forecast.h"
#include "launch/observe/mode_words.h"
#include "launch/observe/output.h"
#include "ps/aggregator.h"
#include "ps/shared_answers.h"
#include "ps/staged_answers.h"
#include "ps/update/deferred_update.h"
#include "ps/update/optimizer.h"
#include "worker/client/gradient_coder.h"
#include "worker/train/trainer.h"
#include "worker/train/worker_memory.h"

namespace varscope {
namespace {

// Upper bounds of the indexes of rows and of waiting ids: slots of 5 bytes that are at least 7/16 full.
constexpr std::int64_t kIndexBytesOfRow = 12, kBytesOfWaiting = 28;

// How many parts the server with most of them has.
std::int64_t most_parts(const VariableSpec& v, int n_servers) {
  std::vector<std::int64_t> parts(static_cast<std::size_t>(n_servers), 0);
  for (std::int64_t part = 0; part < v.table->parts; ++part)
    ++parts[static_cast<std::size_t>(v.owner(part, n_servers).value)];
  return *std::ranges::max_element(parts);
}

// "rows up to 8,192 (max_rows), 4,096 on a server: 312.0 KiB", and of a million where nothing limits them.
std::string memory_text(const VariableSpec& v, int n_servers, const char* what, const char* key,
                        std::int64_t most_of_part, std::int64_t bytes_of_each) {
  const std::int64_t parts = v.table->parts, of_server = most_parts(v, n_servers);
  if (most_of_part == 0) {
    constexpr std::int64_t kMillion = 1'000'000;
    return fmt::format("  {} without a limit: a million are up to {} on the server with most, {} B each\n",
                       what, bytes_text(kMillion * of_server / parts * bytes_of_each), bytes_of_each);
  }
  return fmt::format("  {} up to {} ({}), {} on the server with most: {}\n", what,
                     with_commas(most_of_part * parts), key, with_commas(most_of_part * of_server),
                     bytes_text(most_of_part * of_server * bytes_of_each));
}

// Of a table, under its line: what is known of its rows.
std::string rows_text(const VariableSpec& v, const Optimizer& optimizer, int n_servers) {
  std::vector<RowSlot> slots;
  for (const Slot& s : optimizer.row_slots()) slots.push_back({s.name, s.is_per_row ? 1 : v.shape[1]});
  const RowLayout row(v.dtype, v.shape[1], slots);
  const auto row_bytes = static_cast<std::int64_t>(row.row_bytes());
  std::string text = fmt::format(
      "table {}: {}, units: {}; a row is {} of values, {} on its server\n", v.name, v.table->str(),
      v.shape[1], bytes_text(static_cast<std::int64_t>(row.value_bytes())), bytes_text(row_bytes));
  text += memory_text(v, n_servers, "rows", "max_rows", v.table->most_rows_of_part(),
                      row_bytes + kIndexBytesOfRow);
  if (v.table->entry > 1)
    text += memory_text(v, n_servers, "waiting ids", "max_waiting", v.table->most_waiting_of_part(),
                        kBytesOfWaiting);
  return text;
}

// "0-3,7": the servers of one variable's slices.
std::string servers_text(const std::set<int>& servers) {
  std::string text;
  for (auto it = servers.begin(); it != servers.end();) {
    const int first = *it++;
    int last = first;
    for (; it != servers.end() && *it == last + 1; ++it) last = *it;
    text += (text.empty() ? "" : ",") +
            (first == last ? std::to_string(first) : fmt::format("{}-{}", first, last));
  }
  return text;
}

std::string tree_text(const VariableTable& table, int n_servers) {
  std::string out = fmt::format("{:<34} {:<16} {:>9} {:>10} {:>7}  {}\n", "scope / variable", "shape",
                                "dtype", "bytes", "slices", "servers");
  std::vector<std::string> open;  // the path printed so far
  for (const VariableSpec& v : table.variables()) {
    std::vector<std::string> path;
    for (std::size_t from = 0; from <= v.name.size();) {
      const std::size_t slash = std::min(v.name.find('/', from), v.name.size());
      path.push_back(v.name.substr(from, slash - from));
      from = slash + 1;
    }
    const std::size_t depth = path.size() - 1;
    for (std::size_t i = 0; i < depth; ++i) {
      if (i < open.size() &&
          std::equal(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(i) + 1, open.begin()))
        continue;
      out += fmt::format("{}{}/\n", std::string(2 * i, ' '), path[i]);
    }
    open.assign(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(depth));
    const auto slices = v.is_table() ? std::int64_t{v.table->parts}
                                     : static_cast<std::int64_t>(slice_variable(v.shape, v.dtype).size());
    std::set<int> servers;
    for (std::int64_t i = 0; i < slices; ++i) servers.insert(v.owner(i, n_servers).value);
    const std::int64_t bytes = v.shape.n_elements() * static_cast<std::int64_t>(size_of(v.dtype));
    out += fmt::format("{:<34} {:<16} {:>9} {:>10} {:>7}  {}{}\n", std::string(2 * depth, ' ') + path.back(),
                       v.is_table() ? fmt::format("[rows, {}]", v.shape[1]) : v.shape.str(),
                       to_string(v.dtype), v.is_table() ? "rows" : bytes_text(bytes), slices,
                       servers_text(servers), v.trainable ? "" : "  (not trained)");
  }
  return out;
}

std::string slices_text(const VariableTable& table, int n_servers) {
  std::string out = fmt::format("\n{:<34} {:>6} {:>7}  {}\n", "variable", "slice", "server",
                                "shape, then offset,extent of each axis");
  for (const VariableSpec& v : table.variables()) {
    const std::vector<Slice> slices = slice_variable(v.shape, v.dtype);
    for (std::size_t i = 0; i < slices.size(); ++i) {
      const ServerId owner = v.owner(static_cast<std::int64_t>(i), n_servers);
      out += fmt::format("{:<34} {:>6} {:>7}  {}\n", v.name, i, owner.value, slices[i].spec());
    }
  }
  return out;
}

std::string load_text(const BucketPlan& plan, std::int64_t model_bytes, int n_servers) {
  std::string out =
      fmt::format("\n{:<10} {:>12} {:>8} {:>14}\n", "server", "bytes", "buckets", "share of mean");
  const double mean = static_cast<double>(model_bytes) / n_servers;
  for (int s = 0; s < n_servers; ++s) {
    const std::int64_t bytes = plan.server_bytes(ServerId(s));
    out += fmt::format("{:<10} {:>12} {:>8} {:>14.2f}\n", s, bytes_text(bytes),
                       plan.of_server(ServerId(s)).size(), mean > 0 ? static_cast<double>(bytes) / mean : 0);
  }
  return out;
}

// How workers sum their leaves: of the worker with most, and of all. Outside BSP of a ticket.
struct WorkerSums {
  std::int64_t most = 0, most_coded = 0, buffers = 0;  // gradients of a push, codes of one
  std::int64_t contributions = 0;
};

WorkerSums worker_sums(const ClusterMap& cluster, const StepRule& rule) {
  WorkerSums all;
  for (const WorkerId w : cluster.workers.ids()) {
    const LeafRange leaves = cluster.leaves_of(w);
    const LocalSumPlan sums = rule.is_bsp() ? LocalSumPlan::make(leaves, cluster.logical_workers)
                                            : ticket_sum_plan(rule, cluster, w);
    all.most = std::max(all.most, std::ssize(sums.contributions));
    all.most_coded = std::max<std::int64_t>(all.most_coded, rule.is_bsp() ? leaves.size() : 1);
    all.buffers = std::max<std::int64_t>(all.buffers, sums.n_buffers);
    all.contributions += std::ssize(sums.contributions);
  }
  return all;
}

// What one worker pushes and pulls in a step: the one with most. Outside BSP, for a ticket.
std::string pushes_text(const BucketPlan& plan, const WorkerSums& sums, const StepRule& rule) {
  std::int64_t n_pushed = 0, pushed = 0, messages = 0, pulled = 0, chunks = 0;
  for (const Bucket& b : plan.buckets()) {
    if (!b.is_pushed()) continue;
    const bool is_encoded = codec_of(b, Flow::gradients).has_value();
    const std::int64_t n = is_encoded ? sums.most_coded : sums.most;
    ++n_pushed;
    messages += n * b.n_wire_chunks() + 1;
    pushed += n * wire_bytes(b, Flow::gradients, is_encoded ? WireForm::encoded : WireForm::full);
    chunks += b.n_wire_chunks();
    pulled += wire_bytes(b, Flow::values, form_of_values(b));
  }
  return fmt::format("\nper {}: {}; {} pushed in {}, {} pulled in {}\n",
                     rule.is_bsp() ? "step and worker" : "ticket", counted(n_pushed, "bucket"),
                     bytes_text(pushed), counted(messages, "message"), bytes_text(pulled),
                     counted(chunks + n_pushed, "message"));
}

// "per step: 1,000 bytes up, 4,000 bytes down", and by which form.
std::string traffic_text(const BucketPlan& plan, const ClusterMap& cluster, const StepRule& rule) {
  const StepTraffic t = step_traffic(plan, cluster, rule);
  std::string out = fmt::format("per step, all workers: {} bytes up, {} bytes down\n", with_commas(t.up),
                                with_commas(t.down));
  std::set<std::string> forms;
  bool is_full_at_times = false;
  for (const Bucket& b : plan.buckets()) {
    if (!b.compression.exists()) continue;
    forms.insert(b.compression.str());
    is_full_at_times = is_full_at_times || b.compression.has_residual() ||
                       (b.compression.type && b.compression.start_step > 0);
  }
  if (forms.empty()) return out;
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 1;
  };
  return out +
         fmt::format("compression: {}; {:.4f} of the bytes up in full ({}), {:.4f} of those down ({}){}\n",
                     comma_list({forms.begin(), forms.end()}), share(t.up, t.full_up), with_commas(t.full_up),
                     share(t.down, t.full_down), with_commas(t.full_down),
                     is_full_at_times ? "; steps that go up in full are not in it" : "");
}

// What a server receives pushes into: the ring of each bucket, up to the limit of all.
std::int64_t receive_bytes(const BucketPlan& plan, const ClusterMap& cluster, const StepRule& rule,
                           const WorkerSums& sums) {
  std::int64_t receive = 0;
  for (const Bucket& b : plan.buckets()) {
    const bool is_encoded = codec_of(b, Flow::gradients).has_value();
    receive +=
        (is_encoded && rule.is_bsp() ? std::int64_t{2} * cluster.logical_workers : sums.contributions) *
        std::min(b.n_wire_chunks(), Aggregator::Limits{}.max_window) * b.largest_chunk_bytes();
  }
  return std::min(receive, static_cast<std::int64_t>(Aggregator::Limits{}.max_bytes));
}

// What some jobs need on a server besides, at most.
std::string more_of_server(const JobConfig& job, const BucketPlan& plan, const StepRule& rule,
                           const ClusterMap& cluster) {
  std::int64_t gradients = 0, answers = 0;
  for (int i = 0; i < cluster.n_servers(); ++i) {
    const ServerId s(i);
    if (!rule.is_bsp()) {
      answers = std::max(answers, static_cast<std::int64_t>(StagedAnswers::bytes_for(
                                      plan, s, cluster.n_workers(), Aggregator::Limits{}.max_bytes)));
    }
    if (rule.is_bsp())  // else workers take norms, in place
      gradients = std::max(gradients, DeferredUpdate::gradient_bytes(plan, job.optimizer.clip, s));
    if (rule.has_backups())
      answers = std::max(answers, static_cast<std::int64_t>(SharedAnswers::bytes_for(plan, s, rule.backups)));
  }
  std::string text;
  if (gradients > 0) text += fmt::format(" + {} (gradients, to clip by norm)", bytes_text(gradients));
  if (rule.has_backups())
    text += fmt::format(" + {} (answers that late workers take later)", bytes_text(answers));
  if (!rule.is_bsp()) text += fmt::format(" + {} (copies that answers leave from)", bytes_text(answers));
  return text;
}

std::string memory_text(const JobConfig& job, const ClusterMap& cluster,
                        const std::vector<std::string>& hosts, const BucketPlan& plan, const StepRule& rule,
                        const WorkerSums& sums, const WorkerModel& model) {
  const auto slots = static_cast<std::int64_t>(Optimizer(job.optimizer).slots().size());
  const CheckpointSize checkpoint = CheckpointSize::of(plan, cluster, hosts, slots, job.checkpoint);
  const WorkerMemory worker =
      worker_memory(job, cluster.logical_workers, model.model,
                    model.evaluation ? &*model.evaluation : nullptr, *model.train, model.test.get());
  const std::int64_t n_sets = rule.delay + 1;
  const std::string sets = n_sets > 1 ? fmt::format(", {} of each: cluster.delay", n_sets) : "";
  const std::int64_t coded =
      GradientCoder::n_bytes(plan, static_cast<int>(sums.most_coded), static_cast<int>(n_sets));
  const std::string compressing =
      coded > 0 ? fmt::format(" + {} (compressed gradients, and what they lose)", bytes_text(coded)) : "";
  return fmt::format(
      "memory: a server up to {} (values and {}) + {} (receive buffers){} + {} (checkpoint "
      "snapshot); a worker {} (values and {}{}){} + {} (activations of {}) + {} "
      "(evaluation) + {} (data)\n",
      bytes_text(checkpoint.largest_shard_bytes), counted(slots, "slot"),
      bytes_text(receive_bytes(plan, cluster, rule, sums)), more_of_server(job, plan, rule, cluster),
      bytes_text(checkpoint.snapshot_bytes), bytes_text(n_sets * model.table.n_bytes() * (1 + sums.buffers)),
      counted(sums.buffers, "gradient buffer"), sets, compressing, bytes_text(worker.activations),
      counted(worker.largest_part, "sample"), bytes_text(worker.evaluation), bytes_text(worker.data));
}

}  // namespace

std::string plan_text(const JobConfig& job, int n_servers, int n_workers, PlanDetail detail,
                      const LayerRegistry& layers) {
  const std::vector<std::string> hosts(static_cast<std::size_t>(n_servers + n_workers), "host");
  const ClusterMap cluster = assign_roles(hosts, n_servers, static_cast<int>(job.cluster.logical_workers));
  check_backups_of_cluster(job, cluster);
  const auto model = load_worker_model(job, layers);
  checkpoint_names(job, model->table);  // throws where train would
  warn(model->warnings);
  warn(worker_warnings(job, cluster.logical_workers));
  if (job.follow() == nullptr)
    warn(start_step_warnings(job, model->table,
                             last_step(job, steps_per_epoch(model->train->size(), job.train.batch))));
  const StepRule rule = step_rule_of(job, carries_state(*model));
  const BucketPlan plan = BucketPlan::make(model->table, n_servers, chunk_rule(rule));
  const Optimizer optimizer(job.optimizer);
  const std::int64_t model_bytes = model->table.n_bytes();

  std::string out = fmt::format("{}: {}, {}, {}; {}\n", job.job.name, counted(n_servers, "server"),
                                counted(n_workers, "worker"),
                                counted(cluster.logical_workers, "logical worker"), mode_text(rule));
  for (const std::string& line : mode_lines(job, rule)) out += line + "\n";
  for (const std::string& line : compression_lines(job, rule, model->table)) out += line + "\n";
  out += "\n";
  out += tree_text(model->table, n_servers);
  out += fmt::format("total: {} parameters, {}\n", with_commas(model->table.n_parameters()),
                     bytes_text(model_bytes));
  for (const VariableSpec& v : model->table.variables()) {
    if (v.is_table()) out += rows_text(v, optimizer, n_servers);
  }
  if (detail == PlanDetail::slices) out += slices_text(model->table, n_servers);
  out += load_text(plan, model_bytes, n_servers);

  const WorkerSums sums = worker_sums(cluster, rule);
  out += pushes_text(plan, sums, rule);
  out += traffic_text(plan, cluster, rule);
  return out + memory_text(job, cluster, hosts, plan, rule, sums, *model);
}

}  // namespace varscope
