// What a checkpoint holds is the state at the cut, whatever is updated while it is written.
#include "ps/store/snapshot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "ps/checkpointing/checkpoint_interval.h"
#include "ps/update/updater.h"
#include "tests/support/fs/slow_fs.h"
#include "tests/support/jobs/norms_exchange.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using std::chrono::microseconds;
using testing::Exchange;
using testing::make_spec;
using testing::SlowFs;
using testing::TempDir;
using testing::thrown;

constexpr std::size_t kBlock = kSnapshotBlockBytes;
using Bytes = std::vector<std::byte>;

// Tensors of odd sizes, two of them neighbours in one run of memory, and a thread that reads them.
class Memory {
 public:
  Memory() {
    for (const std::size_t n : {1UL, kBlock - 1, kBlock, kBlock + 1, 3 * kBlock, 100UL}) own_.emplace_back(n);
    for (Bytes& b : own_) tensors_.emplace_back(b);
    const std::span<std::byte> whole = tensors_[4];
    tensors_[4] = whole.first(kBlock + 7);
    tensors_.push_back(whole.subspan(kBlock + 7));
    for (Bytes& b : own_) {
      for (std::byte& x : b) x = static_cast<std::byte>(random_());
    }
  }
  const std::vector<std::span<std::byte>>& tensors() const { return tensors_; }
  std::size_t n_bytes() const {
    std::size_t n = 0;
    for (const Bytes& b : own_) n += b.size();
    return n;
  }
  std::vector<Bytes> copy() const {
    std::vector<Bytes> all;
    for (const auto& t : tensors_) all.emplace_back(t.begin(), t.end());
    return all;
  }
  // Overwrites a random range, anywhere, as an update does.
  void write_somewhere(Snapshot& snapshot) {
    Bytes& b = own_[random_() % own_.size()];
    const std::size_t begin = random_() % b.size();
    const std::size_t n = 1 + random_() % (b.size() - begin);
    write(snapshot, std::span(b).subspan(begin, n));
  }
  void write(Snapshot& snapshot, std::span<std::byte> range) {
    snapshot.before_write(range.data(), range.size());
    std::memset(range.data(), static_cast<int>(random_() % 256), range.size());
  }

 private:
  std::mt19937 random_{7};
  std::vector<Bytes> own_;
  std::vector<std::span<std::byte>> tensors_;
};

std::vector<Bytes> read_all(Snapshot& snapshot, const std::vector<std::span<std::byte>>& tensors) {
  std::vector<Bytes> all;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    all.emplace_back(tensors[i].size());
    for (std::size_t at = 0; at < tensors[i].size(); at += kBlock) {
      snapshot.read(i, at, std::span(all[i]).subspan(at, std::min(kBlock, tensors[i].size() - at)));
    }
  }
  snapshot.end();
  return all;
}

TEST(SnapshotPool, APageIsFreeWhenItIsFullAndAllInItIsReleased) {
  SnapshotPool pool(1);
  EXPECT_EQ(pool.n_bytes(), SnapshotPool::kPageBytes);
  const auto first = pool.reserve(SnapshotPool::kPageBytes - 64);
  pool.keep(first, SnapshotPool::kPageBytes - 64);
  const auto second = pool.reserve(64);
  EXPECT_EQ(second.memory, first.memory + SnapshotPool::kPageBytes - 64);
  pool.keep(second, 1);  // the next begins at a cache line
  EXPECT_EQ(pool.reserve(1).memory, nullptr);
  pool.release(first.page);
  EXPECT_EQ(pool.reserve(1).memory, nullptr);
  pool.release(second.page);
  EXPECT_EQ(pool.reserve(SnapshotPool::kPageBytes).memory, first.memory);
}

TEST(SnapshotPool, AnOpenPageIsNotFreed) {
  SnapshotPool pool(1);
  const auto first = pool.reserve(64);
  pool.keep(first, 64);
  pool.release(first.page);
  const auto second = pool.reserve(64);
  EXPECT_EQ(second.memory, first.memory + 64);
  pool.clear();
  EXPECT_EQ(pool.reserve(64).memory, first.memory);
}

TEST(Snapshot, ReadsTheStateAtTheCut) {
  Memory memory;
  Snapshot snapshot(memory.tensors(), {memory.n_bytes() * 2});
  for (int round = 0; round < 3; ++round) {
    snapshot.cut();
    const auto expected = memory.copy();
    for (int i = 0; i < 20; ++i) memory.write_somewhere(snapshot);
    EXPECT_GT(snapshot.costs().copied_bytes, 0);
    EXPECT_LE(snapshot.costs().copied_bytes, static_cast<std::int64_t>(memory.n_bytes()));
    EXPECT_EQ(read_all(snapshot, memory.tensors()), expected) << round;
  }
}

TEST(Snapshot, SavesNothingThatHasBeenReadOrSavedOrIsNotWritten) {
  Memory memory;
  Snapshot snapshot(memory.tensors(), {memory.n_bytes() * 2});
  const auto three = memory.tensors()[3];  // a block and one byte
  memory.write(snapshot, three);           // before any cut
  EXPECT_EQ(snapshot.costs().copied_bytes, 0);
  snapshot.cut();
  Bytes out(kBlock);
  snapshot.read(3, 0, out);
  memory.write(snapshot, three);
  EXPECT_EQ(snapshot.costs().copied_bytes, 1);
  memory.write(snapshot, three);
  memory.write(snapshot, three.first(0));
  EXPECT_EQ(snapshot.costs().copied_bytes, 1);
  memory.write(snapshot, memory.tensors()[4].last(1));  // not its neighbour in memory
  EXPECT_EQ(snapshot.costs().copied_bytes, 1 + 7);
  snapshot.end();
  memory.write(snapshot, memory.tensors()[0]);
  EXPECT_EQ(snapshot.costs().copied_bytes, 1 + 7);
}

// The pool holds a third of the memory at most: updates wait for the reader, again and again.
TEST(Snapshot, UpdatesDuringTheReadChangeNothingOfIt) {
  for (const std::size_t pool_bytes : {std::size_t{1}, std::size_t{1} << 20}) {
    Memory memory;
    Snapshot snapshot(memory.tensors(), {pool_bytes, 60});
    for (int round = 0; round < 200; ++round) {
      snapshot.cut();
      const auto expected = memory.copy();
      std::vector<Bytes> found;
      std::atomic<bool> is_read = false;
      std::thread reader([&] {
        found = read_all(snapshot, memory.tensors());
        is_read = true;
      });
      do {
        memory.write_somewhere(snapshot);
      } while (!is_read);
      reader.join();
      ASSERT_EQ(found, expected) << round;
    }
  }
}

TEST(Snapshot, IsLostWhenTheReaderIsTooSlow) {
  std::vector<Bytes> own(10, Bytes(kBlock, std::byte{1}));
  std::vector<std::span<std::byte>> tensors(own.begin(), own.end());
  Snapshot snapshot(tensors, {1, 0.01});  // a page holds four of the ten
  snapshot.cut();
  for (Bytes& b : own) {
    snapshot.before_write(b.data(), b.size());
    b.assign(kBlock, std::byte{2});
  }
  EXPECT_EQ(snapshot.costs().copied_bytes, static_cast<std::int64_t>(SnapshotPool::kPageBytes));
  EXPECT_GE(snapshot.costs().wait_ns, 10'000'000);
  EXPECT_LT(snapshot.costs().wait_ns, 60'000'000'000);
  const std::string error = thrown([&] { read_all(snapshot, tensors); });
  EXPECT_TRUE(error.starts_with("io: updates waited 0.01 s for the disk")) << error;
  EXPECT_NE(error.find("checkpoint.pool_mib"), std::string::npos) << error;
  EXPECT_NE(thrown([&] { snapshot.cut(); }).find("a cut while another is being read"), std::string::npos);
  snapshot.end();

  snapshot.cut();  // the next one is whole again
  EXPECT_EQ(read_all(snapshot, tensors), own);
}

// A reader of 0.1 s a block, a pool of four blocks, 24 to save: five waits of 0.4 s. Each is within the
// limit, their sum is not: that is for the peers, who hear nothing meanwhile, unless it is interrupted.
TEST(Snapshot, TheWaitsOfASpellAddUp) {
  for (const bool interrupted : {false, true}) {
    std::vector<Bytes> own(24, Bytes(kBlock, std::byte{1}));
    const std::vector<std::span<std::byte>> tensors(own.begin(), own.end());
    Snapshot snapshot(tensors, {1, 1.2});
    snapshot.cut();
    std::string error;
    std::jthread reader([&] {
      Bytes out(kBlock);
      error = thrown([&] {
        for (std::size_t i = 0; i < own.size(); ++i) {
          std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the disk
          snapshot.read(i, 0, out);
          if (out != Bytes(kBlock, std::byte{1})) throw std::runtime_error("not the state at the cut");
        }
      });
      snapshot.end();
    });
    for (Bytes& b : own) {
      if (interrupted) snapshot.reset_wait_budget();
      snapshot.before_write(b.data(), b.size());
      std::fill(b.begin(), b.end(), std::byte{2});
    }
    reader.join();
    EXPECT_EQ(error.starts_with("io: updates waited 1.2 s for the disk"), !interrupted) << error;
    EXPECT_GE(snapshot.costs().wait_ns, 1'000'000'000);
  }
}

// --- the whole update path
// ---------------------------------------------------------------------------------------------

VariableTable some_table() {
  const Initializer random = Initializer::normal(0, 1);
  VariableSpec mean = make_spec("b/mean", DType::float64, Shape{70'000}, random, false);
  mean.average_decay = 0.9;
  return VariableTable({make_spec("a/w", DType::float32, Shape{600, 401}, random),
                        make_spec("a/b", DType::float32, Shape{401}),
                        make_spec("b/w", DType::float64, Shape{300, 250}, random), mean,
                        make_spec("c/frozen", DType::float32, Shape{50'000}, random, false)});
}

// A shard under updates without pause, and the file that a cut of it becomes.
class Hammered {
 public:
  Hammered(OptimizerType type, Fs& fs, const ShardCheckpointer::Options& options)
      : optimizer_([&] {
          OptimizerConfig c;
          c.type = type;
          return c;
        }()),
        shard_(variables_, plan_, ServerId(0), optimizer_.slots()),
        watch_(plan_, shard_),
        updater_(plan_, optimizer_, shard_, watch_),
        checkpointer_(shard_, tables_, fs, dir_.path(), 1, 1, options) {
    shard_.initialize(3);
  }

  void update_all(Clock clock) {
    for (BucketId id : shard_.buckets()) {
      const Bucket& bucket = plan_[id];
      if (!bucket.is_pushed()) continue;
      Tensor sum(bucket.dtype, Shape{bucket.n_elements});
      with_elements(sum, [&](auto* x) { x[clock.value % bucket.n_elements] = 0.5; });
      updater_.update(id, 0, bucket.n_elements, sum.view().bytes(), UpdateStep::whole(clock));
    }
  }
  // Of values and slots, in the order of the file.
  std::vector<std::string> digests() {
    std::vector<std::string> all;
    shard_.for_each_slice(
        [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView data) {
          all.push_back(tensor_name(v.name, slot, slice.index) + " " +
                        digest_of(std::span(data.bytes(), data.n_bytes())).hex());
        });
    return all;
  }
  // The file at `path`, not what the writer says of it.
  static std::vector<std::string> digests_on_disk(const std::string& path, const ShardReport& report) {
    PosixFs fs;
    const auto file = fs.open(path + "/" + report.file.name);
    std::vector<std::string> all;
    for (const TensorRecord& t : report.tensors) {
      Bytes bytes(t.end - t.begin);
      file->read_at(t.begin, bytes);
      all.push_back(tensor_name(t.variable, t.slot, t.slice) + " " + digest_of(bytes).hex());
      EXPECT_EQ(t.digest, digest_of(bytes));
    }
    return all;
  }
  // Cuts, updates until the file is written, and compares. Returns the outcome.
  ShardOutcome save_while_updating(Clock& clock) {
    const std::string id = checkpoint_id(clock, "test", 0), path = temporary_path(dir_.path(), id);
    std::filesystem::create_directories(path);
    const auto expected = digests();
    checkpointer_.cut(clock, id);
    std::optional<ShardOutcome> outcome;
    while (!(outcome = checkpointer_.poll())) update_all(Clock(++clock.value));
    EXPECT_EQ(outcome->error, "");
    if (outcome->error.empty()) {
      EXPECT_EQ(digests_on_disk(path, outcome->report), expected);
    }
    return *outcome;
  }

 private:
  template <class F>
  static void with_elements(Tensor& t, F f) {
    t.dtype() == DType::float64 ? f(t.view().data<double>()) : f(t.view().data<float>());
  }
  VariableTable variables_ = some_table();
  BucketPlan plan_ = BucketPlan::make(variables_, 1);
  Optimizer optimizer_;
  ParameterShard shard_;
  FiniteWatch watch_;
  Updater updater_;
  TempDir dir_;
  TableShards tables_;  // none
  ShardCheckpointer checkpointer_;
};

TEST(Purity, TheFileIsTheStateAtTheCut) {
  SlowFs slow{microseconds(300)};
  for (const OptimizerType type : {OptimizerType::adam, OptimizerType::momentum, OptimizerType::sgd}) {
    for (const std::size_t pool_bytes : {std::size_t{1}, std::size_t{0}}) {
      Hammered hammered(type, slow, {SnapshotMode::cow, pool_bytes, 60});
      Clock clock(1);
      for (int round = 0; round < 5; ++round) {
        SCOPED_TRACE(fmt::format("{} pool {} round {}", to_string(type), pool_bytes, round));
        const ShardOutcome outcome = hammered.save_while_updating(clock);
        EXPECT_GT(outcome.copied_bytes, 0) << "nothing was updated while the file was written";
        EXPECT_TRUE(pool_bytes != 1 || outcome.wait_ns > 0) << "the pool was never full";
      }
    }
  }
}

// Servers that are cut at step 2 and go on at once, on a slow disk, write the files of a run that stops to
// copy.
void expect_files_of_copy(Exchange e, int n_servers) {
  const TempDir dir;
  const auto run = [&](const char* name, Fs* fs, const ShardCheckpointer::Options& options) {
    Exchange mine = e;
    mine.checkpoint_dir = dir / name;
    mine.fs = fs;
    mine.snapshot = options;
    EXPECT_EQ(testing::run_over_loopback(mine, n_servers, 2, 4).error, "");
    std::vector<std::string> shards;
    PosixFs real;
    for (int s = 0; s < n_servers; ++s) {
      shards.push_back(read_whole_file(
          real, mine.checkpoint_dir + "/" + step_name(2) + "/" + shard_name(s, n_servers), 1 << 30));
    }
    return shards;
  };
  SlowFs slow{microseconds(500)};
  const auto expected = run("copy", nullptr, {SnapshotMode::copy});
  EXPECT_TRUE(run("cow", &slow, {SnapshotMode::cow, 0, 60}) == expected);
  EXPECT_TRUE(run("small", &slow, {SnapshotMode::cow, 1, 60}) == expected);
}

TEST(Purity, ServersWriteTheFilesOfCopy) {
  Exchange e = testing::default_exchange();
  e.variables = some_table();
  e.steps = 3;
  expect_files_of_copy(e, 1);
  expect_files_of_copy(e, 2);
}

// What the last steps have learnt is not at stake while the workers still evaluate it.
TEST(LastSave, IsMadeBeforeTheWorkersAreThrough) {
  const TempDir dir;
  Exchange e = testing::default_exchange();
  e.checkpoint_dir = dir / "checkpoints";
  e.every_steps = 0;
  e.waits_for_last_save = true;
  const auto result = testing::run_over_loopback(e, 2, 2, 2);
  ASSERT_EQ(result.error, "");
  ASSERT_TRUE(result.finish);
  EXPECT_EQ(result.finish->checkpoints, 1);
  EXPECT_EQ(result.finish->values_hash, testing::reference_hash(e, 2));
}

// Each save takes longer than all steps together.
TEST(BusySaver, SkipsOrQueuesWhatIsDue) {
  SlowFs slow{microseconds(30'000)};
  for (const WhenBusy policy : {WhenBusy::skip, WhenBusy::queue}) {
    const TempDir dir;
    Exchange e = testing::default_exchange();
    e.checkpoint_dir = dir / "checkpoints";
    e.fs = &slow;
    e.every_steps = 1;
    e.when_busy = policy;
    const auto result = testing::run_over_loopback(e, 1, 1, 1);
    ASSERT_EQ(result.error, "");
    ASSERT_TRUE(result.finish);
    EXPECT_EQ(result.finish->failed_checkpoints, 0);
    EXPECT_GE(result.finish->checkpoints, 2);  // the first, and the last, which waits
    EXPECT_EQ(result.finish->skipped_checkpoints > 0, policy == WhenBusy::skip);
    EXPECT_EQ(result.finish->queued_checkpoints > 0, policy == WhenBusy::queue);
    EXPECT_FALSE(result.finish->stopped);
  }
}

TEST(CheckpointInterval, IsYoungsForSmallCostsAndNeverBelowTheWrite) {
  EXPECT_NEAR(best_checkpoint_interval(1e-6, 1e6, 0), std::sqrt(2.0), 1e-5);
  EXPECT_EQ(best_checkpoint_interval(1e-6, 1e6, 5), 5);
  EXPECT_EQ(best_checkpoint_interval(0, 100, 0), 0);
  EXPECT_EQ(best_checkpoint_interval(500, 100, 0), 100);  // costlier than what it saves
  // Near the minimum of the lost time, exp((t + cost) / mtbf) - 1 per t of work (Daly, equation 11).
  const double cost = 30, mtbf = 3600, best = best_checkpoint_interval(cost, mtbf, 0);
  const auto lost = [&](double t) { return std::expm1((t + cost) / mtbf) / t; };
  EXPECT_LT(lost(best), lost(best * 1.05));
  EXPECT_LT(lost(best), lost(best * 0.95));
}

TEST(Purity, DeferredStepsToo) {
  Exchange e = testing::norms_exchange(ClipType::global_norm, 1, testing::constrained_table());
  e.steps = 3;
  expect_files_of_copy(e, 2);
}

}  // namespace
}  // namespace varscope
