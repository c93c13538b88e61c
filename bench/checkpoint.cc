// A checkpoint of one server's shard (docs/performance.md, P7), each figure beside its ceiling in the same
// take:
//   stall    the cut, copy and cow, over one warm memcpy of the shard
//   update   a step of updates while a cow snapshot drains, over a step without one, in memcpys of the shard
//   flush    from the cut until the shard is on disk, over writing the same bytes with one fsync
//   verify   checking every byte of the checkpoint, over reading the file from the page cache
//   restore  reading the shard's tensors back, over reading the file from the page cache plus one memcpy
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <thread>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "ps/checkpointing/shard_checkpointer.h"
#include "ps/update/updater.h"

namespace varscope::bench {
namespace {

constexpr std::size_t kWriteBytes = 8 << 20;
// The figures that may be 0, or less.
constexpr const char* kUpdateCost = "(update while it drains - update) / memcpy";
constexpr const char* kCopied = "copied by updates / shard";

VariableTable table_of(std::int64_t mib) {
  VariableSpec v;
  v.name = v.scope = "dense";
  v.name += "/weights";
  v.shape = Shape{mib * 256, 1024};
  v.initializer = Initializer::normal(0, 1);
  return VariableTable({v});
}

// Adam over one variable: values and two slots.
class Bench {
 public:
  Bench(std::string dir, std::int64_t mib)
      : dir_(std::move(dir)),
        variables_(table_of(mib)),
        plan_(BucketPlan::make(variables_, 1)),
        shard_(variables_, plan_, ServerId(0), optimizer_.slots()),
        watch_(plan_, shard_),
        updater_(plan_, optimizer_, shard_, watch_),
        gradient_(DType::float32, variables_[0].shape),
        copy_(allocate_aligned(static_cast<std::size_t>(shard_.n_bytes()))) {
    std::filesystem::create_directories(dir_);
    shard_.initialize(1);
    copy_shard();  // touches the pages
  }

  std::map<std::string, double> take(SnapshotMode mode) {
    std::map<std::string, double> figures;
    TableShards tables;
    ShardCheckpointer checkpointer(shard_, tables, fs_, dir_, 1, 1, {mode, 0, 60});
    const double memcpy_s = seconds_of([&] { copy_shard(); });
    const double raw_write_s = raw_write();
    const double plain_update_s = seconds_of([&] { update(); });

    ShardOutcome outcome = save(checkpointer, [] {});
    figures["stall / memcpy"] = static_cast<double>(outcome.stall_ns) * 1e-9 / memcpy_s;
    figures["flush: raw write / ours"] = (raw_write_s + raw_write()) / 2 / flush_s_;
    restore(outcome.report, figures, memcpy_s);

    double busy_update_s = 0;
    outcome = save(checkpointer, [&] { busy_update_s = seconds_of([&] { update(); }); });
    figures[kUpdateCost] = (busy_update_s - plain_update_s) / memcpy_s;
    figures[kCopied] = static_cast<double>(outcome.copied_bytes) / static_cast<double>(shard_.n_bytes());
    return figures;
  }
  std::int64_t n_bytes() const { return shard_.n_bytes(); }

 private:
  void copy_shard() {
    std::byte* to = copy_.get();
    shard_.for_each_slice([&](const VariableSpec&, const std::string&, const BucketSlice&, TensorView data) {
      std::memcpy(to, data.bytes(), data.n_bytes());
      to += data.n_bytes();
    });
  }
  void update() {
    for (BucketId id : shard_.buckets()) {
      const Bucket& bucket = plan_[id];
      for (int i = 0; i < bucket.n_wire_chunks(); ++i) {  // as the server does
        const WireChunk chunk = bucket.wire_chunk(i);
        updater_.update(id, chunk.first_element, chunk.n_elements, gradient_.view().bytes() + chunk.begin,
                        UpdateStep::whole(Clock(++clock_)));
      }
    }
  }
  // One file of as many bytes, one fsync: the system's calls, nothing of ours.
  double raw_write() {
    const std::string path = dir_ + "/raw";
    const double seconds = seconds_of([&] {
      const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0666);
      const auto n = static_cast<std::size_t>(shard_.n_bytes());
      bool good = fd >= 0;
      for (std::size_t at = 0; good && at < n;) {
        const ssize_t wrote = ::write(fd, copy_.get() + at, std::min(kWriteBytes, n - at));
        good = wrote > 0;
        if (good) at += static_cast<std::size_t>(wrote);
      }
      if (!good || ::fsync(fd) != 0 || ::close(fd) != 0) fail_io("write", path, errno);
    });
    fs_.remove_all(path);
    return seconds;
  }
  template <class Meanwhile>
  ShardOutcome save(ShardCheckpointer& checkpointer, const Meanwhile& meanwhile) {
    const std::string id = checkpoint_id(Clock(1), "bench", ++saves_);
    fs_.remove_all(path_);
    path_ = temporary_path(dir_, id);
    fs_.make_dir(path_);
    const std::int64_t started = now_ns();
    checkpointer.cut(Clock(1), id);
    meanwhile();
    std::optional<ShardOutcome> outcome;
    while (!(outcome = checkpointer.poll())) std::this_thread::sleep_for(std::chrono::microseconds(100));
    flush_s_ = static_cast<double>(now_ns() - started) * 1e-9;
    if (!outcome->error.empty()) fail(ErrorKind::io, "{}", outcome->error);
    return *outcome;
  }
  // The shard, as a checkpoint of its own, read back slice by slice; the file is in the page cache.
  void restore(const ShardReport& report, std::map<std::string, double>& figures, double memcpy_s) {
    CheckpointDirectory directory(fs_, dir_ + "/committed");
    directory.lock("bench");
    const std::string tmp = directory.begin("restore");
    std::filesystem::copy(path_ + "/" + report.file.name, tmp + "/" + report.file.name);
    Manifest m;
    m.servers = m.workers = m.logical_workers = 1;
    m.step = report.step;
    m.worker_clocks = report.worker_clocks;
    m.variables = variables_;
    m.optimizer = to_string(optimizer_.config().type);
    m.slots = optimizer_.slot_names();
    m.id = "restore";
    add_report(m, report);
    m.files.push_back(write_blob(fs_, tmp, worker_state_name(0), "state"));
    const std::string path = directory.commit("restore", m);
    const std::string file = path + "/" + report.file.name;
    const auto read_raw = [&] {
      return seconds_of([&] {
        const auto raw = fs_.open(file);
        raw->read_at(0, {copy_.get(), static_cast<std::size_t>(shard_.n_bytes())});
      });
    };
    double verify_s = 0, raw_s = 0;
    for (int i = 0; i < 3; ++i) {
      raw_s += read_raw();
      verify_s += seconds_of([&] {
        if (!verify_checkpoint(fs_, path).empty()) fail(ErrorKind::checkpoint, "{} is damaged", path);
      });
    }
    figures["verify: raw read / ours"] = raw_s / verify_s;
    const double before = read_raw();
    const double ours = seconds_of([&] {
      CheckpointReader reader = CheckpointReader::open(fs_, path);
      shard_.for_each_slice([&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice,
                                TensorView out) { reader.read(v, slot, slice.box, out); });
    });
    figures["restore: raw read + memcpy / ours"] = ((before + read_raw()) / 2 + memcpy_s) / ours;
    fs_.remove_all(dir_ + "/committed");
  }

  PosixFs fs_;
  std::string dir_;
  VariableTable variables_;
  BucketPlan plan_;
  Optimizer optimizer_{[] {
    OptimizerConfig c;
    c.type = OptimizerType::adam;
    return c;
  }()};
  ParameterShard shard_;
  FiniteWatch watch_;
  Updater updater_;
  Tensor gradient_;
  AlignedBytes copy_;
  std::string path_ = "";
  double flush_s_ = 0;
  std::int64_t saves_ = 0;
  std::int64_t clock_ = 0;
};

int run(int argc, char** argv) {
  CLI::App app("Checkpoint of a shard: stall, flush, restore");
  std::string dir = (std::filesystem::temp_directory_path() / "varscope-bench-checkpoint").string(), json;
  int trials = 5;
  std::int64_t mib = 64;
  app.add_option("--dir", dir, "A folder on the disk to measure; removed at the end");
  app.add_option("--trials", trials)->check(CLI::Range(1, 1000));
  app.add_option("--mib", mib, "Values; Adam's slots are twice as much")->check(CLI::Range(1, 1 << 16));
  app.add_option("--json", json, "Write the figures to this file");
  CLI11_PARSE(app, argc, argv);
  nlohmann::json all = nlohmann::json::array();
  std::filesystem::remove_all(dir);
  {
    Bench bench(dir, mib);
    std::printf("shard of %.0f MiB (values and 2 slots), %d takes\n",
                static_cast<double>(bench.n_bytes()) / (1 << 20), trials);
    for (const auto& [name, mode] :
         {std::pair{"copy", SnapshotMode::copy}, std::pair{"cow", SnapshotMode::cow}}) {
      std::map<std::string, std::vector<double>> takes;
      for (int t = 0; t < trials; ++t) {
        for (const auto& [figure, value] : bench.take(mode)) takes[figure].push_back(value);
      }
      for (const auto& [figure, values] : takes) {
        const Spread s = Spread::of(values);
        if (figure != kUpdateCost && figure != kCopied) require_positive(figure, s);
        std::printf("%-5s %-46s %8.4f [%.4f .. %.4f]\n", name, figure.c_str(), s.median, s.min, s.max);
        all.push_back(
            {{"snapshot", name}, {"figure", figure}, {"median", s.median}, {"min", s.min}, {"max", s.max}});
      }
    }
  }
  std::filesystem::remove_all(dir);
  if (!json.empty()) {
    PosixFs fs;
    write_named_file(fs, json, all.dump(2) + "\n");
  }
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("checkpoint", varscope::bench::run, argc, argv);
}
