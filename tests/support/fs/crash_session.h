#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/rollback_pin.h"
#include "tests/support/case_stride.h"
#include "tests/support/fs/crash_states.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

// A recorded session of jobs and tools on one directory of checkpoints, what it promises at each moment, and
// whether recovery keeps the promise on a disk that a crash left.
namespace varscope::testing {

inline constexpr const char* kCrashDir = "/c";

// Values in both of two shards.
inline Model crash_model(unsigned seed) {
  return {
      VariableTable({make_variable("w", DType::float32, {4, 3}), make_variable("b", DType::float64, {3})}),
      {"m"},
      seed};
}

// What a user may rely on after a crash. It holds from its note in the log on.
struct CrashPromise {
  std::int64_t at_least = -1, at_most = -1;         // step of the newest checkpoint; -1: there may be none
  std::map<std::int64_t, std::set<Digest>> hashes;  // the values a step may have
  std::set<std::int64_t> pinned;
  std::string lineage;  // words that LINEAGE has for certain
};

// Jobs and tools on one directory, and what each step promises. Operations can be made to fail by `io`.
class CrashSession {
 public:
  explicit CrashSession(bool can_exchange = true) {
    if (!can_exchange) fs.no_exchange();
    fs.make_dir(kCrashDir);
    start = fs.disk();
    fs.log().clear();
    promise({});
  }

  void run() {
    {
      CheckpointDirectory directory(io, kCrashDir);
      directory.lock("first");
      directory.sweep();
      for (const int step : {1, 2, 3}) {
        save(directory, step, static_cast<unsigned>(step));
        directory.retain(2);
      }
    }
    pin(2);
    {
      CheckpointDirectory directory(io, kCrashDir);
      directory.lock("second");
      directory.sweep();
      save(directory, 4, 4);
      directory.retain(1);
      save(directory, 4, 44);  // the step again, with other values
      give_up(directory, 5);
      save(directory, 5, 5);
      write_shards(directory.begin("killed"), crash_model(98), 6, "killed");  // the third job sweeps it
    }
    rollback(4);
    CheckpointDirectory directory(io, kCrashDir);
    directory.lock("third");
    directory.sweep();
    save(directory, 5, 55);
    directory.retain(1);
  }

  void save_again() {
    CheckpointDirectory directory(io, kCrashDir);
    directory.lock("first");
    save(directory, 3, 3);
    save(directory, 4, 4);
    save(directory, 4, 44);
  }

  // As a job whose save meets an error of the disk in its n-th `op`; then the next job starts. Returns the
  // number of operations before the error.
  std::size_t save_with_fault(std::int64_t step, FsOp op, int n) {
    std::size_t before = 0;
    {
      CheckpointDirectory directory(io, kCrashDir);
      directory.lock("first");
      save(directory, 3, 3);
      save(directory, 4, 4);
      io.fail_nth(op, n, EIO);
      before = fs.log().size();
      try {
        save(directory, step, 55);
        directory.retain(1);
      } catch (const Error&) {
        directory.abandon("id-55");
      }
      io.clear_faults();
    }
    CheckpointDirectory directory(io, kCrashDir);
    directory.lock("second");
    directory.sweep();
    return before;
  }

  MemoryFs fs;
  FaultFs io{fs};
  Disk start;
  std::vector<CrashPromise> promises;

  // Holds from here on in the log.
  void promise(CrashPromise next) {
    now_ = next;
    fs.note(promises.size());
    promises.push_back(std::move(next));
  }

 private:
  // The operations of both servers alternate, as they do when they write at the same time.
  Manifest write_shards(const std::string& tmp, const Model& model, std::int64_t step,
                        const std::string& id) {
    Manifest manifest = make_manifest(model, step, 2);
    manifest.unix_time = 1'700'000'000;
    std::vector<std::vector<DiskOp>> of_server;
    const std::vector<DiskOp> before = std::move(fs.log());
    for (int server = 0; server < 2; ++server) {
      fs.log().clear();
      add_report(manifest, write_part(io, tmp, model, step, server, 2, id));
      of_server.push_back(std::move(fs.log()));
    }
    fs.log() = before;
    for (std::size_t i = 0; i < std::max(of_server[0].size(), of_server[1].size()); ++i) {
      for (const auto& ops : of_server) {
        if (i < ops.size()) fs.log().push_back(ops[i]);
      }
    }
    for (int worker : {0, 1})
      manifest.files.push_back(write_blob(io, tmp, worker_state_name(worker), "position of a worker"));
    return manifest;
  }

  void save(CheckpointDirectory& directory, std::int64_t step, unsigned seed) {
    const Model model = crash_model(seed);
    CrashPromise p = now_;
    p.at_most = std::max(p.at_most, step);
    p.hashes[step].insert(values_hash_of(model));
    promise(p);
    const std::string id = fmt::format("id-{}", seed);
    directory.commit(id, write_shards(directory.begin(id), model, step, id));
    p.at_least = step;
    p.hashes[step] = {values_hash_of(model)};
    promise(p);  // acknowledged
  }

  void give_up(CheckpointDirectory& directory, std::int64_t step) {
    write_shards(directory.begin("given-up"), crash_model(99), step, "given-up");
    directory.abandon("given-up");
  }

  void pin(std::int64_t step) {
    std::string out;
    pin_tool(io, kCrashDir, step, PinChange::pin, ToolFormat::text, out);
    CrashPromise p = now_;
    p.pinned.insert(step);
    promise(p);
  }

  void rollback(std::int64_t step) {
    CrashPromise p = now_;
    p.at_least = step;
    promise(p);
    std::string out;
    rollback_tool(io, kCrashDir, step, ToolFormat::text, out);
    p.at_most = step;
    p.hashes.erase(p.hashes.upper_bound(step), p.hashes.end());
    p.lineage = "\"to\":\"" + step_name(step) + "\"";
    promise(p);
  }

  CrashPromise now_;
};

// A checkpoint that has a final name is whole, whatever the crash.
inline std::string broken_checkpoint(Fs& fs) {
  for (const std::string& name : fs.list(kCrashDir)) {
    if (!name.starts_with("step-") && !name.starts_with(kSupersededPrefix)) continue;
    const auto problems = verify_checkpoint(fs, join_path(kCrashDir, name));
    if (!problems.empty()) return fmt::format("{} is not whole: {}", name, problems.front());
  }
  return "";
}

inline std::string broken_small_files(Fs& fs, const CrashPromise& promise,
                                      const std::vector<CheckpointEntry>& entries) {
  std::string latest = latest_problem(fs, kCrashDir, entries);
  if (latest.find("is torn") != std::string::npos || latest.find("cannot be used") != std::string::npos)
    return latest;
  for (const CheckpointEntry& e : entries) {
    if (promise.pinned.contains(e.step) && !e.pinned) return e.name + " is not pinned any more";
  }
  const std::string path = join_path(kCrashDir, kLineageName);
  const std::string lineage = fs.exists(path) ? read_whole_file(fs, path, 1 << 20) : "";
  const bool torn = fs.exists(path) && (!lineage.starts_with("{\"event\"") || !lineage.ends_with("}\n"));
  if (torn || lineage.find(promise.lineage) == std::string::npos)
    return fmt::format("LINEAGE is \"{}\"", lineage);
  return "";
}

// Opens the newest as a job would; "" or what was promised and is not so.
inline std::string broken_newest(Fs& fs, const CrashPromise& promise,
                                 const std::vector<CheckpointEntry>& entries) {
  for (const std::int64_t step : promise.pinned) {
    if (std::none_of(entries.begin(), entries.end(), [&](const auto& e) { return e.step == step; }))
      return step_name(step) + " was pinned and is gone";
  }
  if (entries.empty()) return promise.at_least < 0 ? "" : "all checkpoints are gone";
  CheckpointReader reader = CheckpointReader::open(fs, newest_checkpoint(fs, kCrashDir).path);
  const std::int64_t step = reader.manifest().step;
  PartRows rows;  // of chains, what a restore would read: it throws where they are not those of the manifest
  for (const TableRecord& t : reader.tables()) {
    for (int part = 0; part < t.spec.parts; ++part) reader.read_part(t.variable, part, rows);
  }
  if (step < promise.at_least || step > promise.at_most)
    return fmt::format("step {} is the newest, not {} to {}", step, promise.at_least, promise.at_most);
  const auto hashes = promise.hashes.find(step);
  if (hashes == promise.hashes.end() || !hashes->second.contains(reader.values_hash()))
    return fmt::format("step {} has values that were never saved under it", step);
  return "";
}

// The next job: locks, sweeps and saves.
inline std::string broken_restart(Fs& fs) {
  static const Model model = crash_model(7);
  static const Digest hash = values_hash_of(model);
  CheckpointDirectory directory(fs, kCrashDir);
  directory.lock("next");
  directory.sweep();
  for (const std::string& name : fs.list(kCrashDir)) {
    if (name.starts_with(".")) return "the sweep left " + name;
  }
  save(fs, directory, model, 900, 1, "next");
  if (!directory.warnings().empty()) return "the next save warns: " + directory.warnings().front();
  const CheckpointReader reader = CheckpointReader::open(fs, newest_checkpoint(fs, kCrashDir).path);
  return reader.manifest().step == 900 && reader.values_hash() == hash ? "" : "the next save is not found";
}

// "" or what is wrong with recovery from this disk.
inline std::string broken_promise(Disk disk, const CrashPromise& promise) {
  try {
    MemoryFs fs(std::move(disk));
    const std::vector<CheckpointEntry> entries = scan_checkpoints(fs, kCrashDir);
    for (std::string problem : {broken_newest(fs, promise, entries), broken_checkpoint(fs),
                                broken_small_files(fs, promise, entries)}) {
      if (!problem.empty()) return problem;
    }
    return broken_restart(fs);
  } catch (const Error& e) {
    return fmt::format("recovery throws: {}", e.what());
  }
}

struct CrashesTried {
  std::size_t operations = 0, states = 0;
  std::string violation;  // the first
};

// States that are good, by the promise that they keep.
using GoodStates = std::set<std::pair<std::size_t, Digest>>;

// There are tens of thousands of states, and what reads them is the same code.
inline constexpr std::size_t kStateStride = kCaseStride == 1 ? 1 : 19;

// A crash after every operation of the log from number `from` on. Ends at the first violation. What is in
// `good` is not tried again, and of what is new one state in `stride` is.
inline CrashesTried try_crashes(const CrashSession& session, const std::vector<DiskOp>& log, GoodStates& good,
                                std::size_t from = 0, std::size_t stride = kStateStride) {
  CrashesTried tried;
  CrashStates states(session.start);
  GoodStates seen;
  std::size_t promise = 0;
  for (const DiskOp& op : log) {
    if (op.kind == DiskOpKind::note) promise = op.note;
    states.advance(op);
    tried.operations += op.kind == DiskOpKind::note ? 0 : 1;
    if (&op - log.data() < static_cast<std::ptrdiff_t>(from)) continue;
    if (op.kind == DiskOpKind::close) continue;  // changes nothing
    const bool all_good = states.for_each([&](const Digest& digest, const auto& make_disk) {
      if (!seen.insert({promise, digest}).second || good.contains({promise, digest})) return true;
      if (seen.size() % stride != 0) return true;
      tried.violation = broken_promise(make_disk(), session.promises[promise]);
      if (tried.violation.empty()) good.insert({promise, digest});
      return tried.violation.empty();
    });
    tried.states = seen.size();
    if (all_good) continue;
    tried.violation += fmt::format(", after operation {} {}", tried.operations, op.path);
    return tried;
  }
  return tried;
}

}  // namespace varscope::testing
