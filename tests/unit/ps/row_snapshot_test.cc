// What is read of a table after a cut is what it had at the cut, whatever steps do meanwhile.
#include "ps/tables/row_snapshot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "ps/tables/table_shard.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/references/table_life.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::thrown;

using Ids = std::vector<std::uint64_t>;
using testing::Bytes;
using Rows = std::map<int, Bytes>;  // by part

constexpr std::int64_t kUnits = 6;

class Table {
 public:
  explicit Table(int parts = 8) : Table(TableSpec{IdType::int64, parts}) {}
  explicit Table(const TableSpec& spec)
      : variables_({variable(spec)}),
        plan_(RowPlan::make(variables_, 1)),
        optimizer_(rule()),
        shard_({variables_[0], plan_[TableId(0)], ServerId(0), optimizer_, 3}) {}
  TableShard* operator->() { return &shard_; }

  // A step that pushes to these rows.
  void step(Ids ids) {
    std::ranges::sort(ids, {}, mix_row_id);
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    std::vector<std::uint32_t> positions;
    std::vector<float> gradients;
    for (std::uint32_t i = 0; i < ids.size(); ++i) {
      positions.push_back(i);
      for (std::int64_t c = 0; c < kUnits; ++c) gradients.push_back(static_cast<float>(random_() % 100) - 50);
    }
    const std::vector<TableShard::Contribution> all = {
        {ids, positions, reinterpret_cast<const std::byte*>(gradients.data())}};
    shard_.apply(UpdateStep::whole(Clock(shard_.clock().value + 1)), all, tree_);
  }
  void steps(int n, std::uint64_t n_ids, std::size_t a_step) {
    for (int i = 0; i < n; ++i) {
      Ids ids;
      while (ids.size() < a_step) ids.push_back(random_() % n_ids);
      step(ids);
    }
  }
  Rows read_cut() {
    Rows rows;
    for (const int part : shard_.parts()) {
      PartRows read;
      shard_.read_part(part, TableShard::kAll, read);
      rows[part] = std::move(read.rows);
    }
    return rows;
  }
  std::map<int, PartRows> read_cut(std::int64_t since) {
    std::map<int, PartRows> parts;
    for (const int part : shard_.parts()) shard_.read_part(part, since, parts[part]);
    return parts;
  }
  const TableSpec& spec() const { return *variables_[0].table; }
  // Without another cut in between.
  Rows rows() {
    shard_.cut();
    Rows all = read_cut();
    shard_.end_cut();
    return all;
  }

 private:
  static VariableSpec variable(const TableSpec& spec) {
    VariableSpec s =
        make_spec("user/embedding", DType::float32, Shape{0, kUnits}, Initializer::uniform(-1, 1));
    s.table = spec;
    return s;
  }
  static OptimizerConfig rule() {
    OptimizerConfig config;
    config.type = OptimizerType::adagrad;
    return config;
  }
  VariableTable variables_;
  RowPlan plan_;
  Optimizer optimizer_;
  TableShard shard_;
  ReductionTree tree_{{{0, 0}}, 1};
  std::mt19937 random_{9};
};

TEST(RowSnapshot, ReadsTheRowsAtTheCutInOrder) {
  Table table;
  EXPECT_EQ(table.rows().size(), 8U);
  table.steps(5, 1'000, 200);
  for (int round = 0; round < 3; ++round) {
    const Rows expected = table.rows();
    table->cut();
    table.steps(10, 3'000, 300);  // old rows and new ones; slabs and indices grow
    EXPECT_GT(table->snapshot_costs().copied_bytes, 0);
    EXPECT_EQ(table.read_cut(), expected) << round;
    table->end_cut();
    EXPECT_NE(table.rows(), expected);
  }
  for (const auto& [part, rows] : table.rows()) {
    std::uint64_t before = 0;
    const std::size_t row_bytes = table->layout().row_bytes();
    EXPECT_EQ(rows.size() / row_bytes, static_cast<std::size_t>(table->n_rows(part)));
    for (std::size_t at = 0; at < rows.size(); at += row_bytes) {
      const std::uint64_t mixed = mix_row_id(RowLayout::id_of(&rows[at]));
      EXPECT_EQ(row_part(mixed, 8), part);
      EXPECT_TRUE(at == 0 || mixed > before);
      before = mixed;
    }
  }
}

TEST(RowSnapshot, SavesARowOnceAndNoneThatIsNewOrReadOrOfNoCut) {
  Table table(1);
  const auto row_bytes = static_cast<std::int64_t>(table->layout().row_bytes());
  table.step({1, 2, 3});
  table->cut();
  EXPECT_EQ(table->snapshot_costs().copied_bytes, 0);
  table.step({1, 2, 7});
  EXPECT_EQ(table->snapshot_costs().copied_bytes, 2 * row_bytes);
  table.step({1, 7});
  EXPECT_EQ(table->snapshot_costs().copied_bytes, 2 * row_bytes);
  PartRows rows;
  table->read_part(0, TableShard::kAll, rows);
  EXPECT_EQ(static_cast<std::int64_t>(rows.rows.size()), 3 * row_bytes);
  table.step({3});
  EXPECT_EQ(table->snapshot_costs().copied_bytes, 2 * row_bytes);
  table->end_cut();
  table.step({3});
  EXPECT_EQ(table->snapshot_costs().copied_bytes, 2 * row_bytes);
}

TEST(RowSnapshot, GivesItsMemoryBack) {
  Table table(1);
  table.steps(1, 100'000, 20'000);
  const std::int64_t before = table->n_bytes();
  table->cut();
  table.steps(1, 100'000, 20'000);
  const std::int64_t during = table->n_bytes();
  table->end_cut();
  table.step({});
  EXPECT_LT(table->n_bytes(), during);
  table->cut();
  table->end_cut();
  EXPECT_GE(table->n_bytes(), before);
}

// The reader and the updates go on at once; there is room for few rows, so that updates wait for it again and
// again, and then for all.
TEST(RowSnapshot, UpdatesDuringTheReadChangeNothingOfIt) {
  for (const std::size_t most_bytes : {std::size_t{2'000}, std::size_t{0}}) {
    for (const int parts : {1, 32}) {
      Table table(parts);
      table.steps(20, 20'000, 2'000);
      table->set_snapshot_limits({most_bytes, 60});
      for (int round = 0; round < 5; ++round) {
        const Rows expected = table.rows();
        table->cut();
        std::atomic<bool> is_done = false;
        Rows found;
        std::thread reader([&] {
          found = table.read_cut();
          table->end_cut();
          is_done.store(true);
        });
        do {
          table.steps(1, 40'000, 500);
        } while (!is_done.load());
        reader.join();
        ASSERT_EQ(found, expected) << most_bytes << " bytes, " << parts << " parts, round " << round;
      }
    }
  }
}

// Rounds of cuts that are read while steps go on: all of it, or what has changed since the one before. How
// many ids have been named as removed. `most_steps`: of a round.
std::size_t expect_saves_of(Table& table, std::size_t a_step, int most_steps) {
  table->remember_removed(true);
  table.steps(20, 12'000, a_step);
  testing::SavedTable saved(table.spec(), table->layout().row_bytes());
  std::int64_t base = TableShard::kAll;
  std::size_t n_removed = 0;
  for (int round = 0; round < 12; ++round) {
    table->cut();
    const std::map<int, PartRows> expected = table.read_cut(TableShard::kAll);
    table->end_cut();
    table->cut();
    const std::int64_t clock = table->clock().value;
    std::atomic<bool> is_done = false;
    std::map<int, PartRows> found;
    std::thread reader([&] {
      found = table.read_cut(base);
      table->end_cut();
      is_done.store(true);
    });
    int n = 0;
    do {
      table.steps(1, 12'000, a_step);
    } while (!is_done.load() && ++n < most_steps);
    reader.join();
    for (const auto& [part, rows] : found) {
      saved.add(part, rows);
      n_removed += rows.removed.size();
      EXPECT_EQ(saved.part(part, clock).rows, expected.at(part).rows) << "round " << round;
      EXPECT_EQ(saved.part(part, clock).waiting, expected.at(part).waiting) << "round " << round;
    }
    base = round % 4 == 3 ? TableShard::kAll : clock;
    for (const int part : table->parts()) {
      if (base >= 0) table->forget_removed(part, Clock(base));
    }
  }
  return n_removed;
}

// Steps make rows in places of rows that the cut has, and count ids.
TEST(RowSnapshot, RowsThatComeAndGoDuringTheReadChangeNothingOfIt) {
  for (const std::size_t most_bytes : {std::size_t{2'000}, std::size_t{0}}) {
    TableSpec spec{IdType::int64, 8};
    spec.entry = 2;
    spec.expire_steps = 12;
    spec.max_waiting = 8 * 300;
    Table expiring(spec);
    expiring->set_snapshot_limits({most_bytes, 60});
    expect_saves_of(expiring, 1'000, 10'000);
    EXPECT_GT(expiring->counts().expired, 1'000);
    EXPECT_GT(expiring->counts().waiting_dropped, 1'000);

    spec = TableSpec{IdType::int64, 8};
    spec.max_rows = 8 * 150;
    spec.when_full = WhenFull::lru;
    Table full(spec), slow(spec);
    full->set_snapshot_limits({most_bytes, 60});
    slow->set_snapshot_limits({most_bytes, 60});
    expect_saves_of(full, 700, 10'000);
    slow.steps(60, 12'000, 24);
    EXPECT_GT(expect_saves_of(slow, 24, 2), 0U);  // few leave: they are named
    EXPECT_GT(full->counts().evicted, 5'000);
  }
}

// Each update waits for the reader, who comes late: only for the part it is about to change.
TEST(RowSnapshot, UpdatesWaitForTheReaderWhenThereIsNoRoom) {
  Table table(2);
  Ids ids;
  for (std::uint64_t id = 0; id < 100; ++id) ids.push_back(id);
  table.step(ids);
  table->set_snapshot_limits({1, 60});  // one row
  const Rows expected = table.rows();
  table->cut();
  Rows found;
  std::atomic<bool> has_begun = false;
  std::thread reader([&] {
    while (!has_begun.load()) std::this_thread::yield();
    found = table.read_cut();
    table->end_cut();
  });
  has_begun.store(true);
  table.step(ids);
  reader.join();
  EXPECT_EQ(found, expected);
  EXPECT_LE(table->snapshot_costs().copied_bytes,
            static_cast<std::int64_t>(100 * table->layout().row_bytes()));
}

TEST(RowSnapshot, IsLostWhenUpdatesCanWaitNoLonger) {
  Table table(2);
  table.step({1, 2, 3, 4, 5, 6});
  table->set_snapshot_limits({1, 0.01});
  table->cut();
  table.step({1, 2, 3, 4, 5, 6});
  EXPECT_GE(table->snapshot_costs().wait_ns, 10'000'000);
  PartRows rows;
  const std::string text = thrown([&] { table->read_part(0, TableShard::kAll, rows); });
  EXPECT_EQ(
      text.rfind("io: table \"user/embedding\": updates waited 0.01 s for the disk while the snapshot's ", 0),
      0U)
      << text;
  EXPECT_NE(text.find(" MiB of saved rows were full; raise checkpoint.pool_mib, or use a faster disk"),
            std::string::npos)
      << text;
  table->end_cut();
  // The next one is whole again.
  const Rows expected = table.rows();
  table->set_snapshot_limits({});
  table->cut();
  table.step({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(table.read_cut(), expected);
  table->end_cut();
}

TEST(RowSnapshot, TheBudgetIsOfAllWaitsBetweenTwoResets) {
  Table table(1);
  table.step({1, 2, 3, 4});
  table->set_snapshot_limits({1, 0.05});
  table->cut();
  table.step({1, 2});  // waits once, for all of it
  const std::int64_t waited = table->snapshot_costs().wait_ns;
  table.step({3, 4});  // lost: nothing waits any more
  EXPECT_EQ(table->snapshot_costs().wait_ns, waited);
  table->end_cut();
  table->cut();
  table.step({1, 2});  // the budget is used up
  EXPECT_LT(table->snapshot_costs().wait_ns, 50'000'000);
  table->end_cut();
  table->reset_wait_budget();
  table->cut();
  table.step({1, 2});
  EXPECT_GE(table->snapshot_costs().wait_ns, 50'000'000);
  table->end_cut();
}

TEST(RowSnapshot, SaysWhatIsOutOfOrder) {
  Table table(2);
  PartRows rows;
  const std::string next = "argument: table \"user/embedding\": part ";
  EXPECT_EQ(thrown([&] { table->read_part(0, TableShard::kAll, rows); }),
            next + "0 is not the next one of a cut to be read");
  table->cut();
  EXPECT_EQ(thrown([&] { table->read_part(1, TableShard::kAll, rows); }),
            next + "1 is not the next one of a cut to be read");
  EXPECT_EQ(thrown([&] { table->cut(); }),
            "argument: table \"user/embedding\": a cut while another is being read");
  table->read_part(0, TableShard::kAll, rows);
  table->read_part(1, TableShard::kAll, rows);
  EXPECT_EQ(thrown([&] { table->read_part(1, TableShard::kAll, rows); }),
            next + "1 is not the next one of a cut to be read");
  table->end_cut();
}

}  // namespace
}  // namespace varscope
