// Saves of the rows that have changed, as a server makes them: what they go on from, in which order it hears
// of it, what becomes of failures, and what is restored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <numeric>
#include <thread>

#include "checkpoint/restore/reader.h"
#include "ps/checkpointing/checkpoint_coordinator.h"
#include "ps/checkpointing/restore.h"
#include "ps/checkpointing/shard_checkpointer.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_spec;
using testing::TempDir;
using testing::thrown;

constexpr int kParts = 16;
constexpr std::int64_t kUnits = 3;

VariableTable one_table(const TableSpec& spec) {
  VariableSpec table = make_spec("t", DType::float32, Shape{0, kUnits}, Initializer::uniform(-1, 1));
  table.table = spec;
  return VariableTable({table});
}

OptimizerConfig adagrad() {
  OptimizerConfig config;
  config.type = OptimizerType::adagrad;
  return config;
}

class Heard : public RunObserver {
 public:
  std::vector<std::string> failures, warnings;

 private:
  void on_checkpoint_failed(Clock, const std::string& why) override { failures.push_back(why); }
  void on_warning(const std::string& what) override { warnings.push_back(what); }
};

// Servers without a network: each has the table's parts that are its own.
class Servers {
 public:
  Servers(Fs& fs, std::string dir, int n, const TableSpec& spec)
      : fs_(fs),
        dir_(std::move(dir)),
        variables_(one_table(spec)),
        plan_(BucketPlan::make(variables_, n)),
        rows_(RowPlan::make(variables_, n)),
        optimizer_(adagrad()) {
    for (const ServerId id : IdRange<ServerId>(n)) {
      shards_.push_back(std::make_unique<ParameterShard>(variables_, plan_, id, optimizer_.slots()));
      tables_.push_back(make_table_shards(variables_, rows_, id, optimizer_, 7));
      checkpointers_.push_back(std::make_unique<ShardCheckpointer>(
          *shards_.back(), tables_.back(), fs_, dir_, n, 1, ShardCheckpointer::Options{.incremental = true}));
    }
  }
  int n() const { return static_cast<int>(shards_.size()); }
  TableShard& table(int s) { return **tables_[static_cast<std::size_t>(s)].begin(); }
  ShardCheckpointer& checkpointer(int s) { return *checkpointers_[static_cast<std::size_t>(s)]; }
  TableShards& tables(int s) { return tables_[static_cast<std::size_t>(s)]; }
  const VariableTable& variables() const { return variables_; }

  // A step that pushes to the rows `ids`.
  void step(std::int64_t clock, std::vector<std::uint64_t> ids) {
    std::ranges::sort(ids, {}, mix_row_id);
    for (int s = 0; s < n(); ++s) {
      std::vector<std::uint64_t> own;
      std::ranges::copy_if(ids, std::back_inserter(own),
                           [&](std::uint64_t id) { return rows_[TableId(0)].server_of(id) == ServerId(s); });
      std::vector<std::uint32_t> positions(own.size());
      std::iota(positions.begin(), positions.end(), 0U);
      const std::vector<float> gradients(own.size() * kUnits, 0.25F + static_cast<float>(clock));
      const TableShard::Contribution all{own, positions,
                                         reinterpret_cast<const std::byte*>(gradients.data())};
      table(s).apply(UpdateStep::whole(Clock(clock)), std::span(&all, 1), ReductionTree({TreeNode{0, 0}}, 1));
    }
  }
  Digest hash() {
    ValuesHash hash(variables_);
    for (int s = 0; s < n(); ++s) {
      HashReport report;
      table(s).add_hashes(report);
      for (const auto& e : report.entries) hash.add(e.variable, e.slice, e.digest);
    }
    return hash.finish();
  }

 private:
  Fs& fs_;
  std::string dir_;
  VariableTable variables_;
  BucketPlan plan_;
  RowPlan rows_;
  Optimizer optimizer_;
  std::vector<std::unique_ptr<ParameterShard>> shards_;
  std::vector<TableShards> tables_;
  std::vector<std::unique_ptr<ShardCheckpointer>> checkpointers_;
};

class IncrementalSaves : public ::testing::TestWithParam<int> {
 protected:
  enum class Order { base_first, cut_first };
  void SetUp() override { start(0); }
  void start(std::int64_t first) {
    coordinator.reset();
    servers.emplace(fs, dir.path(), GetParam(), spec);
    Manifest base;
    base.run_id = "run";
    base.servers = GetParam();
    base.workers = base.logical_workers = 1;
    base.variables = servers->variables();
    base.optimizer = "adagrad";
    base.slots = {"accumulator"};
    config.incremental = true;
    config.keep = 100;
    std::vector<ServerId> writers;
    for (const ServerId s : IdRange<ServerId>(GetParam())) writers.push_back(s);
    coordinator.emplace(fs, dir.path(), config, base, "start", writers, Clock(first), heard);
  }
  // The outcomes of all servers. True when the save was committed.
  bool save(std::int64_t clock, CheckpointCoordinator::Rows rows = CheckpointCoordinator::Rows::changed,
            Order order = Order::base_first) {
    const int before = coordinator->committed();
    EXPECT_TRUE(coordinator->begin(Clock(clock), n_tries++, rows));
    const std::optional<SaveBase> base = coordinator->save_base();
    EXPECT_TRUE(base);
    for (int s = 0; s < servers->n(); ++s) {
      if (order == Order::base_first) servers->checkpointer(s).set_base(*base);
      servers->checkpointer(s).cut(Clock(clock), coordinator->id());
      if (order == Order::base_first) continue;
      EXPECT_FALSE(servers->checkpointer(s).poll()) << "it has nothing to go on from yet";
      servers->checkpointer(s).set_base(*base);
    }
    coordinator->set_states(Clock(clock), {"state"}, "epoch");
    for (int s = 0; s < servers->n(); ++s) {
      std::optional<ShardOutcome> outcome;
      while (!(outcome = servers->checkpointer(s).poll())) std::this_thread::yield();
      coordinator->on_outcome(*outcome);
    }
    while (coordinator->has_pending_work()) {
      coordinator->tick();
      std::this_thread::yield();
    }
    return coordinator->committed() > before;
  }
  std::size_t longest_chain(std::int64_t step) {
    return totals_of(load_manifest(posix, dir / step_name(step)).manifest, "t").longest_chain;
  }
  std::uint64_t own_bytes(std::int64_t step) {
    std::uint64_t n = 0;
    for (const RowPartRecord& r : load_manifest(posix, dir / step_name(step)).manifest.row_parts) {
      for (const RowPiece& p : r.pieces) n += p.step == step ? p.n_bytes() : 0;
    }
    return n;
  }
  // On another number of servers, everything is as it is here.
  void expect_restores(std::int64_t step) {
    const std::string path = dir / step_name(step);
    EXPECT_THAT(verify_checkpoint(posix, path), IsEmpty());
    for (const int n : {1, 5}) {
      const TempDir other_dir;
      Servers other(posix, other_dir.path(), n, spec);
      for (int s = 0; s < n; ++s)
        restore_tables(other.tables(s), posix, {.path = path, .resumed = Clock(step)});
      EXPECT_EQ(other.hash(), servers->hash()) << n << " servers";
    }
  }
  static std::vector<std::uint64_t> ids(std::uint64_t begin, std::uint64_t end) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t id = begin; id < end; ++id) all.push_back(id * 0x9e3779b97f4a7c15ULL);
    return all;
  }

  TableSpec spec{IdType::int64, kParts};
  TempDir dir;
  PosixFs posix;
  FaultFs fs{posix};
  CheckpointConfig config;
  Heard heard;
  std::int64_t n_tries = 0;
  std::optional<Servers> servers;
  std::optional<CheckpointCoordinator> coordinator;
};
INSTANTIATE_TEST_SUITE_P(On, IncrementalSaves, ::testing::Values(1, 3));

TEST_P(IncrementalSaves, WriteWhatHasChanged) {
  servers->step(1, ids(0, 1000));
  EXPECT_TRUE(save(1));
  EXPECT_EQ(longest_chain(1), 1U);
  for (std::int64_t step = 2; step <= 12; ++step) {
    servers->step(step, ids(static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(step) + 20));
    const Order order = step % 2 == 0 ? Order::cut_first : Order::base_first;
    EXPECT_TRUE(save(step, CheckpointCoordinator::Rows::changed, order));
    EXPECT_LE(longest_chain(step), 8U);
    // A row is 40 bytes. Some parts write more than what is new.
    EXPECT_LT(own_bytes(step), own_bytes(1) / 4) << step;
    EXPECT_GE(own_bytes(step), 20U * 40) << step;
    expect_restores(step);
  }
  EXPECT_GE(longest_chain(12), 5U);
  servers->step(13, ids(0, 1));
  EXPECT_TRUE(save(13, CheckpointCoordinator::Rows::all));
  EXPECT_EQ(longest_chain(13), 1U) << "the last save of a run";
  expect_restores(13);
  EXPECT_THAT(heard.warnings, IsEmpty());
}

// As many ids leave as come: pieces are merged, and name all that has left since the last one that is kept.
TEST_P(IncrementalSaves, NameWhatHasLeftAFullTable) {
  spec.max_rows = kParts * TableSpec::kLeastRowsPerPart;
  spec.when_full = WhenFull::lru;
  start(0);
  servers->step(1, ids(0, 40'000));
  servers->step(2, ids(40'000, 66'000));
  EXPECT_TRUE(save(2));
  std::size_t longest = 1;
  std::int64_t n_removed = 0;
  for (std::int64_t step = 3; step <= 14; ++step) {
    const auto first = static_cast<std::uint64_t>(66'000 + step * 900);
    servers->step(step, ids(first, first + 900));
    EXPECT_TRUE(save(step));
    longest = std::max(longest, longest_chain(step));
    for (const RowPartRecord& r : load_manifest(posix, dir / step_name(step)).manifest.row_parts) {
      for (const RowPiece& p : r.pieces) n_removed += p.n_removed;
    }
    expect_restores(step);
  }
  EXPECT_GE(longest, 5U);
  EXPECT_GT(n_removed, 0);
}

TEST_P(IncrementalSaves, AFailedOneLeavesTheBaseAsItIs) {
  servers->step(1, ids(0, 300));
  EXPECT_TRUE(save(1));
  servers->step(2, ids(100, 140));
  fs.fail_nth(FsOp::write, 2, EIO);
  EXPECT_FALSE(save(2));
  servers->step(3, ids(200, 210));
  EXPECT_TRUE(save(3));
  for (const RowPartRecord& r : load_manifest(posix, dir / step_name(3)).manifest.row_parts) {
    for (const RowPiece& p : r.pieces) EXPECT_TRUE(p.is_base() || p.since == 1);
  }
  expect_restores(3);
}

TEST_P(IncrementalSaves, PartsAreWrittenWholeWhenTheirChangesAreMany) {
  servers->step(1, ids(0, 300));
  EXPECT_TRUE(save(1));
  servers->step(2, ids(0, 250));
  EXPECT_TRUE(save(2));
  EXPECT_EQ(longest_chain(2), 2U);
  servers->step(3, ids(0, 3));
  EXPECT_TRUE(save(3));
  EXPECT_EQ(longest_chain(3), 1U) << "five sixths of the rows have changed";
  expect_restores(3);
}

TEST_P(IncrementalSaves, WithoutLinksAllRowsAreWrittenAndThatIsSaidOnce) {
  fs.no_links();
  for (std::int64_t step = 1; step <= 4; ++step) {
    servers->step(step, ids(0, 100));
    EXPECT_TRUE(save(step));
    EXPECT_EQ(longest_chain(step), 1U);
  }
  EXPECT_THAT(
      heard.warnings,
      ElementsAre("the checkpoint of step 2 has all rows of server 0, not only those that have changed "
                  "(checkpoint.incremental): hard links to the files of " +
                  (dir / "step-000000001") + " cannot be made"));
  expect_restores(4);
}

TEST_P(IncrementalSaves, ANewStartBeginsANewChain) {
  servers->step(1, ids(0, 100));
  EXPECT_TRUE(save(1));
  start(1);
  for (int s = 0; s < servers->n(); ++s) {
    restore_tables(servers->tables(s), posix, {.path = dir / step_name(1), .resumed = Clock(1)});
  }
  servers->step(2, ids(0, 1));
  EXPECT_TRUE(save(2));
  EXPECT_EQ(longest_chain(2), 1U);
  expect_restores(2);
}

TEST_P(IncrementalSaves, ABaseOfAnotherSaveIsRefused) {
  servers->step(1, ids(0, 10));
  ASSERT_TRUE(coordinator->begin(Clock(1)));
  servers->checkpointer(0).cut(Clock(1), "one");
  EXPECT_EQ(thrown([&] {
              servers->checkpointer(0).set_base({"other", "", 0, 0});
            }),
            "protocol: server 0 is told what checkpoint other goes on from while it waits for that of one");
}

// A chain of pieces of so many bytes.
RowPartRecord chain_of(std::initializer_list<std::uint64_t> n_bytes, int part = 0) {
  RowPartRecord chain{"t", part, 10, 0, {}, {}};
  for (const std::uint64_t n : n_bytes) {
    RowPiece p;
    p.end = n;
    chain.pieces.push_back(p);
  }
  return chain;
}

TEST(IncrementalSave, WritesAPartWholeOnceItsChangesAreAboutHalfOfIt) {
  for (int part = 0; part < 16; ++part) {
    EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({1000}, part), 1), 1U);
    EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({1000, 370}, part), 1), 2U);
    EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({1000, 370, 240}, part), 1), 0U);
  }
  EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({1000, 400}, 0), 1), 0U) << "parts are not due all at once";
  EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({1000, 400}, 7), 1), 2U);
}

TEST(IncrementalSave, WritesSmallNewPiecesAnewTogetherInALongChain) {
  const auto n_kept = [](std::initializer_list<std::uint64_t> n_bytes) {
    return ShardCheckpointer::n_kept(chain_of(n_bytes, 1), 1);
  };
  EXPECT_EQ(n_kept({10'000, 9, 9, 9, 9, 9, 9}), 7U);
  EXPECT_EQ(n_kept({10'000, 9, 9, 9, 9, 9, 9, 9}), 1U) << "all that has changed since the base";
  EXPECT_EQ(n_kept({10'000, 500, 9, 9, 9, 9, 9, 9}), 2U);
  EXPECT_EQ(n_kept({10'000, 500, 80, 9, 9, 9, 9, 9}), 2U);
  EXPECT_EQ(n_kept({10'000, 500, 240, 110, 50, 20, 9, 1}), 7U) << "the last one at least";
  EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({10'000, 9, 9, 9, 9}, 3), 1), 1U) << "it is its turn";
  EXPECT_EQ(ShardCheckpointer::n_kept(chain_of({10'000, 9, 9, 9}, 3), 1), 4U) << "but it is short";
}

// However long a run is, and whatever share of the rows its saves change.
TEST(IncrementalSave, WritesFewBytesMoreThanHaveChanged) {
  for (const std::uint64_t changed : {1U, 10U, 100U}) {
    std::uint64_t written = 0, largest = 0;
    std::vector<RowPartRecord> chains;
    for (int part = 0; part < 64; ++part) chains.push_back(chain_of({10'000}, part));
    constexpr std::int64_t kSaves = 400;
    for (std::int64_t number = 1; number <= kSaves; ++number) {
      std::uint64_t of_save = 0;
      for (RowPartRecord& chain : chains) {
        const std::size_t kept = ShardCheckpointer::n_kept(chain, number);
        std::uint64_t n = changed;
        for (std::size_t i = std::max<std::size_t>(1, kept); i < chain.pieces.size(); ++i)
          n += chain.pieces[i].n_bytes();
        RowPiece piece;
        piece.end = kept == 0 ? 10'000 : n;
        chain.pieces.resize(kept);
        chain.pieces.push_back(piece);
        ASSERT_LE(chain.pieces.size(), ShardCheckpointer::kMostOfChain);
        of_save += piece.end;
      }
      written += of_save;
      largest = std::max(largest, of_save);
    }
    EXPECT_LT(written, 5 * changed * kSaves * chains.size()) << changed;
    EXPECT_LT(largest, 10'000 * chains.size() / 2) << "no save is suddenly large: " << changed;
  }
}

}  // namespace
}  // namespace varscope
