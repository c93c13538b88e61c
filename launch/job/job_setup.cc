#include "launch/job/job_setup.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <random>
#include <utility>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/config/config_override.h"
#include "common/config/paths.h"
#include "common/config/yaml_reader.h"
#include "launch/job/data_places.h"
#include "launch/job/finite_advice.h"
#include "launch/job/followed_data.h"
#include "launch/job/job_warnings.h"
#include "launch/job/replay.h"
#include "launch/job/run_differences.h"
#include "launch/job/step_rules.h"
#include "launch/observe/output.h"
#include "launch/observe/run_records.h"
#include "launch/observe/tensorboard.h"
#include "launch/process/go_on.h"
#include "launch/process/signals.h"
#include "worker/data/csv.h"
#include "worker/data/find_files.h"
#include "worker/data/order.h"
#include "worker/data/source_registry.h"
#include "worker/data/table_cache.h"

namespace varscope {
namespace {

std::string new_id() {
  std::random_device device;
  return fmt::format("{:08x}", device());
}

// An earlier run's files are never mixed with a new run's, and never deleted. Durable when it returns.
void set_aside(Fs& fs, std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (!fs.exists(path)) return;
  std::error_code
      error;  // a FIFO or a device holds nothing of an earlier run: it is somebody's who reads there
  if (const auto what = std::filesystem::status(path, error);
      std::filesystem::exists(what) && std::filesystem::is_other(what))
    return;
  const std::string old = fmt::format("{}.old-{}", path, std::time(nullptr));
  std::string to = old;
  for (int i = 2; fs.exists(to); ++i) to = fmt::format("{}.{}", old, i);
  fs.rename(path, to);
  fs.sync_dir(parent_path(path));
}

void make_run_dir(const JobConfig& job) {
  std::error_code error;
  std::filesystem::create_directories(job.run_dir(), error);
  if (error) {
    fail(ErrorKind::io, "cannot make the run's directory {}: {}; choose another with job.run_dir",
         job.run_dir(), error.message());
  }
}

// The checkpoint at this path, verified to the last byte.
FoundCheckpoint verified(Fs& fs, std::string path, const VerifyFiles& verify, const char* what_for) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  Verification v = verify_whole(fs, path, verify);
  std::string text;
  for (const std::string& p : v.problems) text += "\n  " + p;
  if (!text.empty()) fail(ErrorKind::checkpoint, "cannot {} from {}:{}", what_for, path, text);
  return {path, {}, std::move(v.manifest)};
}

// Takes what was found, but for its path.
std::string take(FoundCheckpoint found, PreparedStart& start) {
  start.manifest = std::move(found.manifest);
  start.warnings = std::move(found.warnings);
  return std::move(found.path);
}

void find_warm_start(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify) {
  const JobConfig& job = start.packet.job;
  if (!job.warm_start) return;
  const auto position = [&] {
    return position_of(job.root.find_path("warm_start.from")->mark, job.file) + "warm_start.from: ";
  };
  std::string& path = start.packet.warm_start_path;
  try {
    const std::string& from = job.warm_start->from;
    const bool is_one = fs.exists(join_path(from, kManifestName)) || list_checkpoints(fs, from).empty();
    path = take(is_one ? verified(fs, from, verify, "start") : newest_checkpoint(fs, from, verify), start);
  } catch (const Error& e) {
    throw Error(e.kind(), position() + e.what(), e.where());
  }
  const auto above = std::filesystem::weakly_canonical(path).parent_path();
  if (options.fresh && above == std::filesystem::weakly_canonical(job.checkpoint_dir())) {
    fail(ErrorKind::config,
         "{}{} is one of the run's own checkpoints, which --fresh sets aside; name another "
         "job.run_dir instead of --fresh",
         position(), path);
  }
}

void start_new(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify) {
  const std::string dir = start.packet.job.checkpoint_dir();
  start.packet.run_id = new_id();
  const std::vector<CheckpointName> found = list_checkpoints(fs, dir);
  if (options.fresh || found.empty()) return find_warm_start(options, start, fs, verify);
  fail(ErrorKind::checkpoint,
       "{} holds checkpoints of an earlier run (the newest is {}): add --resume to go on from it, or --fresh "
       "to set it aside and start from initial values",
       dir, found.front().name);
}

// The checkpoint that --resume=PATH means: that one or none; or the newest whole one of a directory of them,
// or of a run's.
FoundCheckpoint found_at(Fs& fs, const std::string& path, const VerifyFiles& verify) {
  if (fs.exists(join_path(path, kManifestName))) return verified(fs, path, verify, "resume");
  for (const std::string& dir : {path, join_path(path, "checkpoints")}) {
    if (!list_checkpoints(fs, dir).empty()) return newest_checkpoint(fs, dir, verify);
  }
  if (base_name(path).starts_with("step-") && fs.exists(path))
    return verified(fs, path, verify, "resume");  // says what it lacks
  fail(
      ErrorKind::checkpoint,
      "cannot resume from {}: it {}; name a checkpoint, or a directory of checkpoints that a run has written, or say "
      "--resume alone for the newest checkpoint of this run",
      path, fs.exists(path) ? "holds no checkpoint" : "does not exist");
}

void start_resumed(const TrainOptions& options, PreparedStart& start, Fs& fs, const VerifyFiles& verify) {
  StartPacket& packet = start.packet;
  const std::string dir = packet.job.checkpoint_dir();
  if (options.resume_from.empty() && list_checkpoints(fs, dir).empty()) {
    fail(ErrorKind::checkpoint,
         "{} {}; start without resuming, or give the checkpoint directory of the run to be resumed", dir,
         fs.exists(dir) ? "holds no checkpoint to resume from"
                        : "does not exist, so there is nothing to resume from");
  }
  packet.resume_path =
      take(options.resume_from.empty() ? newest_checkpoint(fs, packet.job.checkpoint_dir(), verify)
                                       : found_at(fs, options.resume_from, verify),
           start);
  packet.allow_other_data = options.allow_other_data;
  packet.run_id = start.manifest->run_id;
  packet.attempt = start.manifest->attempt + 1;
  std::string warning = start_warning(fs, packet, packet.resume_path, start.manifest->not_finite);
  if (!warning.empty()) start.warnings.push_back(std::move(warning));
}

}  // namespace

JobConfig load_config(const std::string& file, const std::vector<std::string>& overrides) {
  ConfigNode root = read_yaml_file(file);
  for (const std::string& o : overrides) apply_override(root, o);
  expand_paths(root, file);
  return parse_job(root, file);
}

void set_earlier_run_aside(Fs& fs, const JobConfig& job) {
  CheckpointDirectory earlier(fs, job.checkpoint_dir());
  // Another job may have started there since prepare_start(): not under its feet.
  if (fs.is_directory(job.checkpoint_dir())) earlier.lock("(set aside by --fresh)");
  // The checkpoints last: while they are there, a start without --fresh is refused.
  for (const char* name :
       {"metrics.jsonl", RunRecords::kJob, RunRecords::kCommand, RunRecords::kLog, "record"})
    set_aside(fs, join_path(job.run_dir(), name));
  set_aside(fs, tensorboard_dir(job));
  set_aside(fs, job.checkpoint_dir());
}

namespace {

// Fills in `first_file`, or `is_stopped` where a signal came first: there may be no data for long.
void wait_for_data(StartPacket& packet) {
  const auto tell = [](const std::string& line) {
    print_result("varscope: " + line + "\n", ResultTo::error);
  };
  const auto first = wait_for_first_file(packet.job, watch_user_signals(), tell);
  packet.is_stopped = !first;
  packet.first_file = first.value_or("");
  if (packet.is_stopped)
    tell("a signal asks to stop, and no data have come: nothing has been learnt, and there is no checkpoint");
}

}  // namespace

PreparedStart prepare_start(const TrainOptions& options, JobConfig job, Fs& fs, const VerifyFiles& verify,
                            int n_ranks) {
  PreparedStart start;
  StartPacket& packet = start.packet;
  packet.go_on = go_on_command(words_of_start(options.words, n_ranks), options.resume_from);
  packet.job = std::move(job);
  packet.start_id = new_id();
  packet.check_numerics = options.check_numerics;
  packet.profile = options.profile;
  make_run_dir(packet.job);
  if (fs.is_directory(packet.job.checkpoint_dir())) {
    // Not under the feet of a job that still writes there; released at once, taken again when training
    // starts.
    CheckpointDirectory(fs, packet.job.checkpoint_dir()).lock(packet.start_id);
  }
  if (!options.replay.empty()) {
    packet.run_id = new_id();
    prepare_replay(options, start, fs, verify);
    if (packet.resume_path.empty()) find_warm_start(options, start, fs, verify);
    return start;
  }
  options.resume ? start_resumed(options, start, fs, verify) : start_new(options, start, fs, verify);
  if (packet.job.follow() != nullptr && !options.resume) {
    if (n_ranks == 1) stop_on_sigterm();  // as training does; mpirun ends ranks that wait
    wait_for_data(packet);
  }
  return start;
}

namespace {

CacheConfig cache_of(const JobConfig& job) {
  constexpr std::int64_t kLeastBytes = std::int64_t{64} << 20;
  if (job.data.cache == "none") return {};
  if (job.data.cache == "auto") return {.folder = user_cache_folder(), .least_bytes = kLeastBytes};
  return {.folder = job.data.cache};
}

}  // namespace

std::unique_ptr<Dataset> load_dataset(const JobConfig& job, const DataSourceConfig& source, DataSplit split,
                                      const std::string& schema) {
  const bool train = split == DataSplit::train;
  if (train && follow_of(source) != nullptr) return open_first_followed(job);
  if (!train && schema.empty() && needs_schema(source))
    return load_dataset(job, source, split, load_dataset(job, job.data.train, DataSplit::train)->schema());
  const char* const name = train || job.data.split ? "data.train" : "data.test";
  return at_source(job, name, [&] {
    auto data = open_source(source, {.position = split,
                                     .streams = train ? job.train.batch : job.train.eval_batch,
                                     .train = train ? nullptr : &job.data.train,
                                     .root = data_root(),
                                     .split = job.data.split,
                                     .schema = schema,
                                     .config_folder = config_folder(job),
                                     .cache = cache_of(job),
                                     .tell = [&](const std::string& line) {
                                       fmt::print(stderr, "varscope: {}: {}\n", name, line);
                                     }});
    if (data->size() == 0) fail(ErrorKind::data, "has no samples");
    return data;
  });
}

JobConfig with_found_files(JobConfig job) {
  std::vector<std::filesystem::path> folders = data_folders(job);
  for (std::filesystem::path& folder : folders) folder = std::filesystem::absolute(folder).lexically_normal();
  job.data.train = find_files(job.data.train, folders, MissingFile::stays);
  if (job.data.test) job.data.test = find_files(*job.data.test, folders, MissingFile::stays);
  return job;
}

std::vector<std::filesystem::path> table_files(const JobConfig& job, const CsvSource& source) {
  const std::vector<std::filesystem::path> folders = data_folders(job);
  const DataSourceConfig found = find_files(DataSourceConfig("csv", source), folders, MissingFile::is_error);
  return files_of(found.get<CsvSource>()->files, {});
}

void check_sources(const JobConfig& job) {
  at_source(job, "data.train", [&] { check_source(job.data.train); });
  if (!job.data.test) return;
  at_source(job, "data.test", [&] {
    check_test_source(*job.data.test, job.data.train);
    check_source(*job.data.test, &job.data.train);
  });
}

void check_test_data(const JobConfig& job, const DataFacts& train, const DataFacts& test) {
  const auto fail_test = [&](const std::string& text) {
    const ConfigNode* node = job.root.find_path(job.data.test_path());
    fail_at(node != nullptr ? *node : job.root, job.file, job.data.test_path(), text);
  };
  if (test.sample_shape != train.sample_shape || test.features != train.features) {
    fail_test(fmt::format("its samples have shape {}, those of data.train {}", test.sample_shape.str(),
                          train.sample_shape.str()));
  }
  if (test.has_weights && !train.has_weights)
    fail_test("its samples have weights, those of data.train do not; give data.train weights too");
  if (test.label_shape != train.label_shape)
    fail_test("its samples have another number of labels than those of data.train");
}

// A label of data.test that the training data do not have is fine where the model has an output for it.
void check_test_classes(const JobConfig& job, const Model& model, const DataFacts& train,
                        const DataFacts& test) {
  if (test.n_classes <= train.n_classes) return;
  if (!train.exact_classes && model.evaluation_spec().outputs >= test.n_classes) return;
  const ConfigNode* node = job.root.find_path(job.data.test_path());
  fail_at(node != nullptr ? *node : job.root, job.file, job.data.test_path(),
          fmt::format("has labels up to {}, data.train only up to {}: the model could not answer them",
                      test.n_classes - 1, train.n_classes - 1));
}

void build_worker_model(WorkerModel& m, const JobConfig& job, const DataFacts& data,
                        const LayerRegistry& layers) {
  m.model = build_model(m.store, job, data, GraphMode::train, layers);
  if (job.data.test_source() != nullptr)
    m.evaluation = build_model(m.store, job, data, GraphMode::evaluate, layers);
  m.variables = m.store.collection(collections::kGlobal);
  if (m.variables.empty())
    fail_at(job.model.layers, job.file, "model.layers",
            "these layers have no variables: there is nothing to train");
  m.table = m.store.table();
  m.warnings = model_warnings(job, m.model);
  for (std::string& w : compression_warnings(job, m.table)) m.warnings.push_back(std::move(w));
}

std::unique_ptr<WorkerModel> load_worker_model(const JobConfig& job, const LayerRegistry& layers,
                                               std::unique_ptr<Dataset> train) {
  auto m = std::make_unique<WorkerModel>();
  m->train = train ? std::move(train) : load_dataset(job, job.data.train, DataSplit::train);
  if (const DataSourceConfig* test = job.data.test_source()) {
    m->test = load_dataset(job, *test, DataSplit::test, m->train->schema());
    check_test_data(job, DataFacts::of(*m->train), DataFacts::of(*m->test));
  }
  build_worker_model(*m, job, DataFacts::of(*m->train), layers);
  check_rule_of_model(job, m->model.graph, m->train->streams() > 0);
  if (m->test) check_test_classes(job, m->model, DataFacts::of(*m->train), DataFacts::of(*m->test));
  if (job.follow() == nullptr) {  // of a stream the first file says little
    for (std::string& w : batch_warnings(job, m->train->size())) m->warnings.push_back(std::move(w));
    for (std::string& w : label_warnings(job, *m->train)) m->warnings.push_back(std::move(w));
    for (const std::string& w : m->train->warnings()) m->warnings.push_back("data.train: " + w);
  }
  if (m->test) {
    if (const auto unknown = m->test->unknown_words(); unknown.n > 0 && 2 * unknown.n > unknown.of) {
      m->warnings.push_back(fmt::format(
          "{}: {} of {} words are not in the vocabulary of data.train, and count as id 0: are the columns the same?",
          job.data.test_path(), unknown.n, unknown.of));
    }
    for (const std::string& w : m->test->warnings()) m->warnings.push_back("data.test: " + w);
  }
  return m;
}

namespace {

// Far above what a run does, and far below what a sum of steps would overflow at.
constexpr std::int64_t kMostSteps = 1'000'000'000'000'000;

}  // namespace

Clock last_step(const JobConfig& job, std::int64_t per_epoch) {
  const TrainConfig& train = job.train;
  const bool countable = train.epochs <= kMostSteps / per_epoch;
  if (train.max_steps > 0) {
    const Clock most(train.max_steps);
    return countable ? std::min(most, Clock(train.epochs * per_epoch)) : most;
  }
  if (countable) return Clock(train.epochs * per_epoch);
  const ConfigNode* node = job.root.find_path("train.epochs");
  fail_at(node != nullptr ? *node : job.root, job.file, "train.epochs",
          fmt::format("{} epochs of {} steps are more steps than are counted ({}); lower it, or set "
                      "train.max_steps",
                      train.epochs, per_epoch, kMostSteps));
}

namespace {

// The clock of a row has 32 bits.
void check_steps_of_tables(const JobConfig& job, const VariableTable& variables, Clock last) {
  if (last.value <= TableSpec::kMostSteps) return;
  const char* key = job.train.max_steps > 0 ? "train.max_steps" : "train.epochs";
  for (const VariableSpec& v : variables.variables()) {
    if (!v.is_table()) continue;
    const ConfigNode* node = job.root.find_path(key);
    fail_at(
        node != nullptr ? *node : job.root, job.file, key,
        fmt::format("the run has {} steps, but rows of tables (\"{}\") count up to {}; set train.max_steps",
                    last.value, v.name, TableSpec::kMostSteps));
  }
}

}  // namespace

namespace {

// It ends by END, or never.
Clock last_step_of_stream(const JobConfig& job, const VariableTable& variables) {
  if (job.train.max_steps > 0) return Clock(job.train.max_steps);
  const bool has_tables =
      std::ranges::any_of(variables.variables(), [](const VariableSpec& v) { return v.is_table(); });
  return Clock(has_tables ? TableSpec::kMostSteps : kMostSteps);
}

}  // namespace

TrainPlan make_train_plan(const JobConfig& job, const ModelFacts& facts, const Manifest* resumed,
                          CoordinatorState& state) {
  TrainPlan plan;
  const bool is_stream = job.follow() != nullptr;
  plan.steps_per_epoch = is_stream ? 0 : steps_per_epoch(facts.train_samples, job.train.batch);
  plan.last = is_stream ? last_step_of_stream(job, facts.table) : last_step(job, plan.steps_per_epoch);
  check_steps_of_tables(job, facts.table, plan.last);
  state = {{}, facts.train_samples, job.train.batch, job.job.seed, compared_run_text(facts, job, plan.last)};
  // Evaluations that are further apart than steps are counted come after the last step only.
  if (!is_stream && job.data.test_source() != nullptr &&
      job.train.eval_every_epochs <= kMostSteps / plan.steps_per_epoch)
    plan.evaluates_every = plan.steps_per_epoch * job.train.eval_every_epochs;
  const auto is_lossy = [](const VariableSpec& v) { return v.compression.has_residual(); };
  plan.flush = {std::ranges::any_of(facts.table.variables(), is_lossy),
                job.cluster.drain_every_steps,
                job.checkpoint.every_steps,
                plan.evaluates_every,
                plan.last,
                job.cluster.delay,
                job.cluster.settle_steps};
  if (resumed == nullptr) return plan;
  plan.first = Clock(resumed->step);
  plan.last = std::max(plan.last, plan.first);
  const CoordinatorState before = from_manifest_text(resumed->coordinator_state);
  state.epoch = before.epoch;
  if (is_stream) state.stream = before.stream;
  if (!job.train.stop) return plan;
  // A checkpoint is cut before the evaluation of its step: then that comes first now.
  state.stop = before.stop;
  plan.evaluates_first = before.stop && before.stop->last_step < resumed->step && plan.evaluates_every > 0 &&
                         resumed->step % plan.evaluates_every == 0;
  return plan;
}

}  // namespace varscope
