#include "launch/commands/train.h"

#include <cblas.h>
#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/mpi/mpi_job.h"
#include "launch/job/followed_data.h"
#include "launch/job/job_warnings.h"
#include "launch/job/replay.h"
#include "launch/job/roles.h"
#include "launch/job/run_differences.h"
#include "launch/job/saved_model.h"
#include "launch/job/shared_verification.h"
#include "launch/job/step_rules.h"
#include "launch/observe/graph_def.h"
#include "launch/observe/output.h"
#include "launch/process/failure.h"
#include "launch/process/go_on.h"
#include "launch/process/launcher.h"
#include "launch/process/version.h"

namespace varscope {
namespace {

// Named after this start: the same command may fail twice in one second, with the same run and attempt.
std::string failure_file(const StartPacket& start) {
  return fmt::format("{}/failure-{}-{}-{}", start.job.run_dir(), start.run_id, start.attempt, start.start_id);
}

// For rank 0: a resumed run may be valid and yet not end in the bits of an uninterrupted one.
void warn_of_start(const JobContext& context) {
  warn(context.facts.warnings);
  warn(worker_warnings(context.job(), context.cluster.logical_workers));
  warn(output_warnings(context.job()));
  if (!context.start.is_replay())  // which has its end from the record
    warn(start_step_warnings(context.job(), context.facts.table, context.train.last));
  warn(context.values.warnings());
  const Manifest* resumed = context.values.resumed();
  // All have come together there: an earlier plan ended there, or its keys said so.
  if (resumed != nullptr && context.job().cluster.consistency == Consistency::bsp &&
      resumed->step < context.train.last.value && !context.train.flush.may_cut(Clock(resumed->step))) {
    warn({fmt::format(
        "the checkpoint is of step {}: there {}, which {} not in a run that is planned as this one from its "
        "start, so the bits will differ from its",
        resumed->step,
        context.train.flush.delay > 0 ? "all workers came together" : "compression kept nothing back",
        context.train.flush.delay > 0 ? "they do" : "it does")});
  }
  if (resumed != nullptr && !context.start.is_replay())
    warn(full_step_differences(*resumed, context.facts.table, context.train.last));
  if (resumed == nullptr || resumed->logical_workers == context.cluster.logical_workers) return;
  if (context.job().cluster.consistency != Consistency::bsp) {
    warn(
        {fmt::format("the checkpoint was made with {} logical workers, this job has {}: a step is made of so "
                     "many parts; cluster.logical_workers: {} keeps them",
                     resumed->logical_workers, context.cluster.logical_workers, resumed->logical_workers)});
    return;
  }
  warn({fmt::format(
      "the checkpoint was made with {} logical workers, this job has {}: gradients are summed in "
      "another order, so the bits will differ from an uninterrupted run's; set "
      "cluster.logical_workers: {} to keep them",
      resumed->logical_workers, context.cluster.logical_workers, resumed->logical_workers)});
}

// What a run that fails or is stopped tells its user. With --fresh the directory may hold an earlier run's
// checkpoints until they have been set aside: then after that.
void tell_how_to_go_on(const StartPacket& start) {
  if (start.is_replay()) return;
  const std::string dir = start.job.checkpoint_dir();
  std::error_code ignored;  // then LATEST decides
  const bool is_resumed =
      !start.resume_path.empty() && std::filesystem::equivalent(parent_path(start.resume_path), dir, ignored);
  FailureReport::set_go_on(start.go_on, join_path(dir, kLatestName), is_resumed);
}

std::string graph_for_tensorboard(const JobContext& context, const WorkerModel& model) {
  return context.job().output.tensorboard ? graph_def(model.model.graph, context.cluster.n_servers()) : "";
}

std::vector<LeftOutReport> left_out_of(const WorkerModel& model) {
  std::vector<LeftOutReport> reports;
  const auto add = [&](const char* source, const Dataset* data) {
    if (data == nullptr || data->left_out().n == 0) return;
    const LeftOut& l = data->left_out();
    reports.push_back({source, l.n, l.of, l.first});
  };
  add("data.train", model.train.get());
  add("data.test", model.test.get());
  return reports;
}

// The training data as far as a model is made from them: of a stream that goes on those of its saved model,
// of one that begins its first file, which counts as any other from then on.
std::unique_ptr<Dataset> data_of_start(const JobContext& context) {
  const JobConfig& job = context.job();
  if (job.follow() == nullptr) return load_dataset(job, job.data.train, DataSplit::train);
  if (!context.start.first_file.empty()) {
    auto first = open_followed(job, context.start.first_file, "");
    if (first == nullptr)
      fail(ErrorKind::data,
           "data.train: {} has no records on this host; the directory that is followed must be one "
           "for all hosts",
           context.start.first_file);
    return first;
  }
  const Manifest manifest =
      context.manifest ? *context.manifest : load_manifest(context.fs, context.start.resume_path).manifest;
  const std::optional<SavedModel> saved = saved_model(manifest);
  if (!saved || !from_manifest_text(manifest.coordinator_state).stream) {
    fail(
        ErrorKind::checkpoint,
        "checkpoint {} is of a run that did not follow a directory: there is no place in a stream to go on from; "
        "start a new run from its values with warm_start",
        context.start.resume_path);
  }
  return described_data(*saved);
}

ModelFacts facts_of_stream(const JobConfig& job, const WorkerModel& model) {
  return {.table = model.table,
          .test_samples = model.test ? model.test->size() : 0,
          .evaluation = model.model.evaluation_spec(),
          .warnings = model.warnings,
          .model = saved_model_text(job, *model.train),
          .test = model.test ? model.test->identity() : DataIdentity{},
          .carries_state = carries_state(model)};
}

ModelFacts facts_of(const JobConfig& job, const WorkerModel& model) {
  if (job.follow() != nullptr) return facts_of_stream(job, model);
  return {.table = model.table,
          .train_samples = model.train->size(),
          .test_samples = model.test ? model.test->size() : 0,
          .evaluation = model.model.evaluation_spec(),
          .warnings = model.warnings,
          .model = saved_model_text(job, *model.train),
          .train = model.train->identity(),
          .test = model.test ? model.test->identity() : DataIdentity{},
          .left_out = left_out_of(model),
          .carries_state = carries_state(model)};
}

StartCommand start_command(const TrainOptions& options, int n_ranks) {
  StartCommand command{.text = {}, .overrides = options.overrides};
  for (const std::string& word : words_of_start(options.words, n_ranks))
    command.text += (command.text.empty() ? "" : " ") + shell_word(word);
  return command;
}

// In one process each server is a thread.
void check_threads(const JobConfig& job) {
  constexpr std::int64_t kMost = 1024;
  if (job.cluster.servers <= kMost) return;
  const ConfigNode* node = job.root.find_path("cluster.servers");
  fail_at(
      node != nullptr ? *node : job.root, job.file, "cluster.servers",
      fmt::format("{} servers would be as many threads of one process, which has {} at most; lower it, or "
                  "start ranks with mpirun",
                  job.cluster.servers, kMost));
}

// Runs `work`; the first of several failing threads wins, the others leave by Aborted.
class FirstError {
 public:
  explicit FirstError(LoopbackHub& hub) : hub_(hub) {}
  template <class Work>
  void guard(Work work) {
    try {
      work();
    } catch (...) {
      {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
      hub_.abort();
    }
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  LoopbackHub& hub_;
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

RunEnd train_in_one_process(const TrainOptions& options, const LayerRegistry& layers, Fs& fs) {
  JobContext context(fs);
  JobConfig job = load_job(options);
  check_threads(job);
  PreparedStart start = prepare_start(options, std::move(job), fs, verify_files);
  warn(start.warnings);
  context.start = std::move(start.packet);
  if (context.start.is_stopped) return RunEnd::stopped;
  context.manifest = std::move(start.manifest);
  context.one_process = true;
  context.command = start_command(options, 1);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const int n_servers = static_cast<int>(context.job().cluster.servers);
  context.hosts.assign(static_cast<std::size_t>(n_servers) + 1, host);
  context.cluster =
      assign_roles(context.hosts, n_servers, static_cast<int>(context.job().cluster.logical_workers));
  FailureReport::set_file(failure_file(context.start));
  if (!options.fresh) tell_how_to_go_on(context.start);
  FailureReport::on_sigterm(OnSigterm::ends);
  const auto model = load_worker_model(context.job(), layers, data_of_start(context));
  context.facts = facts_of(context.job(), *model);
  context.facts.graph = graph_for_tensorboard(context, *model);
  complete_context(context);
  warn_of_start(context);
  if (options.fresh) set_earlier_run_aside(fs, context.job());
  tell_how_to_go_on(context.start);

  LoopbackHub hub(n_servers + 1);
  IdVector<Rank, std::unique_ptr<Transport>> ends;
  std::vector<std::unique_ptr<ServerRole>> servers;
  for (Rank r : IdRange<Rank>(n_servers + 1)) ends.push_back(hub.endpoint(r));
  for (ServerId s : context.cluster.servers.ids())
    servers.push_back(std::make_unique<ServerRole>(context, s, *ends[context.cluster.rank_of(s)]));
  FirstError first(hub);
  RunEnd end = RunEnd::finished;
  if (context.saves()) stop_on_sigterm();
  {
    std::vector<std::jthread> threads;
    threads.reserve(servers.size());
    for (auto& server : servers)
      threads.emplace_back([&first, &server] { first.guard([&] { server->run(); }); });
    const WorkerId worker(0);
    first.guard([&] { end = run_worker(context, *model, worker, *ends[context.cluster.rank_of(worker)]); });
  }
  first.rethrow();
  return end;
}

namespace {

// Runs `work` on this rank and agrees with all others whether it threw. Collective over the job.
template <class Work>
void together(MpiJob& mpi, Work work) {
  std::optional<Error> mine;
  try {
    work();
  } catch (const Error& e) {
    mine = e;
  } catch (const std::exception& e) {
    mine = Error(ErrorKind::argument, e.what());
  }
  mpi.agree(mine);
}

// Version and command line must be the same everywhere: a rank of another installation, or started by another
// line of an application file, would train another model. Collective over the job.
void agree_on_program(const TrainOptions& options, MpiJob& mpi) {
  std::string asked = "train " + options.config;
  for (const std::string& o : options.overrides) asked += " --set " + o;
  if (options.resume) asked += " --resume" + (options.resume_from.empty() ? "" : "=" + options.resume_from);
  if (options.fresh) asked += " --fresh";
  if (options.check_numerics) asked += " --check-numerics";
  if (options.profile) asked += " --profile";
  if (!options.replay.empty()) asked += " --replay " + options.replay;
  if (options.from) asked += fmt::format(" --from {}", *options.from);
  mpi.agree(std::nullopt);  // a rank whose command line makes no sense says so here
  const char* version = std::getenv("VARSCOPE_PRETEND_VERSION");  // lets a test be a rank of another version
  const char* order = std::endian::native == std::endian::little ? "" : " (big-endian)";
  const std::vector<std::string> versions =
      mpi.all_gather(std::string(version != nullptr ? version : kVersion) + order);
  const std::vector<std::string> lines = mpi.all_gather(asked);
  together(mpi, [&] {
    for (std::size_t r = 1; r < versions.size() && mpi.rank() == Rank(0); ++r) {
      if (versions[r] != versions[0]) {
        fail(ErrorKind::protocol,
             "rank {} runs varscope {}, rank 0 runs {}: install the same version on every host", r,
             versions[r], versions[0]);
      }
      if (lines[r] != lines[0]) {
        fail(ErrorKind::config, "rank {} was started with \"{}\", rank 0 with \"{}\": start all ranks alike",
             r, lines[r], lines[0]);
      }
    }
  });
}

// The bits of a product depend on the kernels OpenBLAS picks for the processor. Collective over the job.
void warn_of_other_kernels(MpiJob& mpi) {
  const std::vector<std::string> names = mpi.all_gather(openblas_get_corename());
  for (std::size_t r = 1; r < names.size() && mpi.rank() == Rank(0); ++r) {
    if (names[r] == names[0]) continue;
    warn({fmt::format(
        "rank {} computes with OpenBLAS's kernels for {}, rank 0 with those for {}: the bits of the result "
        "depend on who computes what; set OPENBLAS_CORETYPE to one name on every host",
        r, names[r], names[0])});
    return;
  }
}

void share_start(const TrainOptions& options, MpiJob& mpi, JobContext& context) {
  std::string packet;
  SharedVerification verification(mpi, context.fs);
  together(mpi, [&] {
    verification.run([&] {
      JobConfig job = load_job(options);
      const VerifyFiles verify =
          verification.with_servers(assign_roles(context.hosts, static_cast<int>(job.cluster.servers),
                                                 static_cast<int>(job.cluster.logical_workers)));
      PreparedStart start = prepare_start(options, std::move(job), context.fs, verify, mpi.size());
      packet = to_binary(start.packet);
      context.manifest = std::move(start.manifest);
      warn(start.warnings);
    });
  });
  mpi.broadcast(packet);
  together(mpi, [&] {
    context.start = from_binary<StartPacket>(packet, "the start packet");
    const std::string& resumed = context.start.resume_path;
    if (!context.manifest)
      context.manifest =
          verification.take_manifest(resumed.empty() ? context.start.warm_start_path : resumed);
  });
  FailureReport::set_file(failure_file(context.start));
  if (!options.fresh) tell_how_to_go_on(context.start);
  FailureReport::on_sigterm(OnSigterm::ends);
}

// Workers load data and build the model; servers learn what they need from them. Collective over the job.
std::unique_ptr<WorkerModel> share_model(MpiJob& mpi, JobContext& context, const LayerRegistry& layers) {
  std::unique_ptr<WorkerModel> model;
  std::string mine;
  together(mpi, [&] {
    if (!context.cluster.worker_at(mpi.rank())) return;
    model = load_worker_model(context.job(), layers, data_of_start(context));
    ModelFacts facts = facts_of(context.job(), *model);
    if (mpi.rank() == context.cluster.rank_of(WorkerId(0)))
      facts.graph = graph_for_tensorboard(context, *model);
    mine = to_binary(facts);
  });
  const std::vector<std::string> all = mpi.all_gather(mine);
  together(mpi, [&] {
    const Rank first = context.cluster.rank_of(WorkerId(0));
    context.facts = from_binary<ModelFacts>(all[static_cast<std::size_t>(first.value)], "the model's facts");
    for (Rank w : context.cluster.workers) {
      const auto theirs =
          from_binary<ModelFacts>(all[static_cast<std::size_t>(w.value)], "the model's facts");
      if (theirs.table.digest() != context.facts.table.digest() || theirs.train != context.facts.train ||
          theirs.test != context.facts.test) {
        fail(
            ErrorKind::protocol,
            "rank {} ({}) sees another model or data set than rank {} ({}): {} against {} training samples{}; "
            "make the files "
            "under VARSCOPE_DATA the same on every host",
            w.value, context.hosts[static_cast<std::size_t>(w.value)], first.value,
            context.hosts[static_cast<std::size_t>(first.value)], theirs.train_samples,
            context.facts.train_samples,
            theirs.train.content != context.facts.train.content ? " of other contents" : "");
      }
    }
    complete_context(context);
  });
  return model;
}

// "worker 1 on n3"
std::string role_text(const JobContext& context, Rank rank) {
  const std::string& host = context.hosts[static_cast<std::size_t>(rank.value)];
  if (const auto s = context.cluster.server_at(rank)) return fmt::format("server {} on {}", s->value, host);
  return fmt::format("worker {} on {}", context.cluster.worker_at(rank)->value, host);
}

std::string who_text(const JobContext& context, Rank rank) {
  return fmt::format("rank {} ({})", rank.value, role_text(context, rank));
}

// Process ids are the same only within one PID namespace of one machine.
std::string id_space_of_this_process() {
  std::error_code ignored;
  std::string id;
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::getline(boot, id);
  return id + " " + std::filesystem::read_symlink("/proc/self/ns/pid", ignored).string();
}

// So that a rank that gets SIGTERM can tell which of its neighbours has died. Collective over the job.
void meet_neighbours(MpiJob& mpi, const JobContext& context) {
  const std::vector<std::string> pids = mpi.all_gather(std::to_string(getpid()));
  const std::vector<std::string> spaces = mpi.all_gather(id_space_of_this_process());
  std::vector<Neighbour> neighbours;
  bool all_are_here = true;
  for (std::size_t r = 0; r < pids.size(); ++r) {
    const Rank rank(static_cast<int>(r));
    if (rank == mpi.rank()) continue;
    if (spaces[r] == spaces[static_cast<std::size_t>(mpi.rank().value)]) {
      neighbours.push_back(
          {std::atoi(pids[r].c_str()), fmt::format("{} (rank {})", role_text(context, rank), rank.value)});
    } else {
      all_are_here = false;
    }
  }
  FailureReport::set_neighbours(std::move(neighbours), all_are_here);
}

void tell_roles(const JobContext& context) {
  std::vector<std::string> roles;
  roles.reserve(context.hosts.size());
  for (std::size_t r = 0; r < context.hosts.size(); ++r)
    roles.push_back(role_text(context, Rank(static_cast<int>(r))));
  std::fputs(roles_line(roles).c_str(), stderr);
}

}  // namespace

RunEnd train_in_mpi_job(const TrainOptions& options, const LayerRegistry& layers, Fs& fs, MpiJob& mpi,
                        bool& started) {
  JobContext context(fs);
  agree_on_program(options, mpi);
  warn_of_other_kernels(mpi);
  if (mpi.rank() == Rank(0)) context.command = start_command(options, mpi.size());
  context.hosts = mpi.all_gather(mpi.host());
  const std::vector<std::string> processors = mpi.all_gather(own_processors());
  share_start(options, mpi, context);
  if (context.start.is_stopped) return RunEnd::stopped;
  context.cluster = assign_roles(context.hosts, static_cast<int>(context.job().cluster.servers),
                                 static_cast<int>(context.job().cluster.logical_workers));
  meet_neighbours(mpi, context);
  const auto model = share_model(mpi, context, layers);
  const auto transport = mpi.make_transport();
  std::unique_ptr<ServerRole> server;
  const auto id = context.cluster.server_at(mpi.rank());
  together(mpi, [&] {
    if (options.fresh && mpi.rank() == Rank(0)) set_earlier_run_aside(fs, context.job());
    if (id) server = std::make_unique<ServerRole>(context, *id, *transport);
  });
  FailureReport::set_who(who_text(context, mpi.rank()));
  tell_how_to_go_on(context.start);
  // mpirun sends SIGTERM when it is asked to end, and when a rank has died. In the first case every rank
  // lives until the SIGKILL that follows: what can be saved until then is saved. In the other one nothing
  // comes of the request.
  FailureReport::on_sigterm(context.saves() ? OnSigterm::saves : OnSigterm::ends);
  if (mpi.rank() == Rank(0) && has_launcher()) tell_roles(context);
  started = true;
  spdlog::debug("starts as {}", who_text(context, mpi.rank()));
  if (mpi.rank() == Rank(0)) {
    warn(crowding_warnings(context.hosts, processors, context.job().cluster.blas_threads, context.rule));
    warn_of_start(context);
  }
  if (id) return server->run();
  return run_worker(context, *model, *context.cluster.worker_at(mpi.rank()), *transport);
}

}  // namespace varscope
