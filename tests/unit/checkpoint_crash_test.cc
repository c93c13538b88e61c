// What a crash at any moment leaves on the disk, and what recovery makes of it: the operations of two jobs
// and of the tools are recorded, every state that the disk may then be in (tests/support/crash_states.h) is
// made, and the real recovery runs on each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <set>
#include <string>

#include "checkpoint/committer.h"
#include "checkpoint/reader.h"
#include "checkpoint/scan.h"
#include "checkpoint/upkeep.h"
#include "tests/support/checkpoint_fixture.h"
#include "tests/support/crash_states.h"
#include "tests/support/failure_matrix.h"
#include "tests/support/memory_fs.h"

namespace varscope {
namespace {

using testing::CrashStates;
using testing::Disk;
using testing::DiskOp;
using testing::DiskOpKind;
using testing::FailureMatrix;
using ::testing::HasSubstr;
using testing::MemoryFs;
using testing::Model;

FailureMatrix& matrix = FailureMatrix::install("files: crashes", VARSCOPE_SOURCE_DIR "/docs/failures.md");

constexpr const char* kDir = "/c";

// Values in both of two shards.
Model model_of(unsigned seed) {
  return {VariableTable({testing::make_variable("w", DType::float32, {4, 3}),
                         testing::make_variable("b", DType::float64, {3})}),
          {"m"},
          seed};
}

// What a user may rely on after a crash. It holds from its note in the log on.
struct Promise {
  std::int64_t at_least = -1, at_most = -1;         // step of the newest checkpoint; -1: there may be none
  std::map<std::int64_t, std::set<Digest>> hashes;  // the values a step may have
  std::set<std::int64_t> pinned;
  std::string lineage;  // words that LINEAGE has for certain
};

// Two jobs and the tools on one directory, and what each step promises.
class Session {
 public:
  explicit Session(bool can_exchange = true) {
    if (!can_exchange) fs.no_exchange();
    fs.make_dir(kDir);
    start = fs.disk();
    fs.log().clear();
    promise({});
  }

  void run() {
    {
      CheckpointDirectory directory(fs, kDir);
      directory.lock("first");
      directory.sweep();
      for (const int step : {1, 2, 3}) {
        save(directory, step, static_cast<unsigned>(step));
        directory.retain(2);
      }
    }
    pin(2);
    {
      CheckpointDirectory directory(fs, kDir);
      directory.lock("second");
      directory.sweep();
      save(directory, 4, 4);
      directory.retain(1);
      save(directory, 4, 44);  // the step again, with other values
      give_up(directory, 5);
      save(directory, 5, 5);
      write_shards(directory.begin("killed"), model_of(98), 6, "killed");  // the third job sweeps it
    }
    rollback(4);
    CheckpointDirectory directory(fs, kDir);
    directory.lock("third");
    directory.sweep();
    save(directory, 5, 55);
    directory.retain(1);
  }

  void save_again() {
    CheckpointDirectory directory(fs, kDir);
    directory.lock("first");
    save(directory, 3, 3);
    save(directory, 4, 4);
    save(directory, 4, 44);
  }

  MemoryFs fs;
  Disk start;
  std::vector<Promise> promises;

 private:
  void promise(Promise next) {
    now_ = next;
    fs.note(promises.size());
    promises.push_back(std::move(next));
  }

  // The operations of both servers alternate, as they do when they write at the same time.
  Manifest write_shards(const std::string& tmp, const Model& model, std::int64_t step,
                        const std::string& id) {
    Manifest manifest = testing::make_manifest(model, step, 2);
    manifest.unix_time = 1'700'000'000;
    std::vector<std::vector<DiskOp>> of_server;
    const std::vector<DiskOp> before = std::move(fs.log());
    for (int server = 0; server < 2; ++server) {
      fs.log().clear();
      add_report(manifest, testing::write_part(fs, tmp, model, step, server, 2, id));
      of_server.push_back(std::move(fs.log()));
    }
    fs.log() = before;
    for (std::size_t i = 0; i < std::max(of_server[0].size(), of_server[1].size()); ++i) {
      for (const auto& ops : of_server) {
        if (i < ops.size()) fs.log().push_back(ops[i]);
      }
    }
    for (int worker : {0, 1})
      manifest.files.push_back(write_blob(fs, tmp, worker_state_name(worker), "position of a worker"));
    return manifest;
  }

  void save(CheckpointDirectory& directory, std::int64_t step, unsigned seed) {
    const Model model = model_of(seed);
    Promise p = now_;
    p.at_most = std::max(p.at_most, step);
    p.hashes[step].insert(testing::values_hash_of(model));
    promise(p);
    const std::string id = fmt::format("id-{}", seed);
    directory.commit(id, write_shards(directory.begin(id), model, step, id));
    p.at_least = step;
    p.hashes[step] = {testing::values_hash_of(model)};
    promise(p);  // acknowledged
  }

  void give_up(CheckpointDirectory& directory, std::int64_t step) {
    write_shards(directory.begin("given-up"), model_of(99), step, "given-up");
    directory.abandon("given-up");
  }

  void pin(std::int64_t step) {
    std::string out;
    pin_tool(fs, kDir, step, PinChange::pin, ToolFormat::text, out);
    Promise p = now_;
    p.pinned.insert(step);
    promise(p);
  }

  void rollback(std::int64_t step) {
    Promise p = now_;
    p.at_least = step;
    promise(p);
    std::string out;
    rollback_tool(fs, kDir, step, ToolFormat::text, out);
    p.at_most = step;
    p.hashes.erase(p.hashes.upper_bound(step), p.hashes.end());
    p.lineage = "\"to\":\"" + step_name(step) + "\"";
    promise(p);
  }

  Promise now_;
};

// A checkpoint that has a final name is whole, whatever the crash.
std::string broken_checkpoint(Fs& fs) {
  for (const std::string& name : fs.list(kDir)) {
    if (!name.starts_with("step-") && !name.starts_with(kSupersededPrefix)) continue;
    const auto problems = verify_checkpoint(fs, join_path(kDir, name));
    if (!problems.empty()) return fmt::format("{} is not whole: {}", name, problems.front());
  }
  return "";
}

std::string broken_small_files(Fs& fs, const Promise& promise, const std::vector<CheckpointEntry>& entries) {
  const std::string latest = latest_problem(fs, kDir, entries);
  if (latest.find("is torn") != std::string::npos || latest.find("cannot be used") != std::string::npos)
    return latest;
  for (const CheckpointEntry& e : entries) {
    if (promise.pinned.contains(e.step) && !e.pinned) return e.name + " is not pinned any more";
  }
  const std::string path = join_path(kDir, kLineageName);
  const std::string lineage = fs.exists(path) ? read_whole_file(fs, path, 1 << 20) : "";
  const bool torn = fs.exists(path) && (!lineage.starts_with("{\"event\"") || !lineage.ends_with("}\n"));
  if (torn || lineage.find(promise.lineage) == std::string::npos)
    return fmt::format("LINEAGE is \"{}\"", lineage);
  return "";
}

// Opens the newest as a job would; "" or what was promised and is not so.
std::string broken_newest(Fs& fs, const Promise& promise, const std::vector<CheckpointEntry>& entries) {
  for (const std::int64_t step : promise.pinned) {
    if (std::none_of(entries.begin(), entries.end(), [&](const auto& e) { return e.step == step; }))
      return step_name(step) + " was pinned and is gone";
  }
  if (entries.empty()) return promise.at_least < 0 ? "" : "all checkpoints are gone";
  const CheckpointReader reader = CheckpointReader::open(fs, newest_checkpoint(fs, kDir).path);
  const std::int64_t step = reader.manifest().step;
  if (step < promise.at_least || step > promise.at_most)
    return fmt::format("step {} is the newest, not {} to {}", step, promise.at_least, promise.at_most);
  const auto hashes = promise.hashes.find(step);
  if (hashes == promise.hashes.end() || !hashes->second.contains(reader.values_hash()))
    return fmt::format("step {} has values that were never saved under it", step);
  return "";
}

// The next job: locks, sweeps and saves.
std::string broken_restart(Fs& fs) {
  static const Model model = model_of(7);
  static const Digest hash = testing::values_hash_of(model);
  CheckpointDirectory directory(fs, kDir);
  directory.lock("next");
  directory.sweep();
  for (const std::string& name : fs.list(kDir)) {
    if (name.starts_with(".")) return "the sweep left " + name;
  }
  testing::save(fs, directory, model, 900, 1, "next");
  if (!directory.warnings().empty()) return "the next save warns: " + directory.warnings().front();
  const CheckpointReader reader = CheckpointReader::open(fs, newest_checkpoint(fs, kDir).path);
  return reader.manifest().step == 900 && reader.values_hash() == hash ? "" : "the next save is not found";
}

// "" or what is wrong with recovery from this disk.
std::string violation(Disk disk, const Promise& promise) {
  try {
    MemoryFs fs(std::move(disk));
    const std::vector<CheckpointEntry> entries = scan_checkpoints(fs, kDir);
    for (std::string problem : {broken_newest(fs, promise, entries), broken_checkpoint(fs),
                                broken_small_files(fs, promise, entries)}) {
      if (!problem.empty()) return problem;
    }
    return broken_restart(fs);
  } catch (const Error& e) {
    return fmt::format("recovery throws: {}", e.what());
  }
}

struct Tried {
  std::size_t operations = 0, states = 0;
  std::string violation;  // the first
};

// States that are good, by the promise that they keep.
using Good = std::set<std::pair<std::size_t, Digest>>;

// A crash after every operation of the log. Ends at the first violation. What is in `good` is not tried
// again.
Tried try_all(const Session& session, const std::vector<DiskOp>& log, Good& good) {
  Tried tried;
  CrashStates states(session.start);
  std::size_t promise = 0;
  for (const DiskOp& op : log) {
    if (op.kind == DiskOpKind::note) promise = op.note;
    states.advance(op);
    tried.operations += op.kind == DiskOpKind::note ? 0 : 1;
    if (op.kind == DiskOpKind::close) continue;  // changes nothing
    const bool all_good = states.for_each([&](const Digest& digest, const auto& make_disk) {
      if (good.contains({promise, digest})) return true;
      ++tried.states;
      tried.violation = violation(make_disk(), session.promises[promise]);
      if (tried.violation.empty()) good.insert({promise, digest});
      return tried.violation.empty();
    });
    if (all_good) continue;
    tried.violation += fmt::format(", after operation {} {}", tried.operations, op.path);
    return tried;
  }
  return tried;
}

TEST(CheckpointCrash, EveryStateAfterEveryOperationRecovers) {
  Session session;
  session.run();
  Good good;
  const Tried tried = try_all(session, session.fs.log(), good);
  EXPECT_EQ(tried.violation, "");
  std::printf("%zu operations, %zu states of the disk\n", tried.operations, tried.states);
  EXPECT_GT(tried.operations, 200U);
  EXPECT_GT(tried.states, 10'000U);
  matrix.add(
      {"crash of the machine: unsynced bytes lost, torn or zero, names lost or there",
       "after each operation of seven saves, retention, a pin, a given-up save, a killed one, a step saved "
       "again, a rollback",
       "more than 10000 states",
       "the last acknowledged checkpoint or a newer one; the sweep leaves nothing; the next save works"});
}

// Where names cannot be exchanged there is a moment without the step (docs/checkpoint_format.md, Commit, 5):
// the promise is the checkpoint before, and nothing else is lost.
TEST(CheckpointCrash, WithoutExchangeOnlyTheStepThatIsSavedAgainCanBeLost) {
  Session session(false);
  session.save_again();
  Good good, good_but_older;
  const Tried strict = try_all(session, session.fs.log(), good);
  EXPECT_THAT(strict.violation, HasSubstr("step 3 is the newest, not 4 to 4"));
  for (Promise& p : session.promises) {
    const auto hashes = p.hashes.find(4);
    if (hashes != p.hashes.end() && hashes->second.size() == 2) p.at_least = 3;
  }
  const Tried tried = try_all(session, session.fs.log(), good_but_older);
  EXPECT_EQ(tried.violation, "");
  EXPECT_GT(tried.states, 1000U);
  matrix.add({"the same, on a file system that cannot exchange two names",
              "after each operation of three saves, the last of a step that is there",
              "more than 1000 states",
              "the same, but a crash while a step is saved again may fall back to the checkpoint before"});
}

// --- the enumeration finds what it is there to find
// ---------------------------------------------------------

bool ends_in(const DiskOp& op, std::string_view words) { return op.path.ends_with(words); }
bool has(const DiskOp& op, std::string_view words) { return op.path.find(words) != std::string::npos; }

using Log = std::vector<DiskOp>;
using IsDropped = std::function<bool(const DiskOp&)>;

Log without(const Log& log, const IsDropped& dropped) {
  Log left;
  for (const DiskOp& op : log) {
    if (!dropped(op)) left.push_back(op);
  }
  return left;
}

Log without_file_sync(const Log& log, std::string_view name) {
  return without(log, [&](const DiskOp& op) { return op.kind == DiskOpKind::sync && has(op, name); });
}

// Each fsync of a file comes after the rename that follows it.
Log sync_after_rename(const Log& log) {
  Log late, waiting;
  for (const DiskOp& op : log) {
    if (op.kind == DiskOpKind::sync) {
      waiting.push_back(op);
      continue;
    }
    late.push_back(op);
    if (op.kind != DiskOpKind::rename && op.kind != DiskOpKind::replace) continue;
    late.insert(late.end(), waiting.begin(), waiting.end());
    waiting.clear();
  }
  return late;
}

// The fsync that comes right after a change of names is missing where `where` holds for that change.
Log without_sync_dir_after(const Log& log, const IsDropped& where) {
  Log left;
  for (std::size_t i = 0; i < log.size(); ++i) {
    if (i > 0 && log[i].kind == DiskOpKind::sync_dir && where(log[i - 1])) continue;
    left.push_back(log[i]);
  }
  return left;
}

// The new checkpoint takes the place of the old one by removing that first.
Log remove_instead_of_exchange(const Log& log) {
  Log broken;
  for (const DiskOp& op : log) {
    if (op.kind != DiskOpKind::exchange) {
      broken.push_back(op);
      continue;
    }
    DiskOp first = op, second = op;
    first.names = {{op.names[1].dir, op.names[1].name, std::nullopt}};
    first.kind = second.kind = DiskOpKind::rename;
    broken.push_back(first);
    broken.push_back(second);
  }
  return broken;
}

struct Broken {
  const char* what;
  const char* violation;
  std::function<Log(const Log&)> change;
};

TEST(CheckpointCrash, EveryMissingStepOfTheProtocolIsFound) {
  Session session;
  session.run();
  Good good;
  const std::vector<Broken> broken = {
      {"fsync of a shard", "shard-00001-of-00002.safetensors",
       [](const Log& l) { return without_file_sync(l, "/shard-00001"); }},
      {"fsync of a worker's state", "worker-00000.state",
       [](const Log& l) { return without_file_sync(l, "/worker-00000.state"); }},
      {"fsync of MANIFEST", "MANIFEST", [](const Log& l) { return without_file_sync(l, "/MANIFEST"); }},
      {"fsync of LATEST", "LATEST", [](const Log& l) { return without_file_sync(l, "/.tmp-LATEST"); }},
      {"fsync of LINEAGE", "LINEAGE", [](const Log& l) { return without_file_sync(l, "/.tmp-LINEAGE"); }},
      {"fsync of every file before the rename (it comes after)", "step-000000001", sync_after_rename},
      {"fsync of .tmp-<id> before the rename", "step-000000001",
       [](const Log& l) {
         return without(
             l, [](const DiskOp& op) { return op.kind == DiskOpKind::sync_dir && has(op, "/.tmp-"); });
       }},
      {"fsync of the directory after the rename", "all checkpoints are gone",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) {
           return op.kind == DiskOpKind::rename || op.kind == DiskOpKind::replace;
         });
       }},
      {"fsync of the directory between .trash and unlink", "is not whole",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) { return has(op, " -> /c/.trash/"); });
       }},
      {"fsync of the directory after PINNED", "is not pinned any more",
       [](const Log& l) {
         return without_sync_dir_after(l, [](const DiskOp& op) { return ends_in(op, "/PINNED"); });
       }},
      {"the exchange: remove and rename instead", "is the newest, not 4 to 4", remove_instead_of_exchange},
  };
  for (const Broken& b : broken) {
    const Log log = b.change(session.fs.log());
    const Tried tried = try_all(session, log, good);
    EXPECT_THAT(tried.violation, HasSubstr(b.violation)) << b.what;
    std::printf("without %s: %s\n", b.what, tried.violation.c_str());
  }
  matrix.add({"a step of the protocol left out: an fsync of a file, of a directory, the exchange",
              "the sequence of the first row", fmt::format("{} steps", broken.size()),
              "the test finds a state that breaks the promise, for each"});
}

}  // namespace
}  // namespace varscope
