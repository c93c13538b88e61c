#include "ps/checkpointing/restore.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <set>

#include "tests/support/references/checkpoint_fixture.h"
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

}  // namespace
}  // namespace varscope
