#include "ps/checkpointing/restore.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <set>

#include "checkpoint/format/boxes.h"
#include "tests/support/references/table_fixture.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::cut_out;
using testing::make_variable;
using testing::Model;
using testing::Saved;
using testing::thrown;

constexpr double kFirstSlot = 0.25;  // of slots that nothing was read into

Model some_model(unsigned seed) {
  return {VariableTable({make_variable("hidden/weights", DType::float32, {90, 61}),
                         make_variable("hidden/biases", DType::float32, {61}),
                         make_variable("norm/mean", DType::float64, {3, 2}, false)}),
          {"m"},
          seed};
}

bool has_bytes(const TensorView& view, const std::vector<std::byte>& bytes) {
  return view.n_bytes() == bytes.size() && std::memcmp(view.bytes(), bytes.data(), bytes.size()) == 0;
}

class RestoreTest : public ::testing::Test {
 protected:
  // All servers' shards of the model, with values that are 0.
  void make_shards(const VariableTable& variables, int n_servers, double per_value = 0) {
    table = variables;
    plan = BucketPlan::make(table, n_servers);
    for (int s = 0; s < n_servers; ++s) {
      shards.emplace_back(
          table, plan, ServerId(s),
          std::vector<Slot>{{.name = "m", .initial_value = kFirstSlot, .per_value = per_value}});
      shards.back().initialize(1);
    }
  }
  void restore(const RestoreSource& source) {
    for (ParameterShard& shard : shards) restore_shard(shard, saved.fs, source);
  }
  // Slices, as "variable slot", whose bytes are those of the checkpoint, and all others.
  std::set<std::string> restored, untouched;
  void look(const std::string& prefix = "") {
    for (ParameterShard& shard : shards) {
      shard.for_each_slice(
          [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView data) {
            const std::string name = v.name.substr(v.name.starts_with(prefix) ? prefix.size() : 0);
            const bool same = has_bytes(data, cut_out(model.value(name, slot), slice.box));
            (same ? restored : untouched).insert(v.name + " " + slot);
          });
    }
  }
  std::set<std::int64_t> clocks() {
    std::set<std::int64_t> all;
    for (ParameterShard& shard : shards)
      for (BucketId id : shard.buckets()) all.insert(shard.clock(id).value);
    return all;
  }

  using Names = std::set<std::string>;
  Model model = some_model(7);
  Saved saved{model, 2, 5};
  VariableTable table;
  BucketPlan plan;
  std::deque<ParameterShard> shards;
};

TEST_F(RestoreTest, ARunThatGoesOnGetsSlotsAndClocks) {
  make_shards(model.table, 3);
  restore({saved.path, Clock(5)});
  look();
  EXPECT_EQ(untouched, Names{});
  EXPECT_EQ(restored, (Names{"hidden/weights ", "hidden/weights m", "hidden/biases ", "hidden/biases m",
                             "norm/mean "}));
  EXPECT_EQ(clocks(), std::set<std::int64_t>{5});
}

TEST_F(RestoreTest, AStartFromValuesGetsValuesOnly) {
  make_shards(model.table, 1);
  restore({saved.path});
  look();
  EXPECT_EQ(restored, (Names{"hidden/weights ", "hidden/biases ", "norm/mean "}));
  EXPECT_EQ(untouched, (Names{"hidden/weights m", "hidden/biases m"}));
  EXPECT_EQ(clocks(), std::set<std::int64_t>{0});
}

// As those of ftrl: a warm start's values make the slots, not the initial values that were there before.
TEST_F(RestoreTest, AStartFromValuesStartsSlotsFromThem) {
  make_shards(model.table, 2, -2);
  restore({saved.path});
  int n_slots = 0;
  for (ParameterShard& shard : shards) {
    TensorView values;
    shard.for_each_slice(
        [&](const VariableSpec& v, const std::string& slot, const BucketSlice&, TensorView data) {
          if (slot.empty()) return void(values = data);
          ++n_slots;
          for (std::size_t i = 0; i < static_cast<std::size_t>(data.n_elements()); ++i)
            ASSERT_EQ(data.as<float>()[i], 0.25F + -2 * values.as<float>()[i]) << v.name << " " << i;
        });
  }
  EXPECT_GE(n_slots, 2);
}

TEST_F(RestoreTest, ARunThatGoesOnTakesSlotsAsTheyWere) {
  make_shards(model.table, 2, -2);
  restore({saved.path, Clock(5)});
  look();
  EXPECT_EQ(untouched, Names{});
}

TEST_F(RestoreTest, AVariableMayHaveAnotherNameOrNone) {
  make_shards(VariableTable({make_variable("new/hidden/weights", DType::float32, {90, 61}),
                             make_variable("new/norm/mean", DType::float64, {3, 2}, false)}),
              2);
  restore({saved.path, Clock(9), [](const VariableSpec& v) -> std::optional<VariableSpec> {
             if (v.name == "new/norm/mean") return std::nullopt;
             VariableSpec there = v;
             there.name = v.name.substr(4);
             return there;
           }});
  look("new/");
  EXPECT_EQ(restored, (Names{"new/hidden/weights ", "new/hidden/weights m"}));
  EXPECT_EQ(untouched, Names{"new/norm/mean "});
  EXPECT_EQ(clocks(), std::set<std::int64_t>{9});
}

TEST_F(RestoreTest, AMissingCheckpointIsNamed) {
  make_shards(model.table, 1);
  const std::string error = thrown([&] { restore({saved.path + "-none"}); });
  EXPECT_NE(error.find(saved.path + "-none"), std::string::npos) << error;
}

// A warm start between a table and a dense variable, whole or in parts, on several servers.
class RestoreOfRows : public ::testing::Test {
 protected:
  static constexpr std::int64_t kIds = 40, kUnits = 5;
  static std::vector<VariableSpec> dense(int axis) {
    const VariableSpec whole = make_variable("e", DType::float32, {kIds, kUnits});
    if (axis < 0) return {whole};
    std::vector<VariableSpec> parts(2, whole);
    for (int i = 0; i < 2; ++i) {
      VariableSpec& p = parts[static_cast<std::size_t>(i)];
      p.name += "/part_" + std::to_string(i);
      p.shape = axis == 0 ? Shape{20, kUnits} : Shape{kIds, 2 + i};
      p.part = {"e", whole.shape, Shape{axis == 0 ? 20 * i : 0, axis == 1 ? 2 * i : 0}, i, 2};
    }
    return parts;
  }
  static VariableSpec table() { return testing::make_table("e", DType::float32, kUnits, {IdType::int64, 8}); }
  // What the servers have of it, by id.
  template <class Restore>
  static std::vector<float> values_of(const std::vector<VariableSpec>& variables, int n_servers,
                                      const Restore& restore) {
    const VariableTable all(variables);
    const BucketPlan plan = BucketPlan::make(all, n_servers);
    std::vector<float> values(kIds * kUnits, -1);
    for (int s = 0; s < n_servers; ++s) {
      ParameterShard shard(all, plan, ServerId(s), {});
      restore(shard);
      shard.for_each_slice(
          [&](const VariableSpec& v, const std::string&, const BucketSlice& slice, TensorView data) {
            const Slice box = in_whole(v, slice.box);
            const auto from = data.as<float>();
            for (std::int64_t i = 0; i < box.n_elements(); ++i) {
              const std::int64_t row = box.offset[0] + i / box.extent[1],
                                 column = box.offset[1] + i % box.extent[1];
              values[static_cast<std::size_t>(row * kUnits + column)] = from[static_cast<std::size_t>(i)];
            }
          });
    }
    return values;
  }
};

TEST_F(RestoreOfRows, ADenseVariableStartsFromATable) {
  testing::TableRows rows(table(), {{"m", kUnits}});
  for (std::uint64_t id = 0; id < kIds; id += 2) {
    rows.add(id);
    for (std::size_t c = 0; c < kUnits; ++c) rows.set(id, c, static_cast<float>(id) + 0.125F * c);
  }
  const testing::SavedTables saved({{make_variable("w", DType::float32, {3})}, {rows}, 1}, 2);
  std::vector<float> expected(kIds * kUnits);
  const VariableSpec spec = table();
  const InitialValues first = spec.initial_values(77);
  for (std::uint64_t id = 0; id < kIds; ++id) {
    float* row = expected.data() + id * kUnits;
    VariableSpec::fill_row(TensorView(DType::float32, Shape{kUnits}, reinterpret_cast<std::byte*>(row)),
                           first, id);
    for (std::size_t c = 0; id % 2 == 0 && c < kUnits; ++c) row[c] = static_cast<float>(id) + 0.125F * c;
  }
  for (const int axis : {-1, 0, 1}) {
    for (const int servers : {1, 2, 3}) {
      PosixFs fs;
      const RestoreSource source{.path = saved.path, .seed = 77};
      EXPECT_EQ(
          values_of(dense(axis), servers, [&](ParameterShard& shard) { restore_shard(shard, fs, source); }),
          expected)
          << "axis " << axis << ", " << servers << " servers";
    }
  }
}

TEST_F(RestoreOfRows, ATableStartsFromADenseVariable) {
  for (const int axis : {-1, 0, 1}) {
    Saved saved{Model(VariableTable(dense(axis)), {"m"}, 3), 2, 5};
    const std::vector<float> expected = values_of(
        dense(-1), 1, [&](ParameterShard& shard) { restore_shard(shard, saved.fs, {.path = saved.path}); });
    for (const int servers : {1, 3}) {
      OptimizerConfig config;
      config.type = OptimizerType::momentum;
      const Optimizer optimizer(config);
      const VariableTable all({table()});
      const RowPlan plan = RowPlan::make(all, servers);
      std::int64_t n = 0;
      for (int s = 0; s < servers; ++s) {
        TableShards shards = make_table_shards(all, plan, ServerId(s), optimizer, 1);
        restore_tables(shards, saved.fs, {.path = saved.path});
        TableShard& shard = *shards[TableId(0)];
        EXPECT_EQ(shard.clock(), Clock(0));
        n += shard.n_rows();
        for (std::uint64_t id = 0; id < kIds; ++id) {
          if (plan[TableId(0)].server_of(id) != ServerId(s)) continue;
          std::vector<float> row(kUnits);
          shard.read(std::span(&id, 1), Clock(0), reinterpret_cast<std::byte*>(row.data()));
          EXPECT_TRUE(std::equal(row.begin(), row.end(), expected.data() + id * kUnits)) << id;
        }
        shard.cut();
        for (const int part : shard.parts()) {
          PartRows rows;
          shard.read_part(part, TableShard::kAll, rows);
          for (std::size_t at = 0; at < rows.rows.size(); at += shard.layout().row_bytes()) {
            const std::byte* row = rows.rows.data() + at;
            EXPECT_EQ(RowLayout::last_of(row), 0U);
            EXPECT_EQ(RowLayout::count_of(row), 0U);
            const std::vector<std::byte> slot(row + shard.layout().slot_at(0),
                                              row + shard.layout().slot_at(0) + shard.layout().slot_bytes(0));
            EXPECT_EQ(slot, std::vector<std::byte>(slot.size())) << "momentum begins anew";
          }
        }
        shard.end_cut();
      }
      EXPECT_EQ(n, kIds);
    }
  }
}

}  // namespace
}  // namespace varscope
