// Saves of changes and what is restored of them, beside the system's own calls: E9, E10. A server and a
// worker are threads of this process; the worker trains, and waits for each save.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "bench/program.h"
#include "bench/sparse/bench_table.h"
#include "bench/sparse/figures.h"
#include "checkpoint/format/manifest.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/config/yaml_reader.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/reports.h"
#include "common/transport/wire.h"
#include "ps/checkpointing/restore.h"
#include "ps/server_rank.h"
#include "worker/client/ps_client.h"

namespace varscope::bench {
namespace {

namespace fs = std::filesystem;

constexpr int kDeltas = 8;
constexpr Goal kBytesGoal{Bound::at_most, 1.05}, kWriteGoal{Bound::at_least, 0.8},
    kStallGoal{Bound::at_most, 0.1}, kRestoreGoal{Bound::at_least, 0.4}, kMemoryGoal{Bound::at_most, 1.15};
constexpr double kSaveLimit_s = 120;

// As a job's file would have it; nothing where this program does not know the key.
std::optional<CheckpointConfig> checkpoint_config(int every, const std::string& more) {
  try {
    return parse_job(
               read_yaml_text(
                   fmt::format("job: {{name: b}}\n"
                               "data: {{train: {{type: digits, size: 28, samples: 1}}}}\n"
                               "model: {{loss: sigmoid_cross_entropy, layers: [{{type: dense, units: 1}}]}}\n"
                               "checkpoint: {{every_steps: {}, keep: 100, at_end: false{}}}\n",
                               every, more),
                   "bench"),
               "bench")
        .checkpoint;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// One file of as many bytes and one fsync: the system's calls, nothing of ours.
double raw_write_s(const std::string& path, const std::vector<std::byte>& bytes) {
  const double seconds = seconds_of([&] {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
    bool good = fd >= 0;
    for (std::size_t at = 0; good && at < bytes.size();) {
      const ssize_t wrote = ::write(fd, bytes.data() + at, std::min<std::size_t>(8 << 20, bytes.size() - at));
      good = wrote > 0;
      if (good) at += static_cast<std::size_t>(wrote);
    }
    if (!good || ::fsync(fd) != 0 || ::close(fd) != 0) fail_io("write", path, errno);
  });
  ::unlink(path.c_str());
  return seconds;
}

double memcpy_s(std::size_t n) {
  std::vector<std::byte> from(n, std::byte{1}), to(n);
  std::vector<double> takes(5);
  for (double& take : takes) {
    take = seconds_of([&] {
      std::memcpy(to.data(), from.data(), n);
      clobber_memory();
    });
  }
  return Spread::of(takes).median;
}

struct Save {
  std::size_t n_rows = 0;     // changed since the one before
  std::uintmax_t bytes = 0;   // of its row files that no earlier one has
  double raw_write_s = 0;     // of as many bytes
  CheckpointSummary summary;  // of ours
};

// A job whose table has all rows from the start, and of which some change between two saves.
class SaveJob final : private RunObserver {
 public:
  SaveJob(const SparseOptions& options, std::string dir, CheckpointConfig config)
      : dir_(std::move(dir)),
        config_(std::move(config)),
        n_rows_(options.is_small ? 64 << 10 : 4 << 20),
        every_(static_cast<std::size_t>(config_.every_steps)),
        ids_(ids_of(draw_requests(Draw::uniform, n_rows_, static_cast<int>(every_) * (kDeltas + 1)))),
        variables_({bench_variable()}),
        buckets_(BucketPlan::make(variables_, 1)),
        plan_(RowPlan::make(variables_, 1)) {
    cluster_.servers = {Rank(0)};
    cluster_.workers = {Rank(1)};
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(kRequest); ++i) positions_.push_back(i);
  }
  // The first save, of all rows, and kDeltas of changes.
  std::vector<Save> run() {
    LoopbackHub hub(2);
    std::exception_ptr failed_server, failed_worker;
    std::thread server([&] { failed_server = run_rank(hub, [&] { serve(*hub.endpoint(Rank(0))); }); });
    failed_worker = run_rank(hub, [&] { work(*hub.endpoint(Rank(1))); });
    server.join();
    for (const std::exception_ptr& failed : {failed_server, failed_worker})
      if (failed) std::rethrow_exception(failed);
    for (std::size_t i = 0; i < saves_.size(); ++i) saves_[i].summary = summaries_.at(i);
    return saves_;
  }
  std::string last_path() const { return path_of(last_step()); }
  Clock last_step() const { return Clock(static_cast<std::int64_t>(ids_.size())); }
  std::uint64_t n_rows() const { return n_rows_; }
  const VariableTable& variables() const { return variables_; }
  const RowPlan& plan() const { return plan_; }

 private:
  // What ended it, but for the other's failure.
  template <class Work>
  static std::exception_ptr run_rank(LoopbackHub& hub, const Work& work) {
    try {
      work();
    } catch (const Aborted&) {
      return nullptr;
    } catch (...) {
      hub.abort();
      return std::current_exception();
    }
    return nullptr;
  }
  std::string path_of(Clock step) const { return dir_ + "/" + step_name(step.value); }
  void on_checkpoint(const CheckpointSummary& s) override {
    summaries_.push_back(s);
    ++n_saved_;
  }
  void on_checkpoint_failed(Clock clock, const std::string& why) override {
    fail(ErrorKind::io, "the save of step {} was given up: {}", clock.value, why);
  }
  void serve(Transport& transport) {
    ServerRank server({.transport = transport,
                       .cluster = cluster_,
                       .variables = variables_,
                       .plan = buckets_,
                       .id = ServerId(0),
                       .optimizer = rowwise_adagrad(),
                       .fill = [this](ParameterShard&, TableShards& tables) { fill(*tables[TableId(0)]); },
                       .start_id = "bench",
                       .saves = ServerRank::Saves{fs_, dir_, config_, options_of(config_)},
                       .control = ServerRank::Control{{Clock(0), last_step(), 1'000'000}, *this},
                       .stall_timeout_s = 600,
                       .rows = &plan_});
    server.run();
  }
  // Of what launch takes from the configuration, that which is not in this build is left as it is.
  template <class Config>
  static ShardCheckpointer::Options options_of(const Config& config) {
    ShardCheckpointer::Options options;
    set_incremental(options, config);
    return options;
  }
  template <class Options, class Config>
  static void set_incremental(Options& options, const Config& config) {
    if constexpr (requires { options.incremental = config.incremental; })
      options.incremental = config.incremental;
  }
  void fill(TableShard& table) const {
    const std::vector<float> values(kUnits, 0.1F);
    for (std::uint64_t i = 0; i < n_rows_; ++i)
      table.restore_values(id_of(i), reinterpret_cast<const std::byte*>(values.data()));
  }
  void work(Transport& transport) {
    VariableMemory memory(variables_, 1);
    PsClient client(transport, cluster_, buckets_, plan_, WorkerId(0), memory, {600, {}});
    std::vector<float> values(kRequest * kUnits), gradients(kRequest * kUnits, 0.01F);
    for (std::size_t step = 1; step <= ids_.size(); ++step) {
      const std::vector<std::uint64_t>& ids = ids_[step - 1];
      const Clock clock(static_cast<std::int64_t>(step));
      const std::span<const std::uint64_t> of_server(ids);
      client.rows().want(TableId(0), Clock(clock.value - 1), std::span(&of_server, 1),
                         reinterpret_cast<std::byte*>(values.data()));
      client.wait_rows(TableId(0));
      const RowClient::Contribution all{std::span(positions_).first(ids.size()),
                                        reinterpret_cast<const std::byte*>(gradients.data())};
      client.rows().push(TableId(0), clock, client.wait_go(clock), std::span(&all, 1));
      StepReport report;
      report.leaves.push_back({1, 0, 1});
      client.send_to_coordinator(make_header(MessageType::step_report, 0, clock), to_binary(report));
      if (step % every_ == 0) look_at_save(client, clock);
    }
    client.send_to_coordinator(make_header(MessageType::finished, 0, last_step()), "");
    client.wait_shutdown();
  }
  void look_at_save(PsClient& client, Clock clock) {
    const std::int64_t deadline = now_ns() + static_cast<std::int64_t>(kSaveLimit_s * 1e9);
    while (n_saved_.load() <= saves_.size()) {
      if (now_ns() > deadline) fail(ErrorKind::io, "no save of step {} in {} s", clock.value, kSaveLimit_s);
      client.progress();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // it is the disk's turn
    }
    Save save;
    for (const auto& file : fs::directory_iterator(path_of(clock))) {
      struct stat s {};
      if (!file.path().filename().string().starts_with("rows-") || ::stat(file.path().c_str(), &s) != 0)
        continue;
      if (files_.insert(s.st_ino).second) save.bytes += static_cast<std::uintmax_t>(s.st_size);
    }
    const auto end = static_cast<std::size_t>(clock.value);
    std::vector<std::uint64_t> changed;
    for (std::size_t i = end - every_; i < end; ++i)
      changed.insert(changed.end(), ids_[i].begin(), ids_[i].end());
    std::ranges::sort(changed);
    save.n_rows = static_cast<std::size_t>(std::ranges::unique(changed).begin() - changed.begin());
    save.raw_write_s = raw_write_s(dir_ + "/raw", std::vector<std::byte>(save.bytes, std::byte{1}));
    client.progress();
    saves_.push_back(save);
  }

  PosixFs fs_;
  std::string dir_;
  CheckpointConfig config_;
  std::uint64_t n_rows_;
  std::size_t every_;
  Requests ids_;
  VariableTable variables_;
  BucketPlan buckets_;
  RowPlan plan_;
  ClusterMap cluster_;
  std::vector<std::int32_t> positions_;
  std::set<ino_t> files_;
  std::vector<Save> saves_;
  std::atomic<std::size_t> n_saved_ = 0;
  std::vector<CheckpointSummary> summaries_;  // the server's, until it has ended
};

std::size_t row_bytes() { return BenchTable().shard().layout().row_bytes(); }

SparseFigures delta_figures(const std::vector<Save>& saves) {
  std::vector<double> bytes, ours, raw, write, stall;
  const auto n_row = static_cast<double>(row_bytes());
  for (std::size_t i = 1; i < saves.size(); ++i) {
    const Save& s = saves[i];
    bytes.push_back(static_cast<double>(s.bytes) / (static_cast<double>(s.n_rows) * n_row));
    const double mb = static_cast<double>(s.bytes) * 1e-6;
    ours.push_back(mb / s.summary.total_s);
    raw.push_back(mb / s.raw_write_s);
    write.push_back(ours.back() / raw.back());
    stall.push_back(s.summary.stall_s / memcpy_s(s.n_rows * row_bytes()));
  }
  return {plain_figure("E9", "bytes of a save of changes, over the changed rows'", "x", bytes, kBytesGoal),
          {"E9", "saves of changes, from cut to commit, over write + fsync of the bytes", "MB/s",
           Spread::of(ours), Spread::of(raw), Spread::of(write), kWriteGoal},
          plain_figure("E9", "time that training stops for it, over memcpy of the changed rows", "x", stall,
                       kStallGoal)};
}

// Resident bytes of this process, now and at most since the last reset.
struct Resident {
  double now = 0, most = 0;
};
Resident resident() {
  Resident r;
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("VmRSS:")) r.now = std::stod(line.substr(6)) * 1024;
    if (line.starts_with("VmHWM:")) r.most = std::stod(line.substr(6)) * 1024;
  }
  return r;
}

struct Restored {
  double seconds = 0, raw_seconds = 0;
  double most = 0, end = 0;  // bytes above what the process had before
};

// What the system takes for it: reading the files from the page cache, and copying the rows to where they
// live.
double raw_restore_s(const SaveJob& job) {
  PosixFs posix;
  std::size_t most = job.n_rows() * row_bytes();
  std::vector<std::string> files;
  for (const auto& file : fs::directory_iterator(job.last_path())) {
    if (!file.path().filename().string().starts_with("rows-")) continue;
    files.push_back(file.path());
    most = std::max<std::size_t>(most, file.file_size());
  }
  std::vector<std::byte> from(most, std::byte{1}), to(job.n_rows() * row_bytes(), std::byte{1});
  return seconds_of([&] {
    for (const std::string& file : files) posix.open(file)->read_at(0, {from.data(), fs::file_size(file)});
    std::memcpy(to.data(), from.data(), to.size());
    clobber_memory();
  });
}

Restored restore(const SaveJob& job) {
  Restored r;
  PosixFs posix;
  r.raw_seconds = raw_restore_s(job);
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the most begins anew
  const Resident before = resident();
  const Optimizer optimizer(rowwise_adagrad());
  TableShards tables = make_table_shards(job.variables(), job.plan(), ServerId(0), optimizer, 1);
  r.seconds = seconds_of([&] { restore_tables(tables, posix, {job.last_path(), job.last_step()}); });
  const Resident after = resident();
  if (tables[TableId(0)]->n_rows() != static_cast<std::int64_t>(job.n_rows()))
    fail(ErrorKind::checkpoint, "E10: {} rows came back of {}", tables[TableId(0)]->n_rows(), job.n_rows());
  r.most = after.most - before.now;
  r.end = after.now - before.now;
  r.raw_seconds = (r.raw_seconds + raw_restore_s(job)) / 2;
  return r;
}

// In a process of its own, so that each begins with memory that it has not had.
Restored restore_apart(const SaveJob& job) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) fail(ErrorKind::io, "E10: no pipe");
  const pid_t pid = fork();
  if (pid < 0) fail(ErrorKind::io, "E10: cannot fork");
  if (pid == 0) {
    try {
      const Restored r = restore(job);
      _exit(write(ends[1], &r, sizeof r) == sizeof r ? 0 : 1);
    } catch (const std::exception& e) {
      fmt::print(stderr, "{}\n", e.what());
      _exit(1);
    }
  }
  close(ends[1]);
  Restored r;
  const ssize_t n = read(ends[0], &r, sizeof r);
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (n != sizeof r || status != 0) fail(ErrorKind::checkpoint, "E10: the restore failed");
  return r;
}

SparseFigures restore_figures(const SparseOptions& options, const SaveJob& job, const std::string& what) {
  std::vector<double> ours, raw, speed, memory;
  const double mb = static_cast<double>(job.n_rows() * row_bytes()) * 1e-6;
  for (int t = -1; t < options.trials; ++t) {
    const Restored r = restore_apart(job);
    if (t < 0) continue;
    ours.push_back(mb / r.seconds);
    raw.push_back(mb / r.raw_seconds);
    speed.push_back(ours.back() / raw.back());
    memory.push_back(r.most / r.end);
  }
  return {{"E10", fmt::format("restore of {}, over read + memcpy of the rows", what), "MB/s",
           Spread::of(ours), Spread::of(raw), Spread::of(speed), kRestoreGoal},
          plain_figure("E10", "most memory while restoring, over that at its end", "x", memory, kMemoryGoal)};
}

}  // namespace

SparseFigures measure_saves(const SparseOptions& options) {
  const ScratchDir scratch;
  const std::string dir = options.dir.empty() ? scratch / "saves" : options.dir + "/sparse-saves";
  const int every = options.is_small ? 2 : 32;
  const auto changes = checkpoint_config(every, ", incremental: true");
  const auto all = checkpoint_config(every, "");
  if (!all) fail(ErrorKind::config, "E9: the job cannot be read");
  SparseFigures figures;
  {
    SaveJob job(options, dir, changes.value_or(*all));
    const std::vector<Save> saves = job.run();
    if (changes) {
      figures = delta_figures(saves);
    } else {
      figures.push_back(
          skipped_figure("E9", "saves of changes", kBytesGoal, "there is no checkpoint.incremental"));
    }
    for (SparseFigure& f : restore_figures(
             options, job, changes ? fmt::format("all rows + {} saves of changes", kDeltas) : "all rows"))
      figures.push_back(std::move(f));
  }
  fs::remove_all(dir);
  return figures;
}

}  // namespace varscope::bench
