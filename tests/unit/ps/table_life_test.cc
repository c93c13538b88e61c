// Which rows a table has: beside its definition in a map, and at the edges of entry, expiry and limits.
#include "tests/support/references/table_life.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::TableLife;

TEST(TableLife, IsThatOfItsDefinition) {
  std::int64_t n_evicted = 0, n_expired = 0, n_dropped = 0, n_waited = 0, n_removed = 0, n_full = 0,
               n_changes = 0;
  for (unsigned seed = 0; seed < 600; ++seed) {
    std::mt19937 random(seed);
    TableLife life([&](std::uint64_t n) { return random() % n; });
    try {
      life.steps(60);
    } catch (const std::runtime_error& e) {
      FAIL() << "seed " << seed << ": " << e.what();
    }
    n_evicted += life.n_evicted;
    n_expired += life.n_expired;
    n_dropped += life.n_dropped;
    n_waited += life.n_waited;
    n_removed += life.n_removed;
    n_full += life.n_full;
    n_changes += life.n_changes;
  }
  // All of it has happened, often.
  for (const std::int64_t n : {n_evicted, n_expired, n_dropped, n_waited, n_removed, n_changes})
    EXPECT_GT(n, 100);
  EXPECT_GT(n_full, 10);
}

// One server, values of one float that begin with 1 and lose 1 for each gradient of 1.
class Table {
 public:
  explicit Table(const TableSpec& spec, OptimizerType type = OptimizerType::sgd, int units = 1)
      : variables_({variable(spec, units)}),
        plan_(RowPlan::make(variables_, 1)),
        optimizer_(rule(type)),
        shard_({variables_[0], plan_[TableId(0)], ServerId(0), optimizer_, 3}) {}
  TableShard* operator->() { return &shard_; }

  // A step in which these ids occur so often, with gradients of 1.
  void step(std::int64_t clock, const std::map<std::uint64_t, std::uint32_t>& ids) {
    apply(UpdateStep::whole(Clock(clock)), ids);
  }
  // The same in a push, half a step.
  void push(std::int64_t clock, const std::map<std::uint64_t, std::uint32_t>& ids) {
    apply({Clock(clock), 0.5, static_cast<double>(clock), 1, true}, ids);
  }
  void apply(const UpdateStep& step, const std::map<std::uint64_t, std::uint32_t>& ids) {
    std::vector<std::uint64_t> sorted;
    for (const auto& [id, n] : ids) sorted.push_back(id);
    std::ranges::sort(sorted, {}, mix_row_id);
    std::vector<std::uint32_t> positions, counts;
    for (const std::uint64_t id : sorted) {
      positions.push_back(static_cast<std::uint32_t>(positions.size()));
      counts.push_back(ids.at(id));
    }
    const std::vector<float> gradients(ids.size() * static_cast<std::size_t>(plan_[TableId(0)].units), 1);
    const TableShard::Contribution all{sorted, positions,
                                       reinterpret_cast<const std::byte*>(gradients.data()), counts.data()};
    shard_.apply(step, std::span(&all, 1), ReductionTree({{0, 0}}, 1));
  }
  float read(std::uint64_t id, std::int64_t step) {
    float value = 0;
    shard_.read(std::span(&id, 1), Clock(step), reinterpret_cast<std::byte*>(&value));
    return value;
  }
  PartRows part(std::int64_t since = TableShard::kAll) {
    PartRows rows;
    shard_.cut();
    shard_.read_part(0, since, rows);
    shard_.end_cut();
    return rows;
  }
  std::set<std::uint64_t> ids(std::int64_t since = TableShard::kAll) {
    std::set<std::uint64_t> ids;
    const PartRows rows = part(since);
    for (std::size_t at = 0; at < rows.rows.size(); at += shard_.layout().row_bytes())
      ids.insert(RowLayout::id_of(&rows.rows[at]));
    return ids;
  }

 private:
  static VariableSpec variable(const TableSpec& spec, int units) {
    VariableSpec v =
        testing::make_spec("user/embedding", DType::float32, Shape{0, units}, Initializer::constant(1));
    v.table = spec;
    return v;
  }
  static OptimizerConfig rule(OptimizerType type) {
    OptimizerConfig config;
    config.type = type;
    config.learning_rate = 1;
    return config;
  }
  VariableTable variables_;
  RowPlan plan_;
  Optimizer optimizer_;
  TableShard shard_;
};

TableSpec one_part() {
  TableSpec spec;
  spec.ids = IdType::uint64;
  spec.parts = 1;
  return spec;
}

// By one, since `first`.
std::map<std::uint64_t, std::uint32_t> range(std::uint64_t first, std::uint64_t n) {
  std::map<std::uint64_t, std::uint32_t> ids;
  for (std::uint64_t i = 0; i < n; ++i) ids[first + i] = 1;
  return ids;
}

TEST(TableEntry, ARowIsMadeInTheStepInWhichItsIdHasOccurredOftenEnough) {
  TableSpec spec = one_part();
  spec.entry = 3;
  spec.absent = AbsentRows::zeros;
  Table table(spec);
  table.step(1, {{7, 2}});
  table.step(2, {});
  EXPECT_EQ(table->n_rows(), 0);
  EXPECT_EQ(table->n_waiting(), 1);
  EXPECT_EQ(table.read(7, 3), 0);
  table.step(3, {{7, 1}});
  EXPECT_EQ(table->n_rows(), 1);
  EXPECT_EQ(table->n_waiting(), 0);
  EXPECT_EQ(table.read(7, 3), 0);  // 1, and the gradient of that step
  EXPECT_EQ(RowLayout::count_of(table.part().rows.data()), 1U);
  table.step(4, {{8, 3}, {9, 1'000}});  // at once
  EXPECT_EQ(table->n_rows(), 3);
}

TEST(TableEntry, WhatIsReadOfARowThatIsNotThere) {
  TableSpec spec = one_part();
  Table initial(spec);
  EXPECT_EQ(initial.read(1, 0), 1);
  spec.absent = AbsentRows::zeros;
  Table zeros(spec);
  EXPECT_EQ(zeros.read(1, 0), 0);
}

TEST(TableEntry, TheLeastRecentWaitingIdsLeave) {
  TableSpec spec = one_part();
  spec.entry = 5;
  spec.max_waiting = 32;
  Table table(spec);
  table.step(1, {{1, 2}, {2, 1}, {3, 1}});
  table.step(2, range(100, 29));
  EXPECT_EQ(table->n_waiting(), 32);
  EXPECT_EQ(table->counts().waiting_dropped, 0);
  table.step(3, {{4, 1}});  // 33: down to 30; of step 1 those with the smallest counts, then ids, go first
  EXPECT_EQ(table->n_waiting(), 30);
  EXPECT_EQ(table->counts().waiting_dropped, 3);
  const PartRows rows = table.part();
  for (std::size_t at = 0; at < rows.waiting.size(); at += PartRows::kWaitingBytes)
    EXPECT_GE(RowLayout::last_of(&rows.waiting[at]), 2U);
  table.step(4, {{1, 4}});  // is counted anew
  EXPECT_EQ(table->n_rows(), 0);
}

TEST(TableExpiry, ARowIsThereUntilItsStepsAreOver) {
  TableSpec spec = one_part();
  spec.expire_steps = 10;
  Table table(spec);
  table.step(5, {{7, 1}});
  EXPECT_EQ(table.read(7, 15), 0);
  EXPECT_EQ(table.read(7, 16), 1);  // as if it had never been
  for (std::int64_t clock = 6; clock <= 15; ++clock) table.step(clock, {{8, 1}});
  EXPECT_EQ(table->n_rows(), 2);
  EXPECT_EQ(table.ids(), (std::set<std::uint64_t>{7, 8}));
  const RowHashSum with = table->hash_sum(0);
  table.step(16, {{8, 1}});
  EXPECT_EQ(table->n_rows(), 1);
  EXPECT_EQ(table.ids(), (std::set<std::uint64_t>{8}));
  EXPECT_NE(table->hash_sum(0), with);
}

TEST(TableExpiry, AnExpiredIdBeginsAnew) {
  TableSpec spec = one_part();
  spec.expire_steps = 4;
  Table table(spec, OptimizerType::adagrad), fresh(spec, OptimizerType::adagrad);
  table.step(1, {{7, 1}});
  table.step(2, {{7, 1}});
  table.step(7, {{7, 1}});
  fresh.step(7, {{7, 1}});
  EXPECT_EQ(table.part().rows, fresh.part().rows);
  EXPECT_EQ(table->counts().expired, 1);
}

TEST(TableExpiry, WaitingIdsExpireToo) {
  TableSpec spec = one_part();
  spec.entry = 3;
  spec.expire_steps = 4;
  Table table(spec);
  table.step(1, {{7, 2}});
  table.step(6, {{7, 1}});
  EXPECT_EQ(table->n_rows(), 0);
  table.step(10, {{7, 2}});
  EXPECT_EQ(table->n_rows(), 1);
}

TEST(TableExpiry, ARestoredTableGoesOnAsIfNothingHadHappened) {
  TableSpec spec = one_part();
  spec.expire_steps = 10;
  Table table(spec), other(spec);
  table.step(5, {{7, 1}});
  table.step(12, {{8, 1}});
  const PartRows at_12 = table.part();
  other->set_clock(Clock(12));
  other->restore(0, at_12.rows);
  for (Table* t : {&table, &other}) {
    t->step(15, {{9, 1}});
    EXPECT_EQ(t->ids(), (std::set<std::uint64_t>{7, 8, 9}));
    t->step(16, {});
    EXPECT_EQ(t->ids(), (std::set<std::uint64_t>{8, 9}));
  }
}

TEST(TableLimit, EndsTheRunWhereNoRowMayLeave) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  Table table(spec);
  table.step(1, range(0, 4'096));
  EXPECT_EQ(
      testing::thrown([&] {
        table.step(2, {{5'000, 1}});
      }),
      "data: table \"user/embedding\": part 0 has 4097 rows after step 2, but may hold 4096 (max_rows 4096 "
      "/ 1 parts); the parts of server 0 have 4097 rows at most, 4097 on average; raise max_rows, or let "
      "rows leave: when_full: lru, or expire_steps");
  // Where one step alone is too much, letting rows leave would not help.
  Table other(spec);
  EXPECT_EQ(
      testing::thrown([&] { other.step(1, range(0, 4'097)); }),
      "data: table \"user/embedding\": step 1 has touched 4097 rows of part 0, which may hold 4096 "
      "(max_rows 4096 / 1 parts), and a step removes none of its own; lower train.batch, or raise max_rows");
}

TEST(TablePushes, OfOneStepRemoveNoneOfEachOthersRows) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec);
  table.push(1, range(10'000, 100));
  table.push(2, range(0, 2'000));
  table.push(2, range(2'000, 2'096));  // the first hundred go, and no row of step 2
  EXPECT_EQ(table->n_rows(), 4'096);
  EXPECT_EQ(table->counts().evicted, 100);
  EXPECT_EQ(
      testing::thrown([&] {
        table.push(2, {{5'000, 1}});
      }),
      "data: table \"user/embedding\": step 2 has touched 4097 rows of part 0, which may hold 4096 "
      "(max_rows 4096 / 1 parts), and a step removes none of its own; lower train.batch, or raise max_rows");
}

TEST(TablePushes, OfOneStepCountTheOccurrencesOfAnIdTogether) {
  TableSpec spec = one_part();
  spec.entry = 5;
  Table table(spec);
  table.push(1, {{3, 2}});
  table.push(1, {{3, 2}});
  EXPECT_EQ(table->n_rows(), 0);
  EXPECT_EQ(table->n_waiting(), 1);
  table.push(1, {{3, 1}});
  EXPECT_EQ(table->n_rows(), 1);
  EXPECT_EQ(table->n_waiting(), 0);
  EXPECT_EQ(table.read(3, 1), 0.5F);  // half a step of the gradient 1: only of the push that made it
}

// What has expired leaves memory at the pace of steps, however many pushes a step has.
TEST(TablePushes, OfOneStepSweepAsOneStep) {
  TableSpec spec = one_part();
  spec.parts = 4;
  spec.expire_steps = 16;
  Table table(spec);
  table.push(1, range(0, 400));
  table.push(30, {});
  const std::int64_t after_one = table->counts().expired;
  EXPECT_GT(after_one, 0);
  EXPECT_LT(after_one, 400);
  for (int k = 0; k < 10; ++k) table.push(30, {});
  EXPECT_EQ(table->counts().expired, after_one);
  for (int step = 31; step <= 33; ++step) table.push(step, {});
  EXPECT_EQ(table->counts().expired, 400);
}

// Of 32 bits: at its end it stays, and a row that was updated so often is not a new one to lfu and adam.
TEST(TablePushes, ACountStaysAtItsEnd) {
  Table table(one_part());
  const float value = 1;
  table->restore_values(3, reinterpret_cast<const std::byte*>(&value), 1, 0xffff'fffe);
  for (int k = 0; k < 3; ++k) table.push(2, {{3, 1}});
  const PartRows part = table.part();
  ASSERT_EQ(part.rows.size(), table->layout().row_bytes());
  EXPECT_EQ(RowLayout::count_of(part.rows.data()), 0xffff'ffffU);
}

TEST(TableLimit, WhatHasExpiredGoesFirst) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.expire_steps = 10;
  Table table(spec);
  table.step(1, range(0, 4'000));
  table.step(2, range(4'000, 96));
  table.step(12, range(5'000, 4'000));
  EXPECT_EQ(table->n_rows(), 4'096);
  EXPECT_EQ(table->counts().evicted, 0);
}

TEST(TableLimit, TheLeastRecentLeaveDownToFifteenSixteenths) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec);
  table.step(1, range(0, 1'000));
  table.step(2, range(1'000, 3'096));
  table.step(3, range(0, 500));  // these are recent now
  EXPECT_EQ(table->counts().evicted, 0);
  table.step(4, {{9'999, 1}});
  EXPECT_EQ(table->n_rows(), 3'840);
  EXPECT_EQ(table->counts().evicted, 257);
  const auto ids = table.ids();
  for (std::uint64_t id = 500; id < 757; ++id) EXPECT_FALSE(ids.contains(id)) << id;
  EXPECT_TRUE(ids.contains(499) && ids.contains(757) && ids.contains(9'999));
}

TEST(TableLimit, TheLeastFrequentLeaveFirst) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lfu;
  Table table(spec);
  table.step(1, range(0, 4'000));
  table.step(2, range(0, 4'000));
  table.step(3, range(5'000, 96));  // more recent, and less frequent
  table.step(4, {{9'999, 1}});
  EXPECT_EQ(table->n_rows(), 3'840);
  const auto ids = table.ids();
  for (std::uint64_t id = 5'000; id < 5'096; ++id) EXPECT_FALSE(ids.contains(id)) << id;
  for (std::uint64_t id = 0; id < 161; ++id) EXPECT_FALSE(ids.contains(id)) << id;
  EXPECT_TRUE(ids.contains(161));
  EXPECT_TRUE(ids.contains(9'999));  // once, but in this step
}

// A step's own rows stay, even where that leaves more than fifteen sixteenths.
TEST(TableLimit, AStepRemovesNoneOfItsOwnRows) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec);
  table.step(1, range(10'000, 100));
  table.step(2, range(0, 4'096));
  EXPECT_EQ(table->n_rows(), 4'096);
  EXPECT_EQ(table->counts().evicted, 100);
  EXPECT_EQ(
      testing::thrown([&] { table.step(3, range(0, 4'097)); }),
      "data: table \"user/embedding\": step 3 has touched 4097 rows of part 0, which may hold 4096 "
      "(max_rows 4096 / 1 parts), and a step removes none of its own; lower train.batch, or raise max_rows");
}

TEST(TableLimit, AnEvictedIdBeginsAnew) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec, OptimizerType::adagrad), fresh(spec, OptimizerType::adagrad);
  table.step(1, {{9'999, 1}});
  table.step(2, range(0, 4'096));
  EXPECT_FALSE(table.ids().contains(9'999));
  table->remember_removed(true);
  table.step(3, {{9'999, 1}});
  fresh.step(3, {{9'999, 1}});
  const PartRows rows = table.part();
  const std::size_t row_bytes = table->layout().row_bytes();
  for (std::size_t at = 0; at < rows.rows.size(); at += row_bytes) {
    if (RowLayout::id_of(&rows.rows[at]) != 9'999) continue;
    EXPECT_EQ(testing::Bytes(&rows.rows[at], &rows.rows[at] + row_bytes), fresh.part().rows);
  }
}

TEST(TableSaves, NameWhatHasLeftSinceTheSaveTheyBuildOn) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec);
  table->remember_removed(true);
  table.step(1, range(0, 4'096));
  EXPECT_TRUE(table.part().is_all);
  table.step(2, {{5'000, 1}});
  PartRows rows = table.part(1);  // 0 to 256 have left
  EXPECT_FALSE(rows.is_all);
  EXPECT_EQ(rows.removed.size(), 257U);
  EXPECT_EQ(table.ids(1), (std::set<std::uint64_t>{5'000}));
  table.step(3, {{0, 1}});  // has come back
  rows = table.part(1);
  EXPECT_EQ(rows.removed.size(), 256U);
  EXPECT_EQ(table.ids(1), (std::set<std::uint64_t>{0, 5'000}));
  table->forget_removed(0, Clock(3));
  table.step(4, {{1, 1}});
  rows = table.part(3);
  EXPECT_FALSE(rows.is_all);
  EXPECT_TRUE(rows.removed.empty());
  EXPECT_TRUE(table.part(2).is_all);  // nobody knows any more
}

TEST(TableSaves, AreOfAllWhereMuchHasLeft) {
  TableSpec spec = one_part();
  spec.max_rows = 4'096;
  spec.when_full = WhenFull::lru;
  Table table(spec);
  table->remember_removed(true);
  table.step(1, range(0, 4'096));
  table.part();
  for (std::int64_t t = 2; t < 6; ++t) table.step(t, range(static_cast<std::uint64_t>(t) * 10'000, 200));
  EXPECT_FALSE(table.part(1).is_all);
  for (std::int64_t t = 6; t < 14; ++t) table.step(t, range(static_cast<std::uint64_t>(t) * 10'000, 400));
  EXPECT_TRUE(table.part(1).is_all);
  EXPECT_TRUE(table.part(1).removed.empty());
  table->forget_removed(0, Clock(13));
  table.step(14, {{3, 1}});
  EXPECT_FALSE(table.part(13).is_all);
}

TEST(TableSaves, SayWhatWaitingIdsCannotBeRestored) {
  TableSpec spec = one_part();
  spec.entry = 3;
  Table table(spec);
  testing::Bytes record(PartRows::kWaitingBytes);
  RowLayout::set_id(record.data(), 9);
  const auto restored = [&](std::uint32_t last, std::uint32_t count) {
    RowLayout::set_last(record.data(), last);
    RowLayout::set_count(record.data(), count);
    return testing::thrown([&] { table->restore_waiting(0, record); });
  };
  const std::string of = "checkpoint: table \"user/embedding\": ";
  EXPECT_EQ(restored(4, 3),
            of + "id 9 has waited for its row with 3 occurrences, the last in step 4, but entry is 3");
  EXPECT_EQ(restored(4, 0),
            of + "id 9 has waited for its row with 0 occurrences, the last in step 4, but entry is 3");
  EXPECT_EQ(restored(4, 2), "no error");
  EXPECT_EQ(restored(4, 2), of + "row 9 is there twice");
  record.pop_back();
  EXPECT_EQ(restored(4, 2), of + "part 0 has 15 bytes, but a waiting id has 16");
  EXPECT_EQ(testing::thrown([&] { table->restore_waiting(1, {}); }),
            "argument: table \"user/embedding\": part 1 is not on this server");
  testing::Bytes row(table->layout().row_bytes());
  RowLayout::set_id(row.data(), 9);
  EXPECT_EQ(testing::thrown([&] { table->restore(0, row); }), of + "row 9 is there twice");
  RowLayout::set_id(row.data(), 8);
  RowLayout::set_last(row.data(), ~0U);
  EXPECT_EQ(testing::thrown([&] { table->restore(0, row); }),
            of + "row 8 occurred last in step 4294967295, which no run has");
}

// Ten times as many ids as there is room for come and go: memory is that of a table that only grew.
TEST(TableMemory, DoesNotGrowWithIdsThatComeAndGo) {
  TableSpec spec;
  spec.ids = IdType::uint64;
  spec.parts = 16;
  spec.max_rows = 80'000;
  spec.when_full = WhenFull::lru;
  Table table(spec, OptimizerType::adagrad, 8), fresh(spec, OptimizerType::adagrad, 8);
  std::uint64_t next = 0;
  for (std::int64_t t = 1; next < 10 * 80'000; ++t, next += 2'000) table.step(t, range(next, 2'000));
  std::uint64_t id = 0;
  for (std::int64_t t = 1; fresh->n_rows() < table->n_rows(); ++t, id += 1'000)
    fresh.step(t, range(id, 1'000));
  EXPECT_GT(table->counts().evicted, 700'000);
  EXPECT_LE(static_cast<double>(table->n_bytes()), 1.1 * static_cast<double>(fresh->n_bytes()))
      << table->n_bytes() << ", " << fresh->n_bytes();
}

// What has expired is kept for a quarter of its time at most.
TEST(TableMemory, ExpiredRowsAreGivenUpInTime) {
  TableSpec spec;
  spec.ids = IdType::uint64;
  spec.parts = 16;
  for (const bool waits : {false, true}) {
    spec.expire_steps = 40;
    spec.entry = waits ? 2 : 1;
    Table table(spec), fresh(spec);
    for (std::int64_t t = 1; t <= 1'000; ++t)
      table.step(t, range(static_cast<std::uint64_t>(t) * 1'000, 500));
    for (std::int64_t t = 1; t <= 41; ++t) fresh.step(t, range(static_cast<std::uint64_t>(t) * 1'000, 500));
    EXPECT_EQ(waits ? table->n_waiting() : table->n_rows(), 41 * 500);
    EXPECT_EQ(waits ? fresh->n_waiting() : fresh->n_rows(), 41 * 500);
    EXPECT_LE(static_cast<double>(table->n_bytes()), 1.35 * static_cast<double>(fresh->n_bytes()));
  }
}

}  // namespace
}  // namespace varscope
