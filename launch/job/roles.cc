#include "launch/job/roles.h"

#include <cblas.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/directory/retention.h"
#include "checkpoint/storage/atomic_file.h"
#include "checkpoint/storage/envelope.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "launch/job/finite_advice.h"
#include "launch/job/followed_data.h"
#include "launch/job/replay.h"
#include "launch/job/run_differences.h"
#include "launch/job/saved_model.h"
#include "launch/job/step_rules.h"
#include "launch/observe/checkpoint_forecast.h"
#include "launch/observe/output.h"
#include "launch/process/version.h"
#include "worker/data/followed_batches.h"
#include "worker/train/trainer.h"

namespace varscope {

void complete_context(JobContext& context) {
  if (context.start.is_replay())  // before anything else is found that follows from it
    check_replay(context.start.replay, record_header(context.start, context.cluster, context.facts));
  check_backups_of_cluster(context.job(), context.cluster);
  context.rule = step_rule_of(context.job(), context.facts.carries_state);
  context.plan = BucketPlan::make(context.facts.table, context.cluster.n_servers(), chunk_rule(context.rule));
  context.rows = RowPlan::make(context.facts.table, context.cluster.n_servers());
  context.values = StartValues(context.fs, context.start, context.facts, std::exchange(context.manifest, {}));
  context.train = make_train_plan(context.job(), context.facts, context.values.resumed(), context.state);
  if (context.start.is_replay()) {
    context.train.last = context.start.replay.last;
  } else if (context.job().cluster.record && context.cluster.n_workers() > RecordEvent::kMostWorkers) {
    fail(ErrorKind::config,
         "cluster.record: a record is of {} workers at most, this job has {}; remove the key",
         RecordEvent::kMostWorkers, context.cluster.n_workers());
  }
}

namespace {

// What a server does not know of the job.
Manifest base_manifest(const JobContext& c) {
  Manifest m;
  m.program_version = kVersion;
  m.parent =
      c.start.resume_path.empty() ? "" : std::filesystem::path(c.start.resume_path).filename().string();
  m.run_id = c.start.run_id;
  m.attempt = c.start.attempt;
  m.config_hash = config_hash(c.job().root).hex();
  return m;
}

// An update that waits for the disk is silent: not for so long that peers give this server up.
ShardCheckpointer::Options snapshot_options(const JobContext& context) {
  const JobConfig& job = context.job();
  return {job.checkpoint.snapshot, static_cast<std::size_t>(job.checkpoint.pool_mib) << 20,
          std::min(time_limit(job.cluster.stall_timeout_s) / 4, time_limit(job.checkpoint.timeout_s)),
          context.values.names(), job.checkpoint.incremental};
}

// Of each step and worker; each has one logical worker.
StepQuorum::Samples samples_of(const JobContext& context) {
  return [n = context.facts.train_samples, batch = context.job().train.batch,
          workers = context.cluster.n_workers()](Clock clock, WorkerId worker) {
    const std::int64_t all = batch_at(clock.value - 1, n, batch).size();
    return logical_range(0, all, worker.value, workers).size();
  };
}

// What a run that goes on with other data says of it.
std::vector<std::string> lineage(const JobContext& context) {
  const std::vector<std::string>& differences = context.values.other_data();
  if (differences.empty()) return {};
  return {nlohmann::json{{"event", "other_data"},
                         {"step", context.train.first.value},
                         {"differences", differences},
                         {"unix_time", std::time(nullptr)}}
              .dump()};
}

// parse_job has let the best checkpoint by the same metric stay.
std::optional<EarlyStop> early_stop(const JobContext& context) {
  const JobConfig& job = context.job();
  if (!job.train.stop) return std::nullopt;
  return EarlyStop(*job.train.stop, retention_of(job.checkpoint).best->order, context.state.stop);
}

}  // namespace

ServerRole::ServerRole(const JobContext& context, ServerId id, Transport& transport) : context_(context) {
  const JobConfig& job = context.job();
  ServerRank::Parts parts{
      .transport = transport,
      .cluster = context.cluster,
      .variables = context.facts.table,
      .plan = context.plan,
      .id = id,
      .optimizer = job.optimizer,
      .fill = [&](ParameterShard& shard,
                  TableShards& tables) { context.values.load(shard, tables, context.fs); },
      .start_id = context.start.start_id,
      .stall_timeout_s = time_limit(job.cluster.stall_timeout_s),
      .hosts = context.hosts,
      .requests = context.requests,
      .histogram_every_steps =
          job.output.tensorboard && context.rule.is_bsp() ? job.output.histogram_every_steps : 0,
      .rows = &context.rows,
      .seed = static_cast<std::uint64_t>(job.job.seed),
      .rule = context.rule,
      .first = context.train.first,
      .staleness_every_steps = job.train.log_every_steps,
      .flush = context.train.flush};
  if (context.saves()) parts.saves.emplace(saves());
  if (context.start.is_replay()) {
    parts.replay.emplace(ServerRank::Replay{context.fs, context.start.replay});
  } else if (job.cluster.record) {
    RecordHeader header = record_header(context.start, context.cluster, context.facts);
    if (context.values.resumed() != nullptr) header.checkpoint_id = context.values.resumed()->id;
    parts.record.emplace(ServerRank::Record{
        context.fs, job.run_dir(), std::move(header),
        [id](const std::string& what) { warn({fmt::format("server {}: {}", id.value, what)}); }});
  }
  if (id == ServerId(0)) {
    parts.control.emplace(ServerRank::Control{context.train, observers_, context.state,
                                              context.facts.evaluation, job.train.on_nan,
                                              early_stop(context)});
    if (job.follow() != nullptr) parts.control->stream.emplace(follow());
    if (context.rule.has_backups()) parts.control->samples = samples_of(context);
  }
  rank_.emplace(parts);
  if (id == ServerId(0)) make_observers(transport);
}

// What server 0 learns from, where a directory is followed.
StreamControl::Options ServerRole::follow() {
  const JobConfig& job = context_.job();
  const std::optional<SavedModel> model = saved_model_of(context_.facts.model);
  feed_.emplace(DirectoryFeed::Parts{job, followed_directory(job), model ? model->schema : "",
                                     context_.state.stream.value_or(StreamPosition{}), context_.fs,
                                     observers_});
  observers_.add(*feed_);
  return {*feed_, job.train.batch, job.train.progressive_window, job.train.log_every_steps};
}

// The checkpoint directory is locked by now: no other job writes the files of this run.
void ServerRole::make_observers(const Transport& transport) {
  const JobContext& c = context_;
  facts_.emplace(RunFacts{c.job(), c.cluster, c.facts.table, c.hosts, c.train, c.facts.train_samples,
                          c.facts.test_samples, c.start.run_id, c.start.attempt, c.start.resume_path,
                          c.facts.evaluation, c.one_process, c.values.notes()});
  facts_->stream = c.state.stream;
  facts_->rule = c.rule;
  if (c.job().follow() == nullptr) write_left_out();
  if (c.start.is_replay()) {
    facts_->replay_of = c.start.replay.dir;
    facts_->n_compared = c.start.replay.compared.size();
    for (std::string& note : replay_notes(c.start.replay)) facts_->notes.push_back(std::move(note));
  } else if (c.job().cluster.record) {
    facts_->notes.push_back(record_note(c.job()));
  }
  if (const std::string line = scale_line(c.facts.model); !line.empty()) facts_->notes.push_back(line);
  if (c.job().output.metrics) metrics_file_.emplace(*facts_);
  if (c.saves()) facts_->predicted = predicted_cost();
  records_.emplace(*facts_, c.command, with_found_files(c.job()));
  terminal_.emplace(*facts_, &*records_);
  observers_.add(*terminal_);
  if (metrics_file_) observers_.add(*metrics_file_);
  if (!c.job().output.tensorboard) return;
  facts_->graph = c.facts.graph;
  facts_->hyperparameters = hyperparameters(c.job());
  tensorboard_.emplace(*facts_, transport.stats(), *terminal_);
  observers_.add(*tensorboard_);
}

// Which records of the data are not among the samples, in a file of the run. Without any, an earlier
// start's file goes.
void ServerRole::write_left_out() {
  const std::string path = join_path(context_.job().run_dir(), "bad_records.txt");
  std::string text;
  for (const LeftOutReport& report : context_.facts.left_out) {
    facts_->left_out.push_back(
        fmt::format("{} of {} left out of {}: {}", report.n, report.of, report.source, path));
    for (const std::string& line : report.first) text += fmt::format("{}: {}\n", report.source, line);
    if (report.n > std::ssize(report.first))
      text += fmt::format("{}: and {} more\n", report.source, report.n - std::ssize(report.first));
  }
  try {
    if (!text.empty()) write_named_file(context_.fs, path, text);
    if (text.empty() && context_.fs.exists(path)) context_.fs.remove_all(path);
  } catch (const Error& e) {
    warn({fmt::format("{} cannot be written: {}", path, e.what())});
  }
}

ServerRank::Saves ServerRole::saves() const {
  const JobConfig& job = context_.job();
  return {context_.fs,
          job.checkpoint_dir(),
          job.checkpoint,
          snapshot_options(context_),
          base_manifest(context_),
          context_.start.resume_path,
          lineage(context_)};
}

RunEnd ServerRole::run() {
  if (terminal_) terminal_->print_header();
  if (metrics_file_) metrics_file_->write_start();
  if (tensorboard_) tensorboard_->write_start(header_lines(*facts_));
  return with_finite_advice(context_.fs, context_.start, [&] { return rank_->run(); });
}

std::optional<PredictedCost> ServerRole::predicted_cost() {
  const CheckpointConfig& config = context_.job().checkpoint;
  const std::string dir = context_.job().checkpoint_dir();
  const CheckpointNames names = context_.values.names();
  auto size = CheckpointSize::of(
      context_.plan, context_.cluster, context_.hosts,
      static_cast<std::int64_t>(rank_->optimizer().slots().size()), config,
      [&](int variable) { return names.holds(context_.facts.table[static_cast<std::size_t>(variable)]); });
  // How many rows a new run will have, nobody knows.
  if (const Manifest* resumed = context_.values.resumed(); resumed != nullptr) {
    std::int64_t n_bytes = 0;
    for (const TableRecord& t : resumed->tables)
      n_bytes += static_cast<std::int64_t>(totals_of(*resumed, t.variable).n_bytes);
    size.add_rows(n_bytes, context_.cluster, context_.hosts);
  }
  try {
    const auto n_present = static_cast<std::int64_t>(list_checkpoints(context_.fs, dir).size());
    const std::string warning = space_warning(static_cast<std::int64_t>(context_.fs.free_bytes(dir)),
                                              size.total_bytes, n_present, config, dir);
    if (!warning.empty()) warn({warning});
    const MachineSpeed speed = MachineSpeed::measure(context_.fs, dir, size.largest_shard_bytes);
    return PredictedCost{size, CheckpointForecast::of(size, speed, context_.cluster.n_workers(), config)};
  } catch (const Error& e) {
    warn({fmt::format("checkpoints cannot be written to {} at present: {}", dir, e.what())});
    return std::nullopt;
  }
}

namespace {

// The states of local variables that all workers of the checkpoint saved.
std::vector<LocalRows> saved_locals(const JobContext& context, const Graph& graph) {
  std::vector<LocalRows> rows;
  const std::vector<const Variable*> variables = graph.variables();
  const bool has_locals =
      std::any_of(variables.begin(), variables.end(), [](const Variable* v) { return v->is_local(); });
  const Manifest* resumed = context.values.resumed();
  if (resumed == nullptr || !has_locals) return rows;
  CheckpointReader reader = CheckpointReader::open(context.fs, context.start.resume_path, *resumed);
  for (int w = 0; w < resumed->workers; ++w) {
    const std::string name = worker_state_name(w);
    const std::string bytes = reader.read_file(name);
    auto state = from_text<WorkerState>(std::string(open_envelope(kWorkerStateMagic, bytes, name)), name);
    std::move(state.locals.begin(), state.locals.end(), std::back_inserter(rows));
  }
  return rows;
}

// What a worker trains on. Borrows all three.
std::unique_ptr<BatchSource> batches_of(const JobContext& context, const Dataset& train, PsClient& client) {
  const JobConfig& job = context.job();
  if (job.follow() == nullptr) {
    return std::make_unique<IndexedBatches>(
        train, IndexedBatches::Options{.batch = job.train.batch,
                                       .n_parts = context.cluster.logical_workers,
                                       .seed = static_cast<std::uint64_t>(job.job.seed),
                                       .shuffle = job.train.shuffle ? Shuffle::yes : Shuffle::no});
  }
  const auto open = [&job, directory = followed_directory(job),
                     schema = train.schema()](const std::string& name) {
    return open_followed(job, directory + "/" + name, schema);
  };
  return std::make_unique<FollowedBatches>(
      train.spec(),
      FollowedBatches::Options{job.train.batch, context.cluster.logical_workers,
                               [&client] { client.progress(); }},
      open);
}

}  // namespace

RunEnd run_worker(const JobContext& context, const WorkerModel& model, WorkerId id, Transport& transport) {
  openblas_set_num_threads(static_cast<int>(context.job().cluster.blas_threads));
  const StepRule& rule = context.rule;
  const LocalSumPlan sum_plan =
      rule.is_bsp() ? LocalSumPlan::make(context.cluster.leaves_of(id), context.cluster.logical_workers)
                    : ticket_sum_plan(rule, context.cluster, id);
  const auto n_sets = static_cast<int>(rule.delay + 1);
  VariableMemory memory(context.facts.table, sum_plan.n_buffers, n_sets);
  PsClient client(transport, context.cluster, context.plan, context.rows, id, memory,
                  {time_limit(context.job().cluster.stall_timeout_s), context.hosts,
                   time_limit(context.job().cluster.step_timeout_s), rule, context.train.first});
  const auto samples = batches_of(context, *model.train, client);
  Trainer trainer(Trainer::Parts{
      context.job(),
      context.cluster,
      model.model,
      model.evaluation ? &*model.evaluation : nullptr,
      model.variables,
      *samples,
      model.test.get(),
      client,
      memory,
      sum_plan,
      context.train.first,
      context.train.last,
      saved_locals(context, model.model.graph),
      context.start.check_numerics,
      context.start.profile,
      context.requests,
      context.train.evaluates_first,
      context.train.flush,
      rule,
      [id](const std::string& text) { warn({fmt::format("worker {}: {}", id.value, text)}); }});
  const RunEnd end = with_finite_advice(context.fs, context.start, [&] { return trainer.run(); });
  if (context.start.profile && id == WorkerId(0))
    std::fputs(("profile of worker 0, per run of a logical worker\n" + trainer.profile()).c_str(), stdout);
  return end;
}

}  // namespace varscope
