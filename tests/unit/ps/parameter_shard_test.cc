#include "ps/store/parameter_shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "common/variables/variable_table.h"
#include "ps/update/optimizer.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::thrown;

VariableTable some_table() {
  const Initializer random = Initializer::normal(0, 1);
  return VariableTable({make_spec("a/w", DType::float32, Shape{300, 200}, random),
                        make_spec("a/b", DType::float32, Shape{200}, Initializer::constant(0.5)),
                        make_spec("b/w", DType::float64, Shape{9000}, random),
                        make_spec("steps", DType::int64, Shape{}, Initializer::constant(3), false),
                        make_spec("b/frozen", DType::float32, Shape{11}, random, false)});
}

OptimizerConfig adagrad() {
  OptimizerConfig c;
  c.type = OptimizerType::adagrad;
  return c;
}

TEST(ParameterShard, InitialValuesDoNotDependOnTheNumberOfServers) {
  const VariableTable variables = some_table();
  const Optimizer optimizer(adagrad());
  for (int n_servers : {1, 2, 3, 8}) {
    const BucketPlan plan = BucketPlan::make(variables, n_servers);
    ValuesHash hash(variables);
    std::map<std::string, std::int64_t> elements;
    for (int s = 0; s < n_servers; ++s) {
      ParameterShard shard(variables, plan, ServerId(s), optimizer.slots());
      shard.initialize(42);
      shard.for_each_slice(
          [&](const VariableSpec& v, const std::string& slot, const BucketSlice& slice, TensorView data) {
            Tensor whole(v.dtype, v.shape);
            const Initializer expected = slot.empty() ? v.initializer : Initializer::constant(0.1);
            expected.fill(whole.view(), 42, v.name, 0);
            const std::byte* begin =
                whole.view().bytes() + static_cast<std::size_t>(slice.variable_begin) * size_of(v.dtype);
            EXPECT_EQ(std::memcmp(data.bytes(), begin, data.n_bytes()), 0)
                << v.name << " " << slot << " " << slice.index;
            EXPECT_EQ(data.shape(), slice.box.extent);
            elements[v.name + ":" + slot] += data.n_elements();
          });
      for (const HashReport::Entry& e : shard.hashes().entries) hash.add(e.variable, e.slice, e.digest);
    }
    for (const VariableSpec& v : variables.variables()) {
      EXPECT_EQ(elements[v.name + ":"], v.shape.n_elements()) << v.name;
      EXPECT_EQ(elements[v.name + ":accumulator"], v.trainable ? v.shape.n_elements() : 0) << v.name;
    }
    static const Digest first = hash.finish();  // of one server
    EXPECT_EQ(hash.finish(), first) << n_servers;
  }
}

// Those of ftrl: from the values that are there, of every dtype and wherever slices lie.
TEST(ParameterShard, SlotsStartFromTheValues) {
  const VariableTable variables = some_table();
  OptimizerConfig config;
  config.type = OptimizerType::ftrl;
  config.l1 = 0.5;
  const Optimizer optimizer(config);
  const BucketPlan plan = BucketPlan::make(variables, 2);
  for (int s = 0; s < 2; ++s) {
    ParameterShard shard(variables, plan, ServerId(s), optimizer.slots());
    const auto expect_slots_of_values = [&] {
      for (const BucketId id : shard.buckets()) {
        if (!plan[id].trainable) continue;
        AlignedBytes z = allocate_aligned(static_cast<std::size_t>(plan[id].n_bytes())),
                     n = allocate_aligned(static_cast<std::size_t>(plan[id].n_bytes()));
        optimizer.start_slots(plan[id].dtype, shard.value(id), std::vector<std::byte*>{z.get(), n.get()},
                              plan[id].n_elements);
        const auto n_bytes = static_cast<std::size_t>(plan[id].n_bytes());
        EXPECT_EQ(std::memcmp(z.get(), shard.slot(id, 0), n_bytes), 0) << id.value;
        EXPECT_EQ(std::memcmp(n.get(), shard.slot(id, 1), n_bytes), 0) << id.value;
      }
    };
    shard.initialize(42);
    expect_slots_of_values();
    for (const BucketId id : shard.buckets()) {
      if (plan[id].trainable)
        std::memset(shard.value(id), 0x3e, static_cast<std::size_t>(plan[id].n_bytes()));
    }
    shard.start_slots();
    expect_slots_of_values();
  }
}

TEST(ParameterShard, AnotherSeedMakesOtherValues) {
  const VariableTable variables = some_table();
  const Optimizer optimizer(adagrad());
  const BucketPlan plan = BucketPlan::make(variables, 1);
  ParameterShard a(variables, plan, ServerId(0), optimizer.slots()),
      b(variables, plan, ServerId(0), optimizer.slots());
  a.initialize(1);
  b.initialize(2);
  EXPECT_NE(a.hashes().entries[0].digest, b.hashes().entries[0].digest);
}

TEST(ParameterShard, BucketsAreAlignedAndApart) {
  const VariableTable variables = some_table();
  const Optimizer optimizer(adagrad());
  const BucketPlan plan = BucketPlan::make(variables, 2);
  ParameterShard shard(variables, plan, ServerId(1), optimizer.slots());
  std::int64_t bytes = 0;
  for (BucketId id : shard.buckets()) {
    EXPECT_TRUE(shard.has(id));
    EXPECT_EQ(plan[id].server, ServerId(1));
    EXPECT_EQ(shard.clock(id), Clock(0));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(shard.value(id)) % kAlignment, 0U);
    const auto slots = shard.slots(id);
    EXPECT_EQ(slots.size(), plan[id].trainable ? 1U : 0U);
    for (std::byte* s : slots) EXPECT_EQ(reinterpret_cast<std::uintptr_t>(s) % kAlignment, 0U);
    bytes += plan[id].n_bytes() * static_cast<std::int64_t>(1 + slots.size());
  }
  EXPECT_EQ(shard.n_bytes(), bytes);
}

TEST(ParameterShard, MovingAveragesHaveNoSlots) {
  VariableSpec mean = make_spec("a/mean", DType::float32, Shape{5000}, Initializer::normal(0, 1), false);
  mean.average_decay = 0.9;
  const VariableTable variables({make_spec("a/w", DType::float32, Shape{10}), mean});
  const Optimizer optimizer(adagrad());
  const BucketPlan plan = BucketPlan::make(variables, 1);
  ParameterShard shard(variables, plan, ServerId(0), optimizer.slots());
  shard.initialize(1);
  EXPECT_EQ(shard.n_bytes(), 4 * (5000 + 2 * 10));
  for (BucketId id : shard.buckets()) EXPECT_EQ(shard.slots(id).size(), plan[id].trainable ? 1U : 0U);
  shard.for_each_slice([](const VariableSpec& v, const std::string& slot, const BucketSlice&, TensorView) {
    EXPECT_TRUE(slot.empty() || v.name == "a/w") << v.name << " " << slot;
  });
}

TEST(ParameterShard, RefusesBucketsOfOthers) {
  const VariableTable variables = some_table();
  const Optimizer optimizer(adagrad());
  const BucketPlan plan = BucketPlan::make(variables, 2);
  ParameterShard shard(variables, plan, ServerId(0), optimizer.slots());
  for (BucketId id : plan.of_server(ServerId(1))) {
    EXPECT_FALSE(shard.has(id));
    EXPECT_EQ(thrown([&] { shard.value(id); }),
              fmt::format("argument: bucket {} is not on server 0", id.value));
  }
  for (int id : {-1, plan.size(), 1 << 30}) {
    EXPECT_FALSE(shard.has(BucketId(id)));
    EXPECT_NE(thrown([&] { shard.slots(BucketId(id)); }), "no error");
  }
}

}  // namespace
}  // namespace varscope
